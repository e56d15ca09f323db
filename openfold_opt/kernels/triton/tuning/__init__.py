"""Launch options (warps and pipeline stages of each kernel) by chip.

`python -m benchmark perf tune` writes the file of a chip (h100.py, h200.py, a100.py, ...). Without
it, kernels use their default options, which fit every chip from sm_80 on (`python -m benchmark
perf resources`).
"""
