"""The losses of AlphaFold2, computed in float32 with one value per sample."""
