"""AlphaFold2 as trained by the benchmark: one file per module of the supplement.

alphafold.py assembles the modules.
"""
