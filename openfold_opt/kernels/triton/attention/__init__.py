"""Gated attention with mask and pair bias: forward kernel, backward kernels, and the operation."""
