"""Launch options (warps and pipeline stages of each kernel) by chip.

A file h100.py, h200.py, a100.py ... is written by `python -m benchmark perf tune` on that chip. Without one, kernels have the options
that they were written with, which fit every chip from sm_80 on (`python -m benchmark perf resources`).
"""
