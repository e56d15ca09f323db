"""Conversion of raw PDB and OpenProteinSet files to shards.

It runs once, before training, as one process or under MPI.
"""
