"""Predict a chain on several ranks over gloo, and compare the memory of each rank with its plan.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 4 -m tests.predict.rank_memory

AlphaFold2's widths, one block of each stack, and fewer rows of the MSA than residues / 8. Takes a
minute. The exit code is 1 if a rank holds a tensor that is larger than its part of the pairs, or
tensors of more than 0.75 U and its part of the MSA at one time, or if the plan differs by more than
5% from the counted tensors or by more than 20% from the growth of the resident set.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist

from benchmark.perf.subprocesses.forward_measurement import ForwardSettings, measure, read_features
from benchmark.perf.subprocesses.predict_probe import build
from benchmark.perf.tools.predict_case import (
    WARM_UP_LENGTH,
    CaseSizes,
    write_features,
    write_weights,
)
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.launch import read_launch_info
from openfold_opt.predict.forward_trace import ForwardTrace
from openfold_opt.predict.ranks import connect

NUM_RESIDUES = 384
SIZES = CaseSizes(blocks=1, extra_blocks=1, templates=4, clusters=36, extra_msa=40)
MIB = 2**20


def measured(folder: Path, dap: AxisGroup) -> dict[str, int]:
    """Return planned, counted and resident bytes of this rank, and those of its largest tensor."""
    write_features(NUM_RESIDUES, SIZES, folder / "chain.npz")
    write_features(WARM_UP_LENGTH, SIZES, folder / "warm_up.npz")
    settings = ForwardSettings(
        features=str(folder / "chain.npz"),
        warm_up_features=str(folder / "warm_up.npz"),
        weights=str(write_weights(SIZES, folder).ours),
        results="",
        blocks=SIZES.blocks,
        extra_blocks=SIZES.extra_blocks,
        variant="auto",
        device="cpu",
        precision="fp32",
        threads=1,
        untimed=0,
        counts=False,
        profiles=False,
        memory_limit_bytes=None,
    )
    model = build(settings, dap=dap)
    run, _ = measure(model, settings)
    chain = model.prepare(read_features(settings.features))
    with ForwardTrace("cpu") as trace:
        model.run(chain)
    return {
        "planned": run.planned_bytes or 0,
        "counted": trace.largest,
        "planned resident": run.planned_resident_bytes or 0,
        "resident": run.peak_bytes - run.base_bytes,
        "largest tensor": trace.largest_storage,
    }


def is_as_planned(rank: dict[str, int], num_ranks: int) -> bool:
    """Return whether the memory of a rank is within the limits."""
    pair_bytes = 4 * NUM_RESIDUES**2 * 128
    msa_bytes = 4 * NUM_RESIDUES * (SIZES.clusters + SIZES.templates) * 256
    return (
        abs(rank["planned"] / rank["counted"] - 1) <= 0.05
        and abs(rank["planned resident"] / rank["resident"] - 1) <= 0.2
        and rank["counted"] <= 0.75 * pair_bytes + msa_bytes / num_ranks
        and rank["largest tensor"] <= pair_bytes // num_ranks
    )


def main() -> int:
    torch.set_num_threads(1)
    launch = read_launch_info()
    context = connect(launch, dap=launch.world_size, device=torch.device("cpu"))
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix="rank-memory-") as name:
        own = measured(Path(name), context.dap)
    ranks = [own] * launch.world_size
    dist.all_gather_object(ranks, own)
    if launch.rank == 0:
        for number, rank in enumerate(ranks):
            sizes = ", ".join(f"{what} {size / MIB:.1f} MiB" for what, size in rank.items())
            is_right = is_as_planned(rank, launch.world_size)
            print(f"rank {number}: {sizes} {'ok' if is_right else 'FAILED'}", flush=True)
    context.close()
    return 0 if all(is_as_planned(rank, launch.world_size) for rank in ranks) else 1


if __name__ == "__main__":
    sys.exit(main())
