"""`rules`: is a preset of the closed division, and if not, what makes it open?"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmark.dry_run_log import COUNT_KEYS, Refusal, closed_refusals
from benchmark.errors import BenchmarkError
from benchmark.presets import build_preset, fit_preset
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.config import RunConfig, config_fields
from openfold_opt.train.selection import count_chains, validate_counts

REFERENCE_PRESET = "mlperf_reference"
MISSING = "(no such field)"
HEADINGS = {
    "mathematical": "makes it open (the rules fix these)",
    "free": "differs, as the rules allow",
    "implementation": "differs, without mathematical meaning",
}
"""mark -> what is said of fields of this mark that differ"""
CLOSED, OPEN = "closed", "open"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field in which two configurations differ."""

    path: str
    mark: str
    """mathematical, free or implementation."""
    value: Any
    reference: Any


@dataclass(frozen=True, kw_only=True)
class DataVerdict:
    """What a preset finds in a data set."""

    train_samples: int
    eval_samples: int
    complaint: str | None
    """Why a run would refuse it."""
    is_closed: bool
    """Whether the counts are those of the closed division."""


def add_parser(subparsers) -> None:
    """Declare the command line of `rules`."""
    parser = subparsers.add_parser(
        "rules",
        help="compare a preset with the closed division",
        description=f"Compare a preset with {REFERENCE_PRESET} field by field, and rehearse its log before mlperf-logging's checker. A "
        "preset is of the closed division if it differs only in fields that the rules leave free, or that change nothing "
        "mathematically. Exit code: 0; 1 with --require closed if it is not, or the checker would refuse its log, and if the preset cannot "
        "be run on --data-dir; 2 if the question cannot be answered.",
    )
    parser.add_argument(
        "--preset",
        required=True,
        metavar="P",
        help="name of a file in benchmark/presets, or path of a file that ends with .py",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="D",
        help="also count the chains that the preset takes from this data set (untimed)",
    )
    parser.add_argument(
        "--require",
        choices=(CLOSED,),
        help="exit with 1 unless preset, log and data set are of this division",
    )
    parser.add_argument("--list", action="store_true", help="also list every field with its mark")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there")


def run(args: argparse.Namespace) -> int:
    """Print the division of a preset, every difference, and what would be refused."""
    if args.json is not None and not args.json.parent.is_dir():
        raise BenchmarkError(
            f"--json {args.json}: the folder {args.json.parent} does not exist; make it first"
        )
    config, reference = build_preset(args.preset), build_preset(REFERENCE_PRESET)
    if args.data_dir is not None:
        config = fit_preset(args.preset, config, args.data_dir)
    data = None if args.data_dir is None else judge_data(config, reference, args.data_dir)
    differences = compare(config, reference)
    samples = expected_samples(config) if data is None else (data.train_samples, data.eval_samples)
    refusals = closed_refusals(config, samples=samples)
    lines = [
        f"preset {args.preset}: {division_of(differences)} division",
        *difference_lines(differences),
    ]
    lines += refusal_lines(
        refusals,
        unknown=[key for key, number in zip(COUNT_KEYS, samples) if number is None],
        is_counted=data is not None,
    )
    if data is not None:
        lines += data_lines(data, args.data_dir, reference)
    if args.list:
        lines += [
            "",
            "every field:",
            *(
                f"  {leaf.category:<14}  {leaf.path}: {leaf.value!r}"
                for leaf in config_fields(config)
            ),
        ]
    print("\n".join(lines))
    if args.json is not None:
        content = {
            "preset": args.preset,
            "division": division_of(differences),
            "differences": [asdict(difference) for difference in differences],
            "refused_keys": [asdict(refusal) for refusal in refusals],
            "data": None if data is None else asdict(data),
        }
        try:
            args.json.write_text(
                json.dumps(content, indent=1, default=str) + "\n", encoding="utf-8"
            )
        except OSError as error:
            raise BenchmarkError(
                f"--json {args.json} cannot be written: {error.strerror or error}; name another file"
            ) from error
    is_closed = (
        not refusals and division_of(differences) == CLOSED and (data is None or data.is_closed)
    )
    is_usable = data is None or data.complaint is None
    return 0 if is_usable and (is_closed or args.require is None) else 1


