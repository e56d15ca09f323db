"""Backward pass of a normalization with a wide projection: kernels and launches."""
