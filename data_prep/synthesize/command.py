"""The command `synthesize`: write a data set of synthetic protein families as raw files."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.errors import DataPrepError
from data_prep.progress import Progress
from data_prep.synthesize.build import build_atoms
from data_prep.synthesize.families import (
    EvolutionConfig,
    draw_fold,
    draw_member,
    draw_sequence,
    evolve_row,
)
from data_prep.synthesize.files import Chain, write_a3m, write_hhr, write_mmcif

MEMBERS = 2
"""Chains of a family. The older one is a template of the newer one."""
MEMBER_MUTATION_RATE = 0.25
VALIDATION_FRACTION = 0.08
"""Fraction of the families that are for validation."""
TRAINING_DATES = ("2010-06-01", "2015-06-01")
"""Release dates of the two members of a family for training."""
VALIDATION_DATES = ("2021-09-20", "2021-12-01")
"""Release dates of the two members of a family for validation.

The first is after the last training date and before the first evaluation date, so this member is
neither trained on nor evaluated. It is only a template.
"""
ALIGNMENT_DEPTHS = (8, 48)
"""Minimum and maximum number of rows of an alignment."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class _Family:
    chains: tuple[Chain, ...]
    alignments: tuple[tuple[str, ...], ...]
    """Rows of each chain's alignment, the chain itself first."""


def add_parser(subparsers) -> None:
    """Add the parser of `synthesize`."""
    parser = subparsers.add_parser(
        "synthesize",
        help="write synthetic protein families as mmCIF, a3m and hhr files",
        description="Write families of synthetic proteins, whose sequence determines their "
        "structure, in the layout of the PDB and OpenProteinSet, for `convert`. Families released "
        "in December 2021 are for validation, the others for training.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write pdb_mmcif/ and open_protein_set/ to; must be new or empty",
    )
    parser.add_argument(
        "--chains",
        type=int,
        default=400,
        metavar="N",
        help="chains to make, two for each family (default: 400)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=13,
        metavar="S",
        help="the same seed gives the same bytes (default: 13)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the data set and return the exit code."""
    if args.chains < 2 * MEMBERS:
        raise DataPrepError(
            f"--chains is {args.chains}; expected at least {2 * MEMBERS}: one family for training "
            "and one for validation"
        )
    if args.seed < 0:
        raise DataPrepError(f"--seed is {args.seed}, expected 0 or more")
    if args.out.exists() and not args.out.is_dir():
        raise DataPrepError(f"--out {args.out} is a file, expected a folder; name another one")
    if args.out.exists() and any(args.out.iterdir()):
        raise DataPrepError(f"{args.out} is not empty; name a new folder, or remove it first")
    num_families = args.chains // MEMBERS
    num_validation = max(1, round(VALIDATION_FRACTION * num_families))
    families = []
    with Progress(num_families * MEMBERS, what="synthesize", unit="chain") as progress:
        for number in range(num_families):
            family = _make_family(number, seed=args.seed, is_validation=number < num_validation)
            _write_family(family, args.out)
            families.append(family)
            progress.update(MEMBERS)
    _write_tables(families, args.out / "pdb_mmcif", args.out / "open_protein_set")
    print(
        f"{args.out}: {num_families * MEMBERS} chains of {num_families} families, "
        f"{num_validation} of them for validation"
    )
    return 0


def _make_family(number: int, *, seed: int, is_validation: bool) -> _Family:
    # Each family has its own random stream, so it does not depend on the number of families.
    random = np.random.default_rng([seed, number])
    fold = draw_fold(random)
    ancestor = draw_member(draw_sequence(fold, random), fold, random, rate=0.5)
    dates = VALIDATION_DATES if is_validation else TRAINING_DATES
    chains, alignments = [], []
    for member, date in enumerate(dates):
        sequence = draw_member(ancestor, fold, random, rate=MEMBER_MUTATION_RATE)
        positions, mask = build_atoms(sequence)
        chains.append(
            Chain(
                pdb_id=_pdb_id(MEMBERS * number + member),
                release_date=date,
                sequence=sequence,
                positions=positions,
                mask=mask,
            )
        )
        depth = int(random.integers(ALIGNMENT_DEPTHS[0], ALIGNMENT_DEPTHS[1] + 1))
        rows = [evolve_row(sequence, fold, random, EvolutionConfig()) for _ in range(depth - 1)]
        alignments.append((sequence, *rows))
    return _Family(chains=tuple(chains), alignments=tuple(alignments))


def _pdb_id(number: int) -> str:
    """Return one of the 46,656 ids 9000, 9001, ... 9zzz."""
    if number >= 36**3:
        raise DataPrepError(
            f"{number + 1} chains are too many; there are {36**3} ids for synthetic entries"
        )
    return "9" + "".join(_DIGITS[number // 36**power % 36] for power in (2, 1, 0))


def _write_family(family: _Family, out: Path) -> None:
    for chain, alignment in zip(family.chains, family.alignments, strict=True):
        write_mmcif(chain, out / "pdb_mmcif" / "raw")
        folder = out / "open_protein_set" / "pdb" / chain.chain_id
        rows = [(f"row{i}" if i else chain.chain_id, row) for i, row in enumerate(alignment)]
        write_a3m(rows, folder / "a3m" / "uniref90_hits.a3m")
        write_hhr(chain, list(family.chains), folder / "hhr" / "pdb70_hits.hhr")


def _write_tables(families: list[_Family], pdb_mmcif: Path, open_protein_set: Path) -> None:
    clusters = [
        " ".join(f"{chain.pdb_id.upper()}_1" for chain in family.chains) for family in families
    ]
    (pdb_mmcif / "clusters-by-entity-40.txt").write_text("\n".join(clusters) + "\n")
    (pdb_mmcif / "obsolete.dat").write_text(" LIST OF OBSOLETE COORDINATE ENTRIES AND SUCCESSORS\n")
    (open_protein_set / "duplicate_pdb_chains.txt").write_text("")
