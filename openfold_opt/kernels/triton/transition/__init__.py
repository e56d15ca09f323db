"""The fused transition: kernels, and the operation made of them."""
