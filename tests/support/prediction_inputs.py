"""Raw files of synthetic chains as inputs of a prediction, and the features of evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.sample import make_evaluation_sample
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.predict.chain_input import FeatureSettings
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.templates import latest_template_date
from tests.support.synthetic_shards import write_synthetic_shards

SIZES = {"max_msa_clusters": 8, "max_extra_msa": 12}
"""Fewer rows than the alignments have, so that rows are drawn."""

LABELS = frozenset(
    "resolution all_atom_positions all_atom_mask atom14_gt_positions atom14_gt_exists "
    "atom14_alt_gt_positions atom14_alt_gt_exists rigidgroups_gt_frames rigidgroups_alt_gt_frames "
    "rigidgroups_gt_exists backbone_rigid_tensor backbone_rigid_mask pseudo_beta pseudo_beta_mask "
    "chi_angles_sin_cos chi_mask".split()
)
"""Features that come from the true structure of the chain."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticData:
    """Eight synthetic chains, two for each family. The second one has the first as a template."""

    raw: Path
    shards: Path
    fasta: Path

    @property
    def alignments(self) -> Path:
        return self.raw / "open_protein_set"

    @property
    def structures(self) -> Path:
        return self.raw / "pdb_mmcif"

    def reader(self) -> ShardReader:
        return ShardReader(self.shards)

    def chain_ids(self) -> list[str]:
        return [chain.chain_id for chain in self.reader().index.chains]

    def sequence(self, chain_id: str) -> str:
        return self.reader().sequence(chain_id)

    def msa_path(self, chain_id: str) -> Path:
        return self.alignments / "pdb" / chain_id / "a3m" / "uniref90_hits.a3m"

    def hits_path(self, chain_id: str) -> Path:
        return self.alignments / "pdb" / chain_id / "hhr" / "pdb70_hits.hhr"


def write_synthetic_data(folder: Path) -> SyntheticData:
    raw, shards, fasta = folder / "raw", folder / "shards", folder / "chains.fasta"
    write_synthetic_shards(raw, shards)
    data = SyntheticData(raw=raw, shards=shards, fasta=fasta)
    write_fasta(fasta, {chain_id: data.sequence(chain_id) for chain_id in data.chain_ids()})
    return data


def write_fasta(path: Path, sequences: dict[str, str]) -> Path:
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in sequences.items()))
    return path


def evaluation_features(
    reader: ShardReader, chain_id: str, *, max_templates: int = 4, **changes: float
) -> dict[str, Tensor]:
    sizes = {**SIZES, "max_templates": max_templates, "max_recycling_iterations": 1}
    config = DataConfig(**sizes, **changes)
    return decode_batch(stack_samples([make_evaluation_sample(reader, chain_id, config=config)]))


def settings(**changes) -> FeatureSettings:
    fields = {
        "num_recycling_iterations": 1,
        "seed": 0,
        "use_templates": True,
        "max_template_date": "2030-01-01",
        **SIZES,
    }
    return FeatureSettings(**{**fields, **changes})


def evaluation_settings(reader: ShardReader, chain_id: str, **changes) -> FeatureSettings:
    """Return settings with the date of evaluation, which depends on the chain."""
    date = latest_template_date(reader.entry(chain_id).release_date)
    return settings(max_template_date=date, **changes)