def difference_lines(differences: list[Difference]) -> list[str]:
    """The differences by mark, in the order of HEADINGS."""
    lines = []
    for mark, heading in HEADINGS.items():
        found = [difference for difference in differences if difference.mark == mark]
        if found:
            lines += ["", f"{heading}:"]
        lines += [
            f"  {difference.path}: {difference.value!r} (mlperf_reference: {difference.reference!r})"
            for difference in found
        ]
    beyond = Counter(
        difference.path.partition(".")[0]
        for difference in differences
        if is_beyond_open(difference)
    )
    if beyond:
        lines += [
            "",
            "not of the open division either, which allows other hyperparameters and another optimizer, but the MLCommons reference's model and evaluation data:",
            *(f"  {part}: {number} of the fields above" for part, number in beyond.items()),
        ]
    return lines


def is_beyond_open(difference: Difference) -> bool:
    """Whether even the open division forbids it.

    hpc_training_rules 3.0, divisions: the model is equivalent to the reference's; rates of dropout are hyperparameters. training_rules,
    data state at start of run: evaluation data are the benchmark's.
    """
    is_model = difference.path.startswith("model.") and not difference.path.endswith("dropout_rate")
    return is_model or difference.path.startswith(
        ("selection.validation_", "selection.expected_eval_")
    )


def refusal_lines(refusals: list[Refusal], *, unknown: list[str], is_counted: bool) -> list[str]:
    """What the checker of the closed division would say to the log."""
    lines = [
        "",
        "keys of the log that the checker of the closed division would refuse:"
        + ("" if refusals else " none"),
    ]
    lines += [
        f"  {refusal.key}: {refusal.value!r} (expected: {refusal.reason})"
        if refusal.key
        else f"  {refusal.reason}"
        for refusal in refusals
    ]
    if unknown:
        lines.append(f"  not judged without --data-dir: {', '.join(unknown)}")
    elif not is_counted:
        lines.append(
            f"  taken as the preset expects them, and counted with --data-dir: {', '.join(COUNT_KEYS)}"
        )
    return lines


def data_lines(data: DataVerdict, data_dir: Path, reference: RunConfig) -> list[str]:
    """What was found in a data set."""
    lines = [
        "",
        f"data set {data_dir}: {data.train_samples:,} chains to train on, {data.eval_samples:,} to evaluate",
    ]
    if data.complaint is not None:
        lines.append(f"not usable with this preset: {data.complaint}")
    elif not data.is_closed:
        train, evaluation = expected_samples(reference)
        lines.append(f"the closed division has {train:,} and {evaluation:,}")
    return lines


def judge_data(config: RunConfig, reference: RunConfig, data_dir: Path) -> DataVerdict:
    """Count the chains that a configuration takes from a data set; BenchmarkError if it cannot take any."""
    try:
        counts = count_chains(ShardIndex.load(data_dir), config.selection)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    return DataVerdict(
        **counts,
        complaint=validate_counts(**counts, config=config.selection),
        is_closed=validate_counts(**counts, config=reference.selection) is None,
    )


def expected_samples(config: RunConfig) -> tuple[int | None, int | None]:
    """Chains to train on and to evaluate that a configuration insists on; None: any number."""
    return config.selection.expected_train_samples, config.selection.expected_eval_samples


def compare(config: RunConfig, reference: RunConfig) -> list[Difference]:
    """Fields in which config differs from reference, in the order of their definition."""
    expected = {leaf.path: leaf for leaf in config_fields(reference)}
    found = {leaf.path: leaf for leaf in config_fields(config)}
    differences = []
    for path in dict.fromkeys([*expected, *found]):
        leaf = expected.get(path) or found[path]
        value = found[path].value if path in found else MISSING
        wanted = expected[path].value if path in expected else MISSING
        if value != wanted:
            differences.append(
                Difference(path=path, mark=leaf.category, value=value, reference=wanted)
            )
    return differences


def division_of(differences: list[Difference]) -> str:
    """ "closed" unless a field that the rules fix differs."""
    return OPEN if any(difference.mark == "mathematical" for difference in differences) else CLOSED


def division_of_run(config: RunConfig, settings: Sequence[str]) -> str:
    """Division of a run. One with fields changed by `--set` is open: no file of the commit has them."""
    return OPEN if settings else preset_division(config)


def preset_division(config: RunConfig) -> str:
    """Division of a configuration: "closed" or "open"."""
    return division_of(compare(config, build_preset(REFERENCE_PRESET)))
