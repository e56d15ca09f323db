"""`phases`: list the phases of a preset, and check the number of ranks for each of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.preflight.job_checks import describe_ranks
from benchmark.presets import build_preset, preset_names
from benchmark.run.completed_phases import completed_phases
from benchmark.run.phase_record import PlannedPhase
from benchmark.run.state_file import read_state
from openfold_opt.train.phases import Phase, phases_of


def add_parser(subparsers) -> None:
    """Declare the command line of `phases`."""
    parser = subparsers.add_parser(
        "phases",
        help="phases of a preset, and whether ranks fit them",
        description="Print the steps, the global batch, the ranks of a sample and the condition of "
        "every phase of a preset. It needs no data and no GPU. The exit code is 2 if a number of "
        "ranks does not fit.",
    )
    parser.add_argument(
        "--preset",
        required=True,
        metavar="P",
        help=f"path of a file, or one of: {', '.join(preset_names())}",
    )
    parser.add_argument(
        "--ranks",
        action="append",
        default=[],
        metavar="NAME=N",
        help="check that a phase can use N ranks; once for each phase, in their order",
    )
    parser.add_argument(
        "--remaining",
        type=Path,
        metavar="RUN_DIR",
        help="print only the names of the phases that the run in RUN_DIR has not completed",
    )


def run(args: argparse.Namespace) -> int:
    """Print the phases. Return the exit code."""
    config = build_preset(args.preset)
    try:
        phases = phases_of(config)
    except ValueError as error:
        raise BenchmarkError(f"preset {args.preset}: {error}") from error
    if not config.phases:
        raise BenchmarkError(
            f"preset {args.preset} has no phases; start it by `python -m benchmark run`, or by "
            "slurm/run.sub"
        )
    ranks = parse_ranks(args.ranks, phases)
    lines = [line for phase in phases for line in phase_lines(phase, ranks.get(phase.name))]
    if args.remaining is not None:
        lines = [phase.name for phase in remaining_phases(phases, args.remaining)]
    print("\n".join(lines))
    return 0


def parse_ranks(texts: Sequence[str], phases: Sequence[Phase]) -> Mapping[str, int]:
    """Return the number of ranks of each phase, or nothing without texts.

    texts: NAME=N for each phase, in their order. Raises BenchmarkError if they are others.
    """
    if not texts:
        return {}
    ranks = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdecimal() or int(number) == 0:
            raise BenchmarkError(f"--ranks {text}: expected NAME=N with N of at least 1")
        if name in ranks:
            raise BenchmarkError(f"phase {name} is given twice; give it once")
        ranks[name] = int(number)
    expected = [phase.name for phase in phases]
    if list(ranks) != expected:
        raise BenchmarkError(
            f"found phases {', '.join(ranks)}; expected one for each phase of the preset, in their "
            f"order: {', '.join(expected)}"
        )
    return ranks


def phase_lines(phase: Phase, num_ranks: int | None) -> list[str]:
    """Return the lines of a phase. Raises BenchmarkError if it cannot use the ranks."""
    config, settings = phase.config, phase.settings
    condition = PlannedPhase.from_json(vars(settings)).condition
    lines = [
        f"{phase.title}: {settings.steps} steps at most, global batch "
        f"{config.global_batch_size}, dap {config.parallel.dap_size}, "
        f"{config.parallel.num_evaluation_ranks} evaluation ranks, crop {config.data.crop_size}"
        + ("" if condition is None else f", {condition}")
    ]
    if num_ranks is not None:
        try:
            lines.append(f"  {num_ranks} ranks: {describe_ranks(config, num_ranks)}")
        except ValueError as error:
            message = f"{phase.title} does not fit {num_ranks} ranks: {error}"
            raise BenchmarkError(message) from error
    return lines


def remaining_phases(phases: Sequence[Phase], run_dir: Path) -> list[Phase]:
    """Return the phases that a run has not completed; all if there is no run.

    Raises BenchmarkError if the run is finished without having reached its target.
    """
    state = read_state(run_dir) if run_dir.is_dir() else None
    if state is None:
        return list(phases)
    if state.status == "finished":
        if state.outcome != "success":
            raise BenchmarkError(
                f"the run in {run_dir} has used up its steps ({state.outcome}) and cannot be "
                "continued; start another one in another directory"
            )
        return []
    completed = completed_phases(run_dir, phases, verify=True)
    return [phase for phase in phases if phase.name not in completed]
