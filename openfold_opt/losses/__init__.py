"""The losses of AlphaFold2, one file each; all in float32, one value per sample."""
