"""What cuEquivariance needs: packages, a GPU, a precision and sizes.

The limits are those of the documentation of cuequivariance_torch 0.13. Beyond them its attention
runs in plain PyTorch without a message, and measurements would be misleading.
"""

from __future__ import annotations

import importlib.util

from openfold_opt.kernels.interface import CUEQUIVARIANCE_OPERATIONS, KernelShapes, Precision

PACKAGES = ("cuequivariance_torch", "cuequivariance_ops_torch")
"""The Python interface, and the kernels."""
MAX_HEAD_SIZE = {"bf16": 128, "tf32": 32}
HEAD_SIZE_UNIT = {"bf16": 8, "tf32": 4}
TRIANGLE_CHANNEL_UNIT = 32


def unsupported_reason(
    operation: str, shapes: KernelShapes, precision: Precision, capability: int | None
) -> str | None:
    """Return why cuEquivariance cannot compute an operation of a model; None if it can.

    precision: of the run; capability: compute capability of the GPU, None without one.
    """
    if operation not in CUEQUIVARIANCE_OPERATIONS:
        return f"cuEquivariance has only {', '.join(CUEQUIVARIANCE_OPERATIONS)}"
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"cuEquivariance is not installed: found no package {' and no '.join(missing)}; "
            "install the extra `cuequivariance` of pyproject.toml"
        )
    if capability is None:
        return "cuEquivariance needs a CUDA device, found none"
    if precision == "fp32":
        return (
            "the gradients of cuEquivariance have no float32 without TF32; "
            'use the precision "tf32" or "bf16"'
        )
    if operation == "self_attention":
        return _attention_reason(shapes, precision)
    return _multiplication_reason(shapes)


def _attention_reason(shapes: KernelShapes, precision: Precision) -> str | None:
    largest, unit = MAX_HEAD_SIZE[precision], HEAD_SIZE_UNIT[precision]
    wrong = [size for size in shapes.biased_head_sizes if size > largest or size % unit]
    if not wrong:
        return None
    return (
        f"the attention of cuEquivariance supports heads of at most {largest} channels, a multiple "
        f"of {unit}, in {precision}; found {wrong}"
    )


def _multiplication_reason(shapes: KernelShapes) -> str | None:
    if shapes.dap_size > 1:
        return (
            "the triangle multiplication of cuEquivariance needs whole pair representations; "
            f"found dap_size={shapes.dap_size}"
        )
    wrong = [size for size in shapes.triangle_channels if size % TRIANGLE_CHANNEL_UNIT]
    if not wrong:
        return None
    return (
        "the triangle multiplication of cuEquivariance supports channels that are multiples of "
        f"{TRIANGLE_CHANNEL_UNIT}; found {wrong}"
    )
