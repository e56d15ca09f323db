"""A converted data set of a few synthetic chains."""

from __future__ import annotations

from pathlib import Path

from data_prep.__main__ import main


def write_synthetic_shards(raw: Path, shards: Path, *, num_chains: int = 8) -> None:
    """Write raw files of synthetic chains to one folder and their shards to another."""
    assert main(["synthesize", "--out", str(raw), "--chains", str(num_chains)]) == 0
    inputs = ["--pdb-mmcif", str(raw / "pdb_mmcif")]
    inputs += ["--open-protein-set", str(raw / "open_protein_set")]
    assert main(["convert", *inputs, "--out", str(shards)]) == 0
