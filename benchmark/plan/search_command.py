"""`plan search`: the best split of GPUs, or the fewest GPUs for a time."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmark.command_line import (
    check_json_option,
    check_output_option,
    real_number,
    whole_number,
)
from benchmark.perf.tools.timing_stats import table as format_table
from benchmark.plan.code_bases import CODE_BASES
from benchmark.plan.search import (
    SearchSpace,
    Split,
    fastest_by_size,
    least_gpus,
    search_splits,
)
from benchmark.plan.step_counts import read_table
from benchmark.plan.systems import load_system
from benchmark.plan.train_command import add_plan_options, phases_named, project_factors
from benchmark.plan.train_plan import code_of
from benchmark.presets import preset_label
from benchmark.replace_file import replace_text, save_picture

_SHOWN = 12
_MOST_SAMPLES = 10**6
"""Of a batch. Every divisor is tried."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_plan_options(parser)
    add = parser.add_argument
    add(
        "--gpus",
        required=True,
        type=whole_number(1),
        metavar="N",
        help="GPUs that may be used",
    )
    add(
        "--within",
        type=real_number(more_than=0),
        metavar="MIN",
        help="find the fewest GPUs for these minutes",
    )
    add("--phase", metavar="NAME", help="phase, by its name or number (default: the last)")
    add(
        "--batches",
        type=whole_number(1, _MOST_SAMPLES),
        nargs="+",
        metavar="B",
        help="global batches to try (default: that of the preset)",
    )
    add(
        "--code",
        choices=list(CODE_BASES),
        help="implementation (default: that of the preset's kernels)",
    )
    add("--png", type=Path, metavar="FILE", help="draw time over GPUs for each DAP size")


def run(args: argparse.Namespace) -> int:
    """Print the fastest splits. Returns 1 if none is fast enough for --within."""
    check_json_option(args.json)
    check_output_option("--png", args.png)
    phase = phases_named(args.preset, args.phase)[-1]
    config = phase.config
    table = read_table(args.counts)
    space = SearchSpace(
        preset=preset_label(args.preset),
        phase=phase,
        system=load_system(args.system),
        code=args.code or code_of(config),
        batches=args.batches or [config.global_batch_size],
    )
    splits = search_splits(space, args.gpus, table, project_factors(table))
    target = space.samples(splits[0].batch).target
    end = "all steps" if target is None else f"to {target:g}"
    print(f"{args.preset}, {phase.name}, {end} on at most {args.gpus} GPUs:")
    print(_rows(splits[:_SHOWN]))
    print("\nfastest for each number of GPUs:")
    frontier = fastest_by_size(splits)
    print(_rows(frontier))
    chosen = None
    if args.within is not None:
        chosen = least_gpus(splits, 60 * args.within)
        if chosen is None:
            print(f"\nno split needs at most {args.within:g} minutes")
        else:
            print(f"\nfewest GPUs for {args.within:g} minutes:")
            print(_rows([chosen]))
    if args.png is not None:
        _draw(splits, args.png)
    if args.json is not None:
        value = {
            "target": target,
            "splits": [asdict(split) for split in splits],
            "fastest_by_size": [asdict(split) for split in frontier],
            "fewest": None if chosen is None else asdict(chosen),
        }
        replace_text(args.json, json.dumps(value, indent=1) + "\n")
    return int(args.within is not None and chosen is None)


def _rows(splits: Sequence[Split]) -> str:
    header = ["GPUs", "train", "DAP", "evaluate", "batch", "accumulated", "s/step"]
    header += ["s/evaluation", "minutes", "GPU-hours"]
    rows = []
    for split in splits:
        layout = split.layout
        rows.append(
            [
                str(layout.num_gpus),
                str(layout.num_gpus - layout.evaluation_ranks),
                str(layout.dap),
                str(layout.evaluation_ranks),
                str(split.batch),
                str(layout.accumulation),
                f"{split.step_seconds:.3f}",
                f"{split.evaluation_seconds:.1f}",
                f"{split.seconds / 60:,.2f}",
                f"{split.gpu_hours:,.1f}",
            ]
        )
    return format_table(rows, header=header)


def _draw(splits: Sequence[Split], path: Path) -> None:
    """Draw, for each DAP size, the fastest split of each number of GPUs."""
    from benchmark.results.canvas import add_legend, color, new_axes, use_log_scale

    figure, axes = new_axes()
    for which in ("x", "y"):
        use_log_scale(axes, which)
    for index, dap in enumerate(sorted({split.layout.dap for split in splits})):
        line = fastest_by_size([split for split in splits if split.layout.dap == dap])
        axes.plot(
            [split.layout.num_gpus for split in line],
            [split.seconds / 60 for split in line],
            marker="o",
            color=color(index),
            label=f"DAP {dap}",
        )
    axes.set_xlabel("GPUs")
    axes.set_ylabel("minutes to the target, expected")
    add_legend(axes)
    save_picture(figure, path)
