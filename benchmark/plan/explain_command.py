"""`plan explain`: the parts of a measured step and run, as a table and stacked bars."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmark.command_line import check_json_option, check_output_option
from benchmark.perf.tools.timing_stats import table
from benchmark.plan.bars import draw_bars
from benchmark.plan.explain import explain
from benchmark.replace_file import replace_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("path", type=Path, metavar="RUN_DIR|RECORD", help="directory of a run, or `perf step` JSON")
    add("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    add("--png", type=Path, metavar="FILE", help="draw the parts of a step as stacked bars")


def run(args: argparse.Namespace) -> int:
    """Print the parts."""
    check_json_option(args.json)
    check_output_option("--png", args.png)
    found = explain(args.path)
    total = sum(found.step.seconds.values())
    rows = [
        [name, f"{1e3 * seconds:,.1f}", f"{seconds / total:.1%}"]
        for name, seconds in found.step.seconds.items()
    ]
    rows += [["step", f"{1e3 * total:,.1f}", ""]]
    rows += [["optimal", f"{1e3 * sum(found.optimal.seconds.values()):,.1f}", ""]]
    print(f"{found.source}: mean of {found.num_steps} steps")
    print(table(rows, header=["part of a step", "ms", ""]))
    if found.run:
        print()
        rows = [[name, f"{seconds:,.1f}"] for name, seconds in found.run.items()]
        print(table(rows, header=["part of the run", "s"]))
    for note in found.notes:
        print(f"- {note}")
    if args.png is not None:
        draw_bars([found.step, found.optimal], args.png)
    if args.json is not None:
        value = {
            "source": found.source,
            "num_steps": found.num_steps,
            "bars": [
                {"label": bar.label, "seconds": bar.seconds} for bar in (found.step, found.optimal)
            ],
            "run": found.run,
            "notes": found.notes,
        }
        replace_text(args.json, json.dumps(value, indent=1) + "\n")
    return 0
