"""Shared memory that the kernels need, and a check whether a chip has it.

The numbers come from the compiler (`make kernel-resources`); a test compiles the kernels and
compares. Kernels that are not listed need at most 64 KiB, which every chip of chips.py has.
"""

from __future__ import annotations

from openfold_opt.kernels.chips import CHIPS, shared_bytes_of

LISTED_ABOVE = 64 * 1024
"""Operations whose kernels need at most this number of bytes are not listed."""

WIDTHS = {
    "attention": "C",
    "transition": "C",
    "outer_product_mean": "C",
    "invariant_point_attention": "CZ",
    "normalized_residual": "C_IN",
    "projected_residual_gradient": "C_OUT",
    "triangle_gate_gradient": "C",
}
"""Operation -> compile-time constant of its kernels that holds the width."""

ONLY_GRADIENT = ("normalized_residual", "projected_residual_gradient", "triangle_gate_gradient")
"""Kernels of a backward pass that are parts of an operation. They are not checked before a run, as
predictions do not launch them. Wider layers use other kernels."""

SHARED_BYTES: dict[str, dict[int, dict[str, dict[int, int]]]] = {
    "attention": {
        8: {
            "bf16": {80: 67_584, 90: 102_400},
            "fp32": {80: 24_576, 90: 24_576},
            "tf32": {80: 38_912, 90: 38_912},
        },
        16: {
            "bf16": {80: 57_344, 90: 69_632},
            "fp32": {80: 24_576, 90: 24_576},
            "tf32": {80: 38_912, 90: 38_912},
        },
        32: {
            "bf16": {80: 81_920, 90: 106_496},
            "fp32": {80: 45_056, 90: 45_056},
            "tf32": {80: 73_728, 90: 73_728},
        },
        64: {
            "bf16": {80: 114_688, 90: 163_840},
            "fp32": {80: 69_632, 90: 69_632},
            "tf32": {80: 81_920, 90: 81_920},
        },
        128: {
            "bf16": {80: 106_496, 90: 155_648},
            "fp32": {80: 65_536, 90: 65_536},
            "tf32": {80: 66_560, 90: 66_560},
        },
    },
    "invariant_point_attention": {
        128: {
            "bf16": {80: 89_216, 90: 89_216},
            "fp32": {80: 89_216, 90: 89_216},
            "tf32": {80: 89_216, 90: 89_216},
        },
        256: {
            "bf16": {80: 105_600, 90: 105_600},
            "fp32": {80: 105_600, 90: 105_600},
            "tf32": {80: 105_600, 90: 105_600},
        },
    },
    "normalized_residual": {
        64: {
            "bf16": {80: 61_440, 90: 53_248},
            "fp32": {80: 37_888, 90: 37_888},
            "tf32": {80: 45_056, 90: 62_464},
        },
        128: {
            "bf16": {80: 155_648, 90: 122_880},
            "fp32": {80: 110_592, 90: 110_592},
            "tf32": {80: 155_648, 90: 192_512},
        },
    },
    "outer_product_mean": {
        32: {
            "bf16": {80: 73_728, 90: 155_648},
            "fp32": {80: 90_112, 90: 90_112},
            "tf32": {80: 73_728, 90: 90_112},
        },
        64: {
            "bf16": {80: 69_632, 90: 86_016},
            "fp32": {80: 77_824, 90: 77_824},
            "tf32": {80: 69_632, 90: 77_824},
        },
    },
    "projected_residual_gradient": {
        64: {
            "bf16": {80: 40_960, 90: 57_344},
            "fp32": {80: 37_888, 90: 37_888},
            "tf32": {80: 24_576, 90: 24_576},
        },
        128: {
            "bf16": {80: 73_728, 90: 98_304},
            "fp32": {80: 71_680, 90: 71_680},
            "tf32": {80: 45_056, 90: 45_056},
        },
        256: {
            "bf16": {80: 139_264, 90: 159_744},
            "fp32": {80: 139_264, 90: 139_264},
            "tf32": {80: 102_400, 90: 102_400},
        },
    },
    "transition": {
        64: {
            "bf16": {80: 40_960, 90: 57_344},
            "fp32": {80: 65_536, 90: 65_536},
            "tf32": {80: 57_344, 90: 81_920},
        },
        128: {
            "bf16": {80: 73_728, 90: 106_496},
            "fp32": {80: 114_688, 90: 114_688},
            "tf32": {80: 114_688, 90: 163_840},
        },
        256: {
            "bf16": {80: 102_400, 90: 135_168},
            "fp32": {80: 139_264, 90: 139_264},
            "tf32": {80: 163_840, 90: 196_608},
        },
    },
    "triangle_gate_gradient": {
        64: {
            "bf16": {80: 20_480, 90: 28_672},
            "fp32": {80: 18_688, 90: 18_688},
            "tf32": {80: 14_336, 90: 14_336},
        },
        128: {
            "bf16": {80: 28_672, 90: 45_056},
            "fp32": {80: 26_880, 90: 26_880},
            "tf32": {80: 22_528, 90: 22_528},
        },
        256: {
            "bf16": {80: 45_056, 90: 77_824},
            "fp32": {80: 43_520, 90: 43_520},
            "tf32": {80: 39_424, 90: 39_424},
        },
    },
}
"""Operation -> largest width -> precision of the run -> compute capability -> bytes."""


def bytes_needed(operation: str, width: int, precision: str, capability: int) -> int | None:
    """Return the bytes that the kernels of an operation need on a chip; None if it is not listed.

    width: at most the largest listed one; capability: at least the smallest listed one. For a
        capability that is not listed, the bytes are those of the next lower one (sm_100 needs at
        most 17 KiB more than sm_90).
    """
    if operation not in SHARED_BYTES:
        return None
    widths = SHARED_BYTES[operation]
    by_capability = widths[min(listed for listed in widths if listed >= width)][precision]
    return by_capability[max(listed for listed in by_capability if listed <= capability)]


def unsupported_reason(operation: str, width: int, precision: str, capability: int) -> str | None:
    """Return why a chip cannot run the kernels of an operation; None if it can."""
    limit = shared_bytes_of(capability)
    if limit is None:
        known = sorted({chip.capability / 10 for chip in CHIPS})
        return (
            f"the Triton kernels support compute capabilities {known}, found {capability / 10} "
            "(openfold_opt/kernels/chips.py lists the chips)"
        )
    needed = bytes_needed(operation, width, precision, capability)
    if needed is None or needed <= limit:
        return None
    return (
        f"its Triton kernels need {needed} bytes of shared memory in {precision} for a width of "
        f"{width}, and a chip of compute capability {capability / 10} has {limit}"
    )
