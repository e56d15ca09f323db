"""Reading a chain's raw features from the shards."""

import numpy as np

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.random_streams import Purpose, random_stream
from openfold_opt.loader.raw_features import RawFeatures, Templates
from openfold_opt.loader.transforms.deletions import SparseDeletions
from openfold_opt.loader.transforms.template_selection import template_hit_order
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.records import AlignmentRecord
from openfold_opt.protein.residue_constants import hhblits_to_model_order, restype_order_with_x
from openfold_opt.protein.templates import featurize_templates, hits_for_date

UNKNOWN_CLASS = 20
CLASS_OF_TOKEN = np.asarray(hhblits_to_model_order, dtype=np.uint8)


def read_training_features(
    reader: ShardReader, chain_id: str, *, seed: int, config: DataConfig
) -> RawFeatures:
    """Raw features with the templates of a training sample: the best hits are shuffled before the first ones are taken."""
    num_hits = len(hits_for_date(reader, chain_id)) if config.max_templates else 0
    rng = random_stream(seed, Purpose.TEMPLATE_ORDER)
    order = template_hit_order(num_hits, num_shuffled=config.shuffled_template_hits, rng=rng)
    return _read(reader, chain_id, order=order, config=config)


def read_evaluation_features(
    reader: ShardReader, chain_id: str, *, config: DataConfig
) -> RawFeatures:
    """Raw features with the best templates."""
    return _read(reader, chain_id, order=None, config=config)


def _read(
    reader: ShardReader, chain_id: str, *, order: np.ndarray | None, config: DataConfig
) -> RawFeatures:
    structure = reader.structure(chain_id)
    alignment = reader.alignment(chain_id)
    if alignment.msa.shape[1] != len(structure.sequence):
        raise ValueError(
            f"chain {chain_id}: the alignment has {alignment.msa.shape[1]} columns for {len(structure.sequence)} residues; "
            "convert the data again, with the alignment of this very sequence"
        )
    if alignment.msa.max() >= len(CLASS_OF_TOKEN):
        raise ValueError(
            f"chain {chain_id}: the alignment has a token {alignment.msa.max()}, expected 0 to {len(CLASS_OF_TOKEN) - 1}; "
            "the shard is damaged: `python -m data_prep verify` finds which"
        )
    # Hits are tried until max_templates can be featurised, 60 days before the chain's own release at the latest.
    templates = featurize_templates(
        reader, chain_id, max_templates=config.max_templates, order=order
    )
    return RawFeatures(
        aatype=encode_sequence(structure.sequence),
        all_atom_positions=structure.all_atom_positions,
        all_atom_mask=structure.all_atom_mask.astype(np.float32),
        resolution=float("nan") if structure.resolution is None else structure.resolution,
        msa=alignment.msa,
        class_of_token=CLASS_OF_TOKEN,
        deletions=_deletions(alignment),
        profile=_profile(alignment),
        templates=Templates(
            aatype=templates["template_aatype"].astype(np.int64),
            all_atom_positions=templates["template_all_atom_positions"],
            all_atom_mask=templates["template_all_atom_mask"],
        ),
    )


def encode_sequence(sequence: str) -> np.ndarray:
    """Residue classes of a sequence of letters, int64 [N_res]; any letter beside the twenty is unknown."""
    return np.array(
        [restype_order_with_x.get(letter, UNKNOWN_CLASS) for letter in sequence], dtype=np.int64
    )


def _deletions(alignment: AlignmentRecord) -> SparseDeletions:
    return SparseDeletions(
        indptr=alignment.deletion_indptr,
        column=alignment.deletion_column,
        count=alignment.deletion_count,
        num_columns=alignment.msa.shape[1],
    )


def _profile(alignment: AlignmentRecord) -> np.ndarray:
    """Frequencies from the stored counts: exact, and independent of how deep the alignment is; float32 [N_res, 22]."""
    counts = np.empty(alignment.token_counts.shape, dtype=np.float32)
    counts[:, np.asarray(hhblits_to_model_order)] = alignment.token_counts
    return counts / np.float32(alignment.num_sequences)
