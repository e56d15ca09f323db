"""Golden chains for the loader tests, as raw features and as converted shards."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from openfold_opt.loader.raw_features import RawFeatures, Templates
from openfold_opt.protein.sparse_deletions import SparseDeletions

GOLDEN_CHAINS = {
    "data": ("2hhb_A", "2q2k_A", "4zxb_D", "1igy_B"),
    "data_quirks": ("1aki_A", "3o5r_A"),
}
REPOSITORY = pathlib.Path(__file__).parents[2]


class GoldenTransforms:
    """Contents of transforms.npz of both golden data sets, by chain."""

    def __init__(self, shared: pathlib.Path) -> None:
        self.features: dict[str, dict[str, np.ndarray]] = {}
        for folder, chains in GOLDEN_CHAINS.items():
            with np.load(shared / "golden" / folder / "transforms.npz") as file:
                for chain in chains:
                    names = [name for name in file.files if name.startswith(f"{chain}/")]
                    self.features[chain] = {
                        name.removeprefix(f"{chain}/"): file[name] for name in names
                    }

    def raw(self, chain: str) -> RawFeatures:
        """Return the raw features of a chain; the golden file limits alignments to 300 rows."""
        golden = self.features[chain]
        return RawFeatures(
            aatype=golden["aatype"],
            all_atom_positions=golden["all_atom_positions"],
            all_atom_mask=golden["all_atom_mask"],
            resolution=float(golden["resolution"]),
            msa=golden["msa"].astype(np.uint8),
            deletions=SparseDeletions.from_dense(golden["deletion_matrix"]),
            profile=golden["hhblits_profile"],
            templates=Templates(
                aatype=golden["template_aatype"],
                all_atom_positions=golden["template_all_atom_positions"],
                all_atom_mask=golden["template_all_atom_mask"],
            ),
        )


@pytest.fixture(scope="session")
def golden_transforms(shared) -> GoldenTransforms:
    return GoldenTransforms(shared)


def convert(inputs: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    command = [
        sys.executable,
        "-m",
        "data_prep",
        "convert",
        "--missing-alignments",
        "query",
        "--out",
        str(out),
        "--pdb-mmcif",
        str(inputs / "pdb_mmcif"),
        "--open-protein-set",
        str(inputs / "open_protein_set"),
    ]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="session")
def quirks_dir(shared, tmp_path_factory) -> pathlib.Path:
    """Shards of the seven entries that cover rare cases. Their conversion takes about a second."""
    return convert(shared / "data" / "quirks", tmp_path_factory.mktemp("quirks"))


@pytest.fixture(scope="session")
def real_dir(shared, tmp_path_factory) -> pathlib.Path:
    """Shards of 46 real entries. One alignment has 38,955 rows."""
    return convert(shared / "data" / "real", tmp_path_factory.mktemp("real"))
