"""`rules`: compare a preset with the closed division, and name the differences."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError, check_json_option
from benchmark.mlperf.dry_run_log import COUNT_KEYS, Refusal, closed_refusals
from benchmark.presets import build_preset, fit_preset, fits_to_data
from benchmark.replace_file import replace_text
from benchmark.run.settings import add_set_option, apply_settings
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.config import RunConfig, config_fields
from openfold_opt.train.dataset_split import count_chains, validate_counts

REFERENCE_PRESET = "mlperf_reference"
MISSING = "(no such field)"
"""Value of a field that only the other configuration has."""
HEADINGS = {
    "mathematical": "makes it open (the rules fix these)",
    "free": "differs, as the rules allow",
    "implementation": "differs, without mathematical meaning",
}
"""Category of a field -> heading of the fields of this category that differ."""
CLOSED, OPEN = "closed", "open"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field in which two configurations differ."""

    path: str
    category: str
    """Category of the field: mathematical, free or implementation."""
    value: object
    reference: object
    """Value in REFERENCE_PRESET."""

    def as_json(self) -> dict[str, object]:
        """Return the entry of the file that `--json` writes."""
        # The key "mark" is part of the file's format.
        return {
            "path": self.path,
            "mark": self.category,
            "value": self.value,
            "reference": self.reference,
        }


@dataclass(frozen=True, kw_only=True)
class SelectedData:
    """The chains that a preset selects from a data set."""

    train_samples: int
    eval_samples: int
    complaint: str | None
    """Why a run would refuse the data set; None if it would not."""
    is_closed: bool
    """Whether the counts are those of the closed division."""


