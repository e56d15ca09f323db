"""AlphaFold2 as the benchmark trains it: one file per module of the paper's supplement; alphafold.py assembles them."""
