"""Checked values of the options of the command."""

from __future__ import annotations

import argparse
import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from openfold_opt.predict.run_settings import RunSetting, Value

SEED_RANGE = 2**31
_TEMPLATE = re.compile(r"[A-Za-z0-9]{4,}(_[A-Za-z0-9]+)?")
DEFAULTS: Mapping[str, Value] = {
    "max_template_date": None,
    "exclude_templates": "",
    "single_sequence": False,
    "template_structures": False,
    "device": "auto",
    "dtype": "auto",
    "recycling_tolerance": None,
    "seed": 0,
    "rank": "plddt",
    "save_pae": True,
    "pae_json": "auto",
    "save_distogram": False,
    "save_embeddings": False,
    "pictures": True,
}
"""Values of the options that are printed and stored with their origin. The default of
max_template_date is today; "auto" of pae_json decides by the length of the chain."""


class OptionError(ValueError):
    """An option is wrong, or options contradict each other."""


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Chains, alignments and templates."""

    paths: tuple[Path, ...]
    alignments: tuple[Path, ...]
    template_structures: Path | None
    data_dir: Path | None
    chains: tuple[str, ...]
    """Chain ids in data_dir; empty: all chains."""


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """Weights and what their files may not say."""

    paths: tuple[Path, ...]
    checkpoint: str | None = None
    model_config: Path | None = None
    max_msa_clusters: int | None = None
    max_extra_msa: int | None = None
    num_recycling_iterations: int | None = None
    """None: that of the run, else 3."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The checked options of a command line."""

    inputs: InputOptions
    weights: WeightOptions
    settings: Mapping[str, RunSetting]
    """Value and origin of every option of DEFAULTS, and whether templates are used."""
    out: Path | None
    overwrite: bool
    report: bool
    """Whether to write report.html."""
    truths: tuple[Path, ...]
    """True structures for the scores of --truth."""
    dap: int | None
    """None: all ranks of a replica."""
    replicas: int | None
    num_workers: int
    plan_only: bool
    lengths: tuple[int, ...]
    """Of --plan-only."""

    def value(self, name: str) -> Value:
        """Return the value of a setting."""
        return self.settings[name].value

    def with_setting(self, name: str, setting: RunSetting) -> PredictOptions:
        """Return the options with another value of a setting."""
        return replace(self, settings={**self.settings, name: setting})


def read_options(args: argparse.Namespace) -> PredictOptions:
    """Check the parsed command line.

    Raises:
        OptionError: a value is out of range, or options are missing or contradict each other.
    """
    options = PredictOptions(
        inputs=InputOptions(
            paths=tuple(args.input),
            alignments=tuple(args.alignments),
            template_structures=args.template_structures,
            data_dir=args.data_dir,
            chains=tuple(args.chains),
        ),
        weights=WeightOptions(
            paths=tuple(args.weights),
            checkpoint=args.checkpoint,
            model_config=args.model_config,
            max_msa_clusters=args.max_msa_clusters,
            max_extra_msa=args.max_extra_msa,
            num_recycling_iterations=args.recycling,
        ),
        settings=_settings(args),
        out=args.out,
        overwrite=args.overwrite,
        report=args.report,
        truths=tuple(args.truth),
        dap=args.dap,
        replicas=args.replicas,
        num_workers=args.workers,
        plan_only=args.plan_only,
        lengths=tuple(args.length),
    )
    _check_ranges(options)
    if not options.plan_only:
        _check_complete(options)
    elif not options.lengths and not options.inputs.paths and options.inputs.data_dir is None:
        raise OptionError("--plan-only has no chain; add --length N, INPUT or --data-dir SHARDS")
    return options


def _settings(args: argparse.Namespace) -> dict[str, RunSetting]:
    settings = {}
    for name, default in DEFAULTS.items():
        value = getattr(args, name)
        if name == "exclude_templates" and value is not None:
            value = ",".join(sorted({_lower_entry(template) for template in value}))
        if name == "template_structures" and value is not None:
            # The directory may move, but its use is part of the identity of a run.
            value = True
        if name == "max_template_date":
            default = datetime.date.today().isoformat()
        is_given = value is not None
        settings[name] = RunSetting(
            value=value if is_given else default, origin="option" if is_given else "default"
        )
    has_structures = args.template_structures is not None
    settings["use_templates"] = RunSetting(
        value=has_structures or args.data_dir is not None,
        origin="option" if has_structures else "default",
    )
    return settings


def _is_iso_date(text: str) -> bool:
    """Return whether a text is a date as YYYY-MM-DD; dates are compared as texts."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _lower_entry(template: str) -> str:
    """Return 1abc or 1abc_A with the PDB id in lower case."""
    pdb_id, separator, chain = template.partition("_")
    return pdb_id.lower() + separator + chain


def _check_ranges(options: PredictOptions) -> None:
    date = str(options.value("max_template_date"))
    if not _is_iso_date(date):
        raise OptionError(f"--max-template-date {date} is not a date; expected YYYY-MM-DD")
    for template in filter(None, str(options.value("exclude_templates") or "").split(",")):
        if not _TEMPLATE.fullmatch(template):
            raise OptionError(
                f"--exclude-templates {template} is no PDB entry; expected 1abc or 1abc_A"
            )
    if not 0 <= int(options.value("seed") or 0) < SEED_RANGE:
        raise OptionError(
            f"--seed {options.value('seed')} is out of range; expected 0 to {SEED_RANGE - 1}"
        )
    if options.value("pae_json") is True and not options.value("save_pae"):
        raise OptionError(
            "--pae-json writes the PAE, and --no-save-pae leaves it out; remove one of them"
        )
    tolerance = options.value("recycling_tolerance")
    minima = {
        "--recycling": (options.weights.num_recycling_iterations, 0),
        "--dap": (options.dap, 1),
        "--replicas": (options.replicas, 1),
        "--workers": (options.num_workers, 0),
        "--max-msa-clusters": (options.weights.max_msa_clusters, 1),
        "--max-extra-msa": (options.weights.max_extra_msa, 1),
        "--recycling-tolerance": (tolerance, 0),
        "--length": (min(options.lengths, default=None), 1),
    }
    for name, (value, minimum) in minima.items():
        if value is not None and not minimum <= value < math.inf:
            raise OptionError(f"{name} {value} is out of range; expected at least {minimum}")


def _check_complete(options: PredictOptions) -> None:
    inputs = options.inputs
    if options.lengths:
        raise OptionError("--length is an option of --plan-only; add --plan-only, or remove it")
    if bool(inputs.paths) == (inputs.data_dir is not None):
        found = f"{'both' if inputs.paths else 'neither'} INPUT {'and' if inputs.paths else 'nor'}"
        hint = "" if inputs.paths else " (an INPUT after --weights or --alignments is read as one)"
        raise OptionError(
            f"found {found} --data-dir; give INPUT before the options{hint}, or --data-dir SHARDS"
        )
    if inputs.chains and inputs.data_dir is None:
        raise OptionError("--chains are chains of --data-dir; add --data-dir SHARDS")
    if not options.weights.paths:
        raise OptionError("--weights is missing; name a weights file or a run directory")
    if options.out is None:
        raise OptionError("--out is missing; name the output directory")
