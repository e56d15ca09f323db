"""Shared memory that the kernels need, and whether a chip has it.

The figures come from the compiler (`make kernel-resources`); a test compiles the kernels again and
compares. Kernels that are not listed need less than 48 KiB, which every chip has.
"""

from __future__ import annotations

from openfold_opt.kernels.chips import CHIPS, shared_bytes_of

LISTED_ABOVE = 48 * 1024
"""Operations whose kernels all need at most so many bytes are not listed."""

WIDTHS = {
    "attention": "C",
    "transition": "C",
    "outer_product_mean": "C",
    "invariant_point_attention": "CZ",
}
"""Operation -> compile-time constant of its kernels that holds the width."""

SHARED_BYTES: dict[str, dict[int, dict[str, dict[int, int]]]] = {}
"""Operation -> largest width -> precision of the run -> compute capability -> bytes."""


def bytes_needed(operation: str, width: int, precision: str, capability: int) -> int | None:
    """Return the bytes that the kernels of an operation need on a chip; None if it is not listed.

    width: at most the largest listed one; capability: at least the smallest listed one. One between
        two listed capabilities counts as the lower one, as the compiler treats it alike.
    """
    if operation not in SHARED_BYTES:
        return None
    widths = SHARED_BYTES[operation]
    by_capability = widths[min(listed for listed in widths if listed >= width)][precision]
    return by_capability[max(listed for listed in by_capability if listed <= capability)]


def reason_against(operation: str, width: int, precision: str, capability: int) -> str | None:
    """Return why a chip cannot run the kernels of an operation; None if it can."""
    limit = shared_bytes_of(capability)
    if limit is None:
        known = sorted({chip.capability / 10 for chip in CHIPS})
        return (
            f"the Triton kernels are made for compute capabilities {known}, found {capability / 10} "
            "(openfold_opt/kernels/chips.py lists the chips)"
        )
    needed = bytes_needed(operation, width, precision, capability)
    if needed is None or needed <= limit:
        return None
    return (
        f"its Triton kernels need {needed} bytes of shared memory in {precision} for a width of "
        f"{width}, and a chip of compute capability {capability / 10} has {limit}"
    )
