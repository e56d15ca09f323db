"""`plan predict`: seconds and memory of predictions by length and number of GPUs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from benchmark.command_line import (
    BenchmarkError,
    check_json_option,
    check_output_option,
    whole_number,
)
from benchmark.perf.tools.timing_stats import table
from benchmark.plan.prediction_fit import TimeFit
from benchmark.plan.prediction_plan import ChainSettings, PlannedPrediction, plan_lengths
from benchmark.plan.prediction_records import RecordedPredictions, read_predictions
from benchmark.plan.prediction_validation import (
    check_tables,
    describe_checks,
    describe_memory,
    describe_record,
    memory_json,
)
from benchmark.plan.prediction_work import alphafold2_work
from benchmark.plan.systems import System, load_system
from benchmark.replace_file import replace_text
from openfold_opt.model.config import ModelConfig

_GIB = 2**30
_LENGTHS = (512, 1024, 2048)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("--system", default="h200_sxm", metavar="S", help="name or file (default: %(default)s)")
    add(
        "--lengths",
        type=whole_number(1, 100_000),
        nargs="+",
        metavar="N",
        help=f"residues (default: {' '.join(map(str, _LENGTHS))})",
    )
    gpus = whole_number(1, 100_000)
    add("--gpus", type=gpus, nargs="+", default=[1], metavar="N", help="GPUs of a chain")
    add("--dtype", choices=("bf16", "fp32"), default="bf16", help="default: %(default)s")
    defaults = ChainSettings()
    for name, bounds, value, what in (
        ("--msa-rows", (1, 100_000), defaults.msa_rows, "rows of the MSA, with templates"),
        ("--extra-rows", (1, 1_000_000), defaults.extra_rows, "rows of the extra MSA"),
        ("--templates", (0, 1_000), defaults.num_templates, "templates"),
        ("--passes", (1, 1_000), defaults.num_passes, "recycling iterations and the last pass"),
    ):
        text = f"{what} (default: {value})"
        add(name, type=whole_number(*bounds), default=value, metavar="N", help=text)
    add(
        "--records",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="records of `perf predict`: check the times of each, and calibrate with those of the "
        "system's GPU",
    )
    add("--validate", action="store_true", help="check the models on published predictions")
    add("--picture", type=Path, metavar="FILE", help="with --validate: draw it, an image")
    add("--json", type=Path, metavar="FILE", help="write all numbers to FILE")


def run(args: argparse.Namespace) -> int:
    """Print the plan, and the checks. Return 1 if a chain does not fit."""
    check_json_option(args.json)
    check_output_option("--picture", args.picture)
    if args.picture is not None and not args.validate:
        raise BenchmarkError("--picture draws the check on published times; give --validate, too")
    records = [read_predictions(path) for path in args.records]
    result: dict[str, object] = {}
    sections = [describe_record(record) for record in records]
    if args.validate:
        checks = check_tables()
        if args.picture is not None:
            # Matplotlib takes a second to import.
            from benchmark.plan.prediction_picture import draw_published

            draw_published(checks, args.picture)
        sections += [describe_checks(checks), describe_memory()]
        result["published"] = [check.as_json() for check in checks]
        result["published_memory"] = memory_json()
    plans: list[PlannedPrediction] = []
    if args.lengths is not None or not (args.validate or records):
        plans = _plans(args, records)
        sections.append(_describe(plans, args))
        result["plans"] = [asdict(plan) for plan in plans]
    result["records"] = [
        {"path": str(record.path), "seconds": record.seconds, "errors": record.errors()}
        for record in records
    ]
    if args.json is not None:
        replace_text(args.json, json.dumps(result, indent=1) + "\n")
    print("\n\n".join(sections))
    return 1 if any(plan.refusal for plan in plans) else 0


def _plans(args: argparse.Namespace, records: list[RecordedPredictions]) -> list[PlannedPrediction]:
    lengths = args.lengths or list(_LENGTHS)
    if min(args.gpus) > max(lengths):
        raise BenchmarkError(
            f"--gpus {min(args.gpus)}: a chain of {max(lengths)} residues cannot be shared between "
            f"more than {max(lengths)} GPUs"
        )
    system, config = load_system(args.system), ModelConfig()
    try:
        settings = ChainSettings(
            msa_rows=args.msa_rows,
            extra_rows=args.extra_rows,
            num_templates=args.templates,
            num_passes=args.passes,
            dtype=args.dtype,
        )
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    return plan_lengths(
        lengths,
        args.gpus,
        system=system,
        config=config,
        settings=settings,
        calibration=_calibration(records, system, config, settings),
    )


def _calibration(
    records: list[RecordedPredictions],
    system: System,
    config: ModelConfig,
    settings: ChainSettings,
) -> TimeFit | None:
    """Return the fit of the last record of the system's GPU; None if there is none."""
    of_gpu = [record for record in records if record.gpu == system.gpu]
    if not of_gpu:
        return None

    def work(num_residues: int):
        return alphafold2_work(
            num_residues,
            config=config,
            msa_rows=settings.msa_rows,
            extra_rows=settings.extra_rows,
            num_templates=settings.num_templates,
            num_passes=settings.num_passes,
        )

    return of_gpu[-1].for_model(config, settings.num_passes, work)


def _describe(plans: list[PlannedPrediction], args: argparse.Namespace) -> str:
    rows = [_row(plan) for plan in plans]
    header = ["residues", "GPUs", "s", "sent", "GPU-s", "GiB a GPU", "U", "PFLOP", "fits"]
    is_calibrated = any(plan.is_calibrated for plan in plans)
    source = "calibrated by a record" if is_calibrated else "estimates; nothing is measured"
    lines = [
        f"one model on {args.system}, {args.dtype}, {args.msa_rows} MSA rows, {args.extra_rows} "
        f"extra rows, {args.templates} templates, {args.passes} passes; seconds: {source}",
        "",
        table(rows, header=header),
        "",
        "sent: share of the time for collectives; U: the pair representation",
    ]
    left_out = [
        f"{length:,} residues on {number}"
        for length in args.lengths or _LENGTHS
        for number in args.gpus
        if number > length
    ]
    if left_out:
        lines.append(f"left out, as there are more GPUs than residues: {', '.join(left_out)}")
    lines += [f"does not fit: {plan.refusal}" for plan in plans if plan.refusal]
    if any(plan.crosses_nodes for plan in plans):
        lines.append(
            "warning: more GPUs than a node has; every collective of a chain crosses nodes"
        )
    return "\n".join(lines)


def _row(plan: PlannedPrediction) -> list[str]:
    sizes = [f"{plan.peak_bytes / _GIB:.1f}", f"{plan.peak_bytes / plan.pair_bytes:.2f}"]
    if plan.seconds is None:
        times, work = ["-", "-", "-"], "-"
    else:
        share = plan.communication_seconds / plan.seconds
        times = [f"{plan.seconds:.1f}", f"{share:.0%}", f"{plan.num_gpus * plan.seconds:.0f}"]
        work = f"{plan.num_gpus * plan.flops / 1e15:.2f}"
    missing = f"no, {plan.missing_bytes / _GIB:.1f} GiB missing"
    fits = "yes" if not plan.refusal else missing
    return [f"{plan.num_residues:,}", str(plan.num_gpus), *times, *sizes, work, fits]
