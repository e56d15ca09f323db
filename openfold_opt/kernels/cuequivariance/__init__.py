"""Kernels of NVIDIA's cuEquivariance, an optional package, behind the interface of ours."""
