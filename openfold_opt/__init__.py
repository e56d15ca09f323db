"""AlphaFold2 training from packed shards."""
