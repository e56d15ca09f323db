"""Fused versions of the operations, in Triton; each file has the name of its plain definition in kernels/reference."""
