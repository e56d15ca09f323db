"""Launch options (warps and pipeline stages) by chip, kernel and number of programs.

A measurement on a GPU writes the file of its chip (h100.py, h200.py, a100.py, ...). Without the
file, kernels use their default options, which fit every chip from sm_80 on (docs/kernels.md).
"""
