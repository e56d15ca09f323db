"""AlphaFold2 training, from packed shards to trained weights."""
