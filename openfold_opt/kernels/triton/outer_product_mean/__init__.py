"""Fused outer product mean: kernels and operation."""
