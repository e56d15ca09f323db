"""The fused outer product mean: kernels, and the operation made of them."""
