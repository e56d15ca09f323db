"""Transforms of raw features into model features, one idea per file. All are functions; draws take their generator."""
