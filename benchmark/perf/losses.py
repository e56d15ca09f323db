"""`perf losses`: does the fast path train like the plain one? Losses of both from the same weights on the same samples, beside runs that
differ by a rounding and runs of other seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmark.errors import BenchmarkError
from benchmark.perf.can_run import device_for
from benchmark.perf.loss_windows import (
    FAST,
    FIRST_STEPS,
    NUDGED,
    PLAIN,
    SEED,
    compare,
    first_step_at,
    largest_of_first_steps,
    verdict,
)
from benchmark.perf.losses_probe import configuration
from benchmark.perf.probe import run_probe
from benchmark.perf.step import what_runs
from benchmark.perf.timing_stats import table
from benchmark.presets import build_preset, preset_names
from data_prep.progress import Progress
from openfold_opt.kernels.select import IMPLEMENTATIONS
from openfold_opt.parallel.context import count_training_ranks
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import ShardDataSource
from openfold_opt.train.precision import PRECISIONS

PROBE = "benchmark.perf.losses_probe"
NUDGES = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-9}
"""Precision -> what rounding to it changes a number by at most, relative to it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Trains a preset from the same weights on the same samples, once with plain kernels in float32 and once the fast way, each in a process "
        "of its own, and compares losses and gradient norms in windows of steps. As two runs drift apart after any rounding, the yardstick is a "
        "plain run whose weights were changed at the start by what rounding to the fast side's precision changes them. Exit code 0 whether losses "
        "follow or not; a loss that is not finite is an error."
    )
    parser.add_argument(
        "--preset", default="demo", choices=preset_names(), help="what to train (default: demo)"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        required=True,
        metavar="D",
        help="made by `python -m data_prep convert`",
    )
    parser.add_argument(
        "--steps", type=int, default=200, metavar="N", help="of each run (default: 200)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        metavar="S",
        help="of weights, samples and dropout (default: 1)",
    )
    parser.add_argument(
        "--nudged",
        type=int,
        default=2,
        metavar="N",
        help="plain runs from nudged weights, the yardstick (default: 2)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="plain runs of the next seeds, to compare with (default: 1)",
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        choices=IMPLEMENTATIONS,
        help="of the fast side (default: auto, those for the device)",
    )
    parser.add_argument(
        "--precision", default="bf16", choices=PRECISIONS, help="of the fast side (default: bf16)"
    )
    parser.add_argument(
        "--graphs",
        default="auto",
        choices=("auto", "on", "off"),
        help="CUDA graphs of the fast side (default: auto, on a GPU)",
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Loss and gradient norm of every step, and lDDT-Ca of every evaluation, by side."""
    if min(args.steps, args.perturbed) < 1 or min(args.seeds, args.seed) < 0:
        raise BenchmarkError(
            "--steps and --nudged must be at least 1, --seeds and --seed at least 0"
        )
    if args.graphs == "on" and not torch.cuda.is_available():
        raise BenchmarkError("--graphs on needs a GPU, and there is none; leave it out")
    config = build_preset(args.preset)
    try:
        checksum = ShardDataSource(args.data_dir).checksum()
        count_training_ranks(config.parallel, 1)
        graphs = args.graphs == "on" or (
            args.graphs == "auto" and resolve_device(config.device, local_rank=0).type == "cuda"
        )
        sides = _sides(args, config, graphs=graphs)
        device_for(config, kernels=args.kernels, precision=args.precision)
    except (ValueError, OSError) as error:
        raise BenchmarkError(str(error)) from error
    names = ("preset", "steps", "seed", "kernels", "precision")
    metrics: dict[str, Any] = {name: getattr(args, name) for name in names}
    metrics |= {
        "graphs": graphs,
        "ran": what_runs(args.kernels, config.device),
        "padded": sides[FAST]["pads"] and not config.data.pad_to_crop,
        "nudge": NUDGES[args.precision],
        "target_lddt_ca": config.evaluation.target_lddt_ca,
        "data_checksum": checksum,
        "sides": {},
    }
    with Progress(len(sides) * args.steps, what="losses", unit="step") as progress:
        for name, settings in sides.items():
            progress.describe(name)
            metrics["sides"][name] = run_side(name, settings, progress)
            args.record.save(metrics)
    return metrics


def _sides(
    args: argparse.Namespace, config: RunConfig, *, graphs: bool
) -> dict[str, dict[str, Any]]:
    """Settings of each run, the fast one first: what cannot be done is found out soon. ValueError where the preset cannot be run so."""
    if config.init_checkpoint_sha256 is not None:
        raise ValueError(
            f"preset {args.preset} starts from the published checkpoint, these runs from random weights; choose demo or real_smoke"
        )
    plain = {name: getattr(args, name) for name in ("preset", "steps", "seed")} | {
        "data_dir": str(args.data_dir)
    }
    # a graph wants samples of one shape, and all sides the same samples
    plain |= {
        "kernels": "reference",
        "precision": "fp32",
        "graphs": False,
        "pads": graphs,
        "nudge": NUDGES[args.precision],
        "nudge_seed": None,
    }
    fast = plain | {"kernels": args.kernels, "precision": args.precision, "graphs": graphs}
    configuration(config, fast)
    sides = {FAST: fast, PLAIN: plain}
    sides |= {
        f"{NUDGED} {number}": plain | {"nudge_seed": number}
        for number in range(1, args.perturbed + 1)
    }
    return sides | {
        f"{SEED} {seed}": plain | {"seed": seed}
        for seed in range(args.seed + 1, args.seed + args.seeds + 1)
    }


def run_side(name: str, settings: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """A run in a process of its own, whose files go with it; BenchmarkError, its messages on standard error, if it fails."""
    found: dict[str, Any] = {"losses": [], "gradient_norms": [], "evaluations": []}
    with tempfile.TemporaryDirectory(prefix="perf-losses-") as folder:
        for line in run_probe(PROBE, settings | {"output_dir": folder}, name=f"the run {name!r}"):
            _take(line, found, progress)
    if len(found["losses"]) != settings["steps"]:
        raise BenchmarkError(
            f"the run {name!r} reported {len(found['losses'])} steps, expected {settings['steps']}"
        )
    return found


def _take(line: dict[str, Any], found: dict[str, Any], progress: Progress) -> None:
    if "loss" in line:
        found["losses"].append(line["loss"])
        found["gradient_norms"].append(line["gradient_norm"])
        progress.update()
    elif "lddt_ca" in line:
        found["evaluations"].append([line["step"], line["lddt_ca"]])
    else:
        found |= line


def report(metrics: dict[str, Any]) -> str:
    """Losses, gradient norms and evaluations, and whether losses follow."""
    sides = metrics["sides"]
    parts = [
        f"{metrics['preset']}, seed {metrics['seed']}, on {sides[FAST]['device']}: fast is {metrics['kernels']} kernels ({metrics['ran']}) in {metrics['precision']} "
        f"{_graphs(metrics)}, plain is reference kernels in fp32, nudged is plain from weights changed by up to {metrics['nudge']:.1e}; "
        "differences are relative, means over the steps of a window, and the largest of several runs"
        + ("; samples are padded to the crop's size on all sides" if metrics["padded"] else ""),
        _windows(sides, "losses", name="loss"),
        _windows(sides, "gradient_norms", name="gradient norm"),
        _evaluations(metrics),
        verdict(sides),
    ]
    return "\n\n".join(parts)


def _graphs(metrics: dict[str, Any]) -> str:
    if not metrics["graphs"]:
        return "without graphs"
    return f"with CUDA graphs ({metrics['sides'][FAST]['num_eager_steps']} steps fitted none)"


def _windows(sides: dict[str, Any], figure: str, *, name: str) -> str:
    rows = [
        [
            f"{window.first}-{window.last}",
            f"{window.plain:.4f}",
            f"{window.fast:.4f}",
            f"{window.shift:+.1e}",
            f"{window.fast_differs:.1e}",
            f"{window.perturbed_differ:.1e}",
            f"{window.times_perturbed:.2f}",
            "-" if window.seeds_differ is None else f"{window.seeds_differ:.1e}",
        ]
        for window in compare(sides, figure)
    ]
    header = [
        f"{name} of steps",
        "plain",
        "fast",
        "shift of mean",
        "fast differs",
        "nudged",
        "fast/nudged",
        "other seeds",
    ]
    single = ", ".join(
        f"{side} {value:.1e}" for side, value in largest_of_first_steps(sides, figure).items()
    )
    return f"{table(rows, header=header)}\nlargest difference of one of the first {FIRST_STEPS} steps: {single}"


def _evaluations(metrics: dict[str, Any]) -> str:
    target, rows = metrics["target_lddt_ca"], []
    for name, side in metrics["sides"].items():
        reached = first_step_at(side, target)
        last_step, last = side["evaluations"][-1]
        rows.append(
            [
                name,
                f"{last:.4f}",
                str(last_step),
                "-" if reached is None else str(reached),
                f"{side['seconds_per_step']:.3f}",
            ]
        )
    return table(rows, header=["run", "lDDT-Ca", "after step", f"{target} after step", "s/step"])
