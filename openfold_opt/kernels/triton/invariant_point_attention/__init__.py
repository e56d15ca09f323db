"""Fused invariant point attention: kernels and operation."""