def add_parser(subparsers) -> None:
    """Declare the command line of `rules`."""
    parser = subparsers.add_parser(
        "rules",
        help="compare a preset with the closed division",
        description=f"Compare a preset with {REFERENCE_PRESET} field by field, and use "
        "mlperf-logging to check the log that it would write. A preset belongs to the closed "
        "division if it differs only in fields that the rules leave free, or that change nothing "
        "mathematically. Exit code: 1 if the preset cannot run on --data-dir, or, with --require "
        "closed, if the preset is open or the checker would refuse its log; 2 for a wrong "
        "argument; else 0.",
    )
    parser.add_argument(
        "--preset",
        required=True,
        metavar="P",
        help="name of a file in benchmark/presets, or path of a file that ends with .py",
    )
    add_set_option(parser)
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="D",
        help="also count the chains that the preset selects from this data set",
    )
    parser.add_argument(
        "--require",
        choices=(CLOSED,),
        help="exit with 1 unless preset, log and data set are of this division",
    )
    parser.add_argument(
        "--list", action="store_true", help="also list every field with its category"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result to this file")


def run(args: argparse.Namespace) -> int:
    """Print the division of a preset, every difference, and the log keys that are refused."""
    check_json_option(args.json)
    config, reference = build_preset(args.preset), build_preset(REFERENCE_PRESET)
    if args.data_dir is not None:
        config = fit_preset(args.preset, config, args.data_dir)
    config = apply_settings(config, args.settings)
    data = None if args.data_dir is None else count_data(config, reference, args.data_dir)
    differences = compare(config, reference)
    division = OPEN if args.settings else division_of_differences(differences)
    samples = expected_samples(config) if data is None else (data.train_samples, data.eval_samples)
    refusals = closed_refusals(config, samples=samples)
    changed = f", set {' '.join(args.settings)}" if args.settings else ""
    lines = [f"preset {args.preset}{changed}: {division} division", *difference_lines(differences)]
    unknown = [key for key, number in zip(COUNT_KEYS, samples, strict=True) if number is None]
    lines += refusal_lines(refusals, unknown=unknown, is_counted=data is not None)
    if data is not None:
        lines += data_lines(data, args.data_dir, reference)
    if args.list:
        lines += field_lines(config, args)
    print("\n".join(lines))
    if args.json is not None:
        content = {
            "preset": args.preset,
            "division": division,
            "differences": [difference.as_json() for difference in differences],
            "refused_keys": [asdict(refusal) for refusal in refusals],
            "data": None if data is None else asdict(data),
        }
        _write_json(args.json, content)
    is_closed = not refusals and division == CLOSED and (data is None or data.is_closed)
    is_usable = data is None or data.complaint is None
    return 0 if is_usable and (is_closed or args.require is None) else 1


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    """Raises BenchmarkError if the file cannot be written."""
    try:
        replace_text(path, json.dumps(content, indent=1, default=str) + "\n")
    except OSError as error:
        raise BenchmarkError(
            f"--json {path} cannot be written: {error.strerror or error}; name another file"
        ) from error


def difference_lines(differences: list[Difference]) -> list[str]:
    """Return the lines of all differences by category, in the order of HEADINGS."""
    lines = []
    for category, heading in HEADINGS.items():
        members = [difference for difference in differences if difference.category == category]
        if members:
            lines += ["", f"{heading}:"]
        lines += [
            f"  {difference.path}: {difference.value!r} ({REFERENCE_PRESET}: "
            f"{difference.reference!r})"
            for difference in members
        ]
    beyond = Counter(
        difference.path.partition(".")[0]
        for difference in differences
        if is_beyond_open(difference)
    )
    if beyond:
        lines += [
            "",
            "not of the open division either, which allows other hyperparameters and another "
            "optimizer, but requires the MLCommons reference's model and evaluation data:",
            *(f"  {part}: {number} of the fields above" for part, number in beyond.items()),
        ]
    return lines


def is_beyond_open(difference: Difference) -> bool:
    """Return whether the open division does not allow a difference either.

    hpc_training_rules 3.0, divisions: the model must be equivalent to the reference's, but dropout
    rates are hyperparameters. training_rules, data state at start of run: the evaluation data must
    be those of the benchmark.
    """
    is_model = difference.path.startswith("model.") and not difference.path.endswith("dropout_rate")
    return is_model or difference.path.startswith(
        ("selection.validation_", "selection.expected_eval_")
    )


def refusal_lines(refusals: list[Refusal], *, unknown: list[str], is_counted: bool) -> list[str]:
    """Return the lines on the log keys that the checker of the closed division would refuse.

    unknown: keys without a value, which are not checked. is_counted: whether the chains of a data
    set were counted.
    """
    heading = "keys of the log that the checker of the closed division would refuse:"
    lines = ["", heading + ("" if refusals else " none")]
    lines += [
        f"  {refusal.key}: {refusal.value!r} (expected: {refusal.reason})"
        if refusal.key
        else f"  {refusal.reason}"
        for refusal in refusals
    ]
    if unknown:
        lines.append(f"  not checked without --data-dir: {', '.join(unknown)}")
    elif not is_counted:
        lines.append(
            f"  assumed from the preset (use --data-dir to count them): {', '.join(COUNT_KEYS)}"
        )
    return lines


def data_lines(data: SelectedData, data_dir: Path, reference: RunConfig) -> list[str]:
    """Return the lines on the chains that were counted in a data set."""
    lines = [
        "",
        f"data set {data_dir}: {data.train_samples:,} chains to train on, "
        f"{data.eval_samples:,} to evaluate",
    ]
    if data.complaint is not None:
        lines.append(f"not usable with this preset: {data.complaint}")
    elif not data.is_closed:
        train, evaluation = expected_samples(reference)
        lines.append(f"the closed division has {train:,} and {evaluation:,}")
    return lines


def field_lines(config: RunConfig, args: argparse.Namespace) -> list[str]:
    """Return the lines of every field with its category and value."""
    heading = "every field:"
    if args.data_dir is None and fits_to_data(args.preset):
        heading += (
            " (the preset takes the sizes of data.* from the data set; --data-dir shows them)"
        )
    leaves = config_fields(config)
    fields = [f"  {leaf.category:<14}  {leaf.path}: {leaf.value!r}" for leaf in leaves]
    return ["", heading, *fields]


def count_data(config: RunConfig, reference: RunConfig, data_dir: Path) -> SelectedData:
    """Count the chains that a configuration selects from a data set.

    Raises BenchmarkError if it cannot select any.
    """
    try:
        counts = count_chains(ShardIndex.load(data_dir), config.selection)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    return SelectedData(
        **counts,
        complaint=validate_counts(**counts, config=config.selection),
        is_closed=validate_counts(**counts, config=reference.selection) is None,
    )


def expected_samples(config: RunConfig) -> tuple[int | None, int | None]:
    """Return the required numbers of chains to train on and to evaluate; None means any."""
    return config.selection.expected_train_samples, config.selection.expected_eval_samples


def compare(config: RunConfig, reference: RunConfig) -> list[Difference]:
    """Return the fields in which two configurations differ, in the order of their definition."""
    expected = {leaf.path: leaf for leaf in config_fields(reference)}
    found = {leaf.path: leaf for leaf in config_fields(config)}
    differences = []
    for path in dict.fromkeys([*expected, *found]):
        leaf = expected.get(path) or found[path]
        value = found[path].value if path in found else MISSING
        expected_value = expected[path].value if path in expected else MISSING
        # A field of a phase that is None has the value of the run, which is also compared.
        is_inherited = path.startswith("phases.") and value is None
        if value != expected_value and not is_inherited:
            differences.append(
                Difference(path=path, category=leaf.category, value=value, reference=expected_value)
            )
    return differences


def division_of_differences(differences: list[Difference]) -> str:
    """Return "open" if a field that the rules fix differs, else "closed"."""
    categories = {difference.category for difference in differences}
    return OPEN if "mathematical" in categories else CLOSED


def division_of_run(config: RunConfig, settings: Sequence[str]) -> str:
    """Return the division of a run.

    A run with fields changed by `--set` is open, because the submitted source code does not contain
    their values.
    """
    return OPEN if settings else preset_division(config)


def preset_division(config: RunConfig) -> str:
    """Return the division of a configuration: "closed" or "open"."""
    return division_of_differences(compare(config, build_preset(REFERENCE_PRESET)))
