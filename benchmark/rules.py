"""`rules`: is a preset of the closed division, and if not, what makes it open?"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.presets import build_preset
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.config import RunConfig, config_fields
from openfold_opt.train.selection import complain_of_counts, select_training, select_validation

REFERENCE_PRESET = "mlperf_reference"
MISSING = "(no such field)"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field in which two configurations differ."""

    path: str
    mark: str
    """mathematical, free or implementation."""
    value: Any
    reference: Any


def add_parser(subparsers) -> None:
    """Declare the command line of `rules`."""
    parser = subparsers.add_parser(
        "rules",
        help="compare a preset with the closed division",
        description=f"Compare a preset with {REFERENCE_PRESET} field by field. A preset is of the closed division if "
        "it differs only in fields that the rules leave free, or that change nothing mathematically.",
    )
    parser.add_argument("--preset", required=True, metavar="P", help="name of a file in benchmark/presets")
    parser.add_argument("--data-dir", type=Path, metavar="D", help="also count the chains that the preset takes from this data set (untimed)")


def run(args: argparse.Namespace) -> int:
    """Print the division of a preset and every difference."""
    differences = compare(build_preset(args.preset), build_preset(REFERENCE_PRESET))
    print(f"preset {args.preset}: {division_of(differences)} division")
    headings = {
        "mathematical": "makes it open (the rules fix these)",
        "free": "differs, as the rules allow",
        "implementation": "differs, without mathematical meaning",
    }
    for mark, heading in headings.items():
        found = [difference for difference in differences if difference.mark == mark]
        if found:
            print(f"\n{heading}:")
        for difference in found:
            print(f"  {difference.path}: {difference.value!r} (reference: {difference.reference!r})")
    return 0 if args.data_dir is None else _judge_data(args.preset, args.data_dir)


def _judge_data(preset: str, data_dir: Path) -> int:
    """Say how many chains a preset finds in a data set; 1 if they are not as many as the rules demand."""
    config, reference = build_preset(preset).selection, build_preset(REFERENCE_PRESET).selection
    try:
        index = ShardIndex.load(data_dir)
        train, evaluation = len(select_training(index, config)), len(select_validation(index, config))
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    print(f"\ndata set {data_dir}: {train:,} chains to train on, {evaluation:,} to evaluate")
    complaint = complain_of_counts(train_samples=train, eval_samples=evaluation, config=config)
    if complaint is not None:
        print(f"not usable with this preset: {complaint}")
        return 1
    if complain_of_counts(train_samples=train, eval_samples=evaluation, config=reference) is not None:
        wanted = f"{reference.expected_train_samples:,} and {reference.expected_eval_samples:,}"
        print(f"the closed division has {wanted}")
    return 0


def compare(config: RunConfig, reference: RunConfig) -> list[Difference]:
    """Fields in which config differs from reference, in the order of their definition."""
    expected = {leaf.path: leaf for leaf in config_fields(reference)}
    found = {leaf.path: leaf for leaf in config_fields(config)}
    differences = []
    for path in dict.fromkeys([*expected, *found]):
        leaf = found.get(path) or expected[path]
        value = found[path].value if path in found else MISSING
        wanted = expected[path].value if path in expected else MISSING
        if value != wanted:
            differences.append(Difference(path=path, mark=leaf.mark, value=value, reference=wanted))
    return differences


def division_of(differences: list[Difference]) -> str:
    """"closed" unless a field that the rules fix differs."""
    return "open" if any(difference.mark == "mathematical" for difference in differences) else "closed"


def preset_division(config: RunConfig) -> str:
    """Division of a configuration: "closed" or "open"."""
    return division_of(compare(config, build_preset(REFERENCE_PRESET)))
