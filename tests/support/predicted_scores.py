"""Scores of predictions from raw files, to compare with the evaluation of a run.

`python -m tests.support.predicted_scores RUN_DIR RAW SHARDS OUT` compares all chains that the run
evaluated. RAW has the folders pdb_mmcif and open_protein_set.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import gemmi
import numpy as np
import torch

from benchmark.run.summary import read_evaluations
from openfold_opt.predict.__main__ import main as predict
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.records import StructureRecord
from openfold_opt.protein.residue_constants import atom_order, restypes
from openfold_opt.protein.templates import latest_template_date
from openfold_opt.train.evaluation.evaluator import lddt_ca
from tests.support.prediction_inputs import write_fasta

TOLERANCE = 1e-3
"""Allowed difference of lDDT-Ca. Coordinates are written with three decimals, and one pair of 36
residues that crosses a threshold changes the score by up to 8e-4."""


def evaluated_scores(run_dir: Path) -> dict[str, float]:
    """Return the lDDT-Ca by chain of the last evaluation of a run."""
    return {chain.chain_id: chain.lddt_ca for chain in read_evaluations(run_dir)[-1].chains}


def predict_chains(
    chain_ids: Iterable[str],
    reader: ShardReader,
    raw: Path,
    *,
    weights: Path,
    out: Path,
    options: Sequence[str] = (),
) -> dict[str, Path]:
    """Predict chains from FASTA, alignments and template hits, and return their mmCIF files.

    In evaluation, the latest date of templates depends on the release date of the chain. The
    command has one date, so that it is called once for each date.
    """
    by_date = collections.defaultdict(list)
    for chain_id in chain_ids:
        by_date[latest_template_date(reader.entry(chain_id).release_date)].append(chain_id)
    out.mkdir(parents=True)
    files = {}
    for date, names in by_date.items():
        fasta = write_fasta(out / f"{date}.fasta", {name: reader.sequence(name) for name in names})
        arguments = [str(fasta), "--weights", str(weights), "--out", str(out / date)]
        arguments += ["--alignments", str(raw / "open_protein_set")]
        arguments += ["--template-structures", str(raw / "pdb_mmcif")]
        arguments += ["--max-template-date", date, "--seed", "0", "--device", "cpu"]
        assert predict([*arguments, "--workers", "0", *options]) == 0
        files |= {name: out / date / f"{name}.cif" for name in names}
    return files


def score(path: Path, truth: StructureRecord) -> float:
    """Return the lDDT-Ca of a structure file; residues are matched by their number.

    The file has no atoms of unknown residues. In evaluation, they are at the origin.
    """
    (chain,) = gemmi.read_structure(str(path))[0]
    positions = np.zeros(truth.all_atom_positions.shape, np.float32)
    for residue in chain:
        positions[residue.label_seq - 1, atom_order["CA"]] = residue.sole_atom("CA").pos.tolist()
    assert len(chain) == sum(letter in restypes for letter in truth.sequence)
    arrays = (positions, truth.all_atom_positions, truth.all_atom_mask)
    return float(lddt_ca(*(torch.from_numpy(array)[None] for array in arrays))[0])


def predicted_scores(files: Mapping[str, Path], reader: ShardReader) -> dict[str, float]:
    """Return the lDDT-Ca by chain of structure files."""
    return {name: score(path, reader.structure(name)) for name, path in files.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare predictions with an evaluation.")
    for name in ("run_dir", "raw", "shards", "out"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    reader = ShardReader(args.shards)
    expected = evaluated_scores(args.run_dir)
    files = predict_chains(expected, reader, args.raw, weights=args.run_dir, out=args.out)
    found = predicted_scores(files, reader)
    differences = {name: found[name] - value for name, value in expected.items()}
    for name, value in expected.items():
        print(f"{name}  evaluation {value:.6f}  file {found[name]:.6f}  {differences[name]:+.1e}")
    largest = max(map(abs, differences.values()))
    print(f"{len(expected)} chains, largest difference {largest:.1e}, allowed {TOLERANCE:.0e}")
    return 0 if largest <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
