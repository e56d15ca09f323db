"""Fused invariant point attention: kernels, and the operation made of them."""
