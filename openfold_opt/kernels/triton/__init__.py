"""Fused Triton versions of the operations, in files named as in kernels/reference."""
