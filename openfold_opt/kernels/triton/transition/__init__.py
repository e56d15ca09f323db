"""Fused transition: kernels and operation."""
