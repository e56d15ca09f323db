"""Gated attention with mask and pair bias: kernels of the forward pass, of the backward pass, and the operation made of them."""
