"""Numbers of rows of the blocks of every step: as large as useful, and as small as memory requires.

The memory of a step is a constant plus the number of rows of its block times the bytes of a row.
Two traces with different numbers of rows give both.
"""

from __future__ import annotations

from collections.abc import Mapping

from openfold_opt.predict.forward_trace import ForwardTrace
from openfold_opt.predict.schedule.plan import STEPS, Step

MIB = 2**20
BLOCK_BYTES = {"cpu": 16 * MIB, "cuda": 2048 * MIB}
"""Useful memory of a block, by type of device. On a CPU, small blocks stay near the caches. On a
GPU, a block of a triangle multiplication reads all edges of one side, so that it takes more than a
hundred rows to keep the matrix units busy at 10,000 residues."""
_PRODUCT_SHARE = 0.25
"""Share of the pair representation that a block of a triangle multiplication may take in addition
on one rank of a CPU. At 1,024 residues its matrix products reach 82 GFLOP/s with 64 rows, and 34
with 8."""
_FIRST_BYTES = {"cpu": MIB, "cuda": 32 * MIB}
_ROW_MULTIPLE = 16
"""Kernels work on tiles of this many rows."""


def first_rows(num_residues: int, element_bytes: int, device_type: str) -> dict[Step, int]:
    """Return small blocks of every step, to measure the bytes of a row."""
    rows = max(1, _FIRST_BYTES[device_type] // (num_residues * 128 * element_bytes))
    return dict.fromkeys(STEPS, rows)


def useful_bytes(device_type: str, *, pair_bytes: int, dap_size: int) -> dict[Step, int]:
    """Return the useful memory of a block of every step.

    Args:
        device_type: "cpu" or "cuda".
        pair_bytes: bytes of the pair representation.
        dap_size: number of ranks that share the chain. On a CPU they share its caches and memory.
    """
    is_cpu = device_type == "cpu"
    block = BLOCK_BYTES[device_type] // (dap_size if is_cpu else 1)
    sizes = dict.fromkeys(STEPS, block)
    if is_cpu and dap_size == 1:
        sizes["triangle_product"] += int(_PRODUCT_SHARE * pair_bytes)
    return sizes


def choose_rows(
    small: tuple[Mapping[Step, int], ForwardTrace],
    large: tuple[Mapping[Step, int], ForwardTrace],
    *,
    block_bytes: Mapping[Step, int],
    limit_bytes: int,
) -> dict[Step, int]:
    """Choose the rows of the blocks of every step.

    Args:
        small: rows of small blocks, and the trace with them.
        large: rows of larger blocks, and the trace with them.
        block_bytes: useful memory of a block of each step.
        limit_bytes: memory of the device for the forward.
    """
    chosen: dict[Step, int] = {}
    for key, trace in small[1].steps.items():
        step = key.step
        if step is None or key not in large[1].steps:
            continue
        # Blocks have no more rows than the step.
        rows = [min(sizes[step], trace.length) for sizes in (small[0], large[0])]
        difference = large[1].steps[key].workspace_bytes - trace.workspace_bytes
        row_bytes = max(difference / max(rows[1] - rows[0], 1), 1.0)
        room = limit_bytes - (trace.peak_bytes - row_bytes * rows[0])
        largest = _rounded(min(block_bytes[step], max(room, 0)) / row_bytes, trace.length)
        chosen[step] = min(largest, chosen.get(step, largest))
    return chosen


def halve_rows(
    rows: Mapping[Step, int], trace: ForwardTrace, *, limit_bytes: int
) -> dict[Step, int]:
    """Return half as many rows for the steps that exceed the limit."""
    exceeding = {key.step for key, step in trace.steps.items() if step.peak_bytes > limit_bytes}
    return {
        step: max(1, count // 2) if step in exceeding else count for step, count in rows.items()
    }


def _rounded(rows: float, length: int) -> int:
    """Return at most `rows` rows, as a multiple of the tile, in blocks of nearly equal size."""
    count = max(1, min(int(rows), length))
    if count == length:
        return count
    if count >= _ROW_MULTIPLE:
        count -= count % _ROW_MULTIPLE
        equal = -(-length // -(-length // count))
        count = min(count, -(-equal // _ROW_MULTIPLE) * _ROW_MULTIPLE)
    return count
