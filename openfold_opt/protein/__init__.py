"""Protein data without torch: residue constants, model features and shards."""
