"""`plan validate`: measured and predicted results side by side, each predicted from the others."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from benchmark.command_line import check_json_option, check_output_option
from benchmark.perf.tools.timing_stats import table
from benchmark.plan.published import published_results, read_published
from benchmark.plan.scaling_curve import (
    EQUAL_SHARE,
    PUBLISHED,
    CurvePoint,
    draw_curves,
    highest_point,
)
from benchmark.plan.search_check import SearchCheck
from benchmark.plan.step_counts import STORED, read_table
from benchmark.plan.validation import Validation, validate
from benchmark.replace_file import replace_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add(
        "--logs",
        type=Path,
        metavar="DIR",
        help="read the published logs from this folder (default: what was stored of them)",
    )
    add("--counts", type=Path, default=STORED, metavar="FILE", help="counts of `plan counts`")
    add("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    add("--png", type=Path, metavar="FILE", help="draw the speedup over GPUs")


def run(args: argparse.Namespace) -> int:
    """Print the comparison."""
    check_json_option(args.json)
    check_output_option("--png", args.png)
    results = published_results() if args.logs is None else tuple(read_published(args.logs))
    validation = validate(results, read_table(args.counts))
    print(describe(validation))
    if args.png is not None:
        draw_curves(validation.curves, args.png)
    if args.json is not None:
        replace_text(args.json, json.dumps(asdict(validation), indent=1) + "\n")
    return 0


def describe(validation: Validation) -> str:
    """Format the tables."""
    within = sum(row.is_within for row in validation.runs)
    evaluation = [abs(row.evaluation_error) for row in validation.runs]
    return "\n".join(
        [
            "Each system is predicted without its own logs.",
            "",
            _steps(validation),
            "",
            f"mean absolute error {validation.mean_error:.1%}, worst {validation.worst_error:.1%}; "
            f"fitted factors: {validation.num_factors}, one per code base, none per GPU; the wait "
            "for data is that of the code base's other logs",
            f"baseline, a constant times matrix work / peak: mean {validation.baseline_mean:.1%}, "
            f"worst {validation.baseline_worst:.1%}",
            "",
            _runs(validation),
            "",
            f"{within} of {len(validation.runs)} within the spread of the runs; an evaluation: "
            f"mean absolute error {fmean(evaluation):.0%}, worst {max(evaluation):.0%}",
            "",
            _others(validation),
            "",
            _curves(validation.curves),
            "",
            *_search(validation.search),
            *(f"- {note}" for note in validation.notes),
        ]
    )


def _steps(validation: Validation) -> str:
    rows = [
        [
            row.title,
            f"{row.measured:.3f}",
            f"{row.predicted:.3f}",
            f"{row.error:+.1%}",
            f"{row.baseline:.3f}",
            f"{row.baseline_error:+.1%}",
            f"{row.factor:.2f}",
            row.fitted_on,
        ]
        for row in validation.steps
    ]
    header = ["step, s", "measured", "predicted", "error", "baseline", "error", "factor", "from"]
    return table(rows, header=header)


def _runs(validation: Validation) -> str:
    rows = [
        [
            row.title,
            f"{row.least:.1f} to {row.most:.1f}",
            f"{row.mean:.1f}",
            f"{row.predicted:.1f}",
            f"{row.error:+.1%}",
            "yes" if row.is_within else "no",
            f"{row.evaluation_measured:.0f} | {row.evaluation_predicted:.0f}",
            f"{row.evaluation_error:+.0%}",
        ]
        for row in validation.runs
    ]
    header = ["minutes to 0.8", "measured", "mean", "predicted", "error", "within"]
    return table(rows, header=[*header, "evaluation, s: measured | predicted", "error"])


def _others(validation: Validation) -> str:
    rows = [
        [row.title, f"{row.measured:.3g}", f"{row.predicted:.3g}", f"{row.error:+.1%}", row.source]
        for row in validation.others
    ]
    return table(rows, header=["other results", "measured", "predicted", "error", "source"])


def _curves(curves: Mapping[str, Sequence[CurvePoint]]) -> str:
    """Format the speedups, and where each curve is highest."""
    points = {code: {each.num_gpus: each for each in curve} for code, curve in curves.items()}
    rows = [
        [
            f"{num_gpus:,}",
            *(
                f"{found.speedup:.1f} (DAP {found.dap}, batch {found.batch})"
                if (found := each.get(num_gpus))
                else ""
                for each in points.values()
            ),
        ]
        for num_gpus in sorted({size for each in points.values() for size in each})
    ]
    highest = [
        f"highest of {code}: published about {PUBLISHED[code][1]:g} on {PUBLISHED[code][0]:,}, "
        f"predicted {best.speedup:.1f} on {best.num_gpus:,} (more are less than {EQUAL_SHARE:.0%} "
        "faster)"
        for code, curve in curves.items()
        for best in [highest_point(curve)]
    ]
    header = ["H100, against the reference on 8", *points]
    return "\n".join([table(rows, header=header), *highest])


def _search(check: SearchCheck | None) -> list[str]:
    if check is None:
        return []
    best = check.best.layout
    return [
        "NVIDIA's split of 2,080 H100, DAP 8 with 32 to evaluate, with factors of 128 H100 and "
        f"Perlmutter alone: rank {check.rank} of {check.num_splits}, {check.distance:.1%} slower "
        f"than the best, DAP {best.dap} on {best.num_gpus} with {best.evaluation_ranks} to "
        f"evaluate and batch {check.best.batch}"
    ]
