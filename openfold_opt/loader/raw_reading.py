"""Reading of the raw features of a chain from the shards."""

from collections.abc import Mapping

import numpy as np

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.random_streams import Purpose, random_stream
from openfold_opt.loader.raw_features import RawFeatures, Templates
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.records import AlignmentRecord, StructureRecord
from openfold_opt.protein.residue_constants import hhblits_to_model_order, restype_order_with_x
from openfold_opt.protein.templates import featurize_templates, hits_for_date

UNKNOWN_CLASS = 20
CLASS_OF_TOKEN = np.asarray(hhblits_to_model_order, dtype=np.uint8)


def read_training_features(
    reader: ShardReader, chain_id: str, *, seed: int, config: DataConfig
) -> RawFeatures:
    """Read the raw features of a training sample: the best template hits are shuffled.

    Raises:
        ValueError: the alignment does not fit the sequence or has invalid tokens.
    """
    num_hits = len(hits_for_date(reader, chain_id)) if config.max_templates else 0
    rng = random_stream(seed, Purpose.TEMPLATE_ORDER)
    order = template_hit_order(num_hits, num_shuffled=config.shuffled_template_hits, rng=rng)
    return _read(reader, chain_id, order=order, config=config)


def read_evaluation_features(
    reader: ShardReader, chain_id: str, *, config: DataConfig
) -> RawFeatures:
    """Read the raw features of an evaluation sample, which has the best templates.

    Raises:
        ValueError: the alignment does not fit the sequence or has invalid tokens.
    """
    return _read(reader, chain_id, order=None, config=config)


def template_hit_order(num_hits: int, *, num_shuffled: int, rng: np.random.Generator) -> np.ndarray:
    """Return the order in which hits, sorted best first, are tried; int64 [num_hits].

    The first `num_shuffled` hits are shuffled; the others keep their order.
    """
    num_shuffled = min(num_shuffled, num_hits)
    return np.concatenate([rng.permutation(num_shuffled), np.arange(num_shuffled, num_hits)])


def _read(
    reader: ShardReader, chain_id: str, *, order: np.ndarray | None, config: DataConfig
) -> RawFeatures:
    """Read the raw features. order: the template hits to try, in order; None: best first."""
    # Hits are tried in order until max_templates of them are usable. A template must have been
    # released at least 60 days before the chain.
    templates = featurize_templates(
        reader, chain_id, max_templates=config.max_templates, order=order
    )
    return make_raw_features(
        chain_id,
        structure=reader.structure(chain_id),
        alignment=reader.alignment(chain_id),
        templates=templates,
    )


def make_raw_features(
    chain_id: str,
    *,
    structure: StructureRecord,
    alignment: AlignmentRecord,
    templates: Mapping[str, np.ndarray | list[str]],
) -> RawFeatures:
    """Return the raw features of a chain from its records.

    Args:
        chain_id: the chain, for messages.
        structure: its sequence and coordinates.
        alignment: its alignment.
        templates: the result of protein.templates.featurize_hits.

    Raises:
        ValueError: the alignment does not fit the sequence or has invalid tokens.
    """
    if alignment.msa.shape[1] != len(structure.sequence):
        raise ValueError(
            f"chain {chain_id}: the alignment has {alignment.msa.shape[1]} columns, expected one "
            f"for each of {len(structure.sequence)} residues; "
            "convert the data again, with the alignment of this sequence"
        )
    if alignment.msa.max() >= len(CLASS_OF_TOKEN):
        raise ValueError(
            f"chain {chain_id}: the alignment has a token {alignment.msa.max()}, "
            f"expected 0 to {len(CLASS_OF_TOKEN) - 1}; "
            "a shard is damaged: `python -m data_prep verify` reports which one"
        )
    return RawFeatures(
        aatype=encode_sequence(structure.sequence),
        all_atom_positions=structure.all_atom_positions,
        all_atom_mask=structure.all_atom_mask.astype(np.float32),
        resolution=float("nan") if structure.resolution is None else structure.resolution,
        msa=alignment.msa,
        class_of_token=CLASS_OF_TOKEN,
        deletions=alignment.deletions,
        profile=_profile(alignment),
        templates=Templates(
            aatype=np.asarray(templates["template_aatype"], dtype=np.int64),
            all_atom_positions=np.asarray(templates["template_all_atom_positions"]),
            all_atom_mask=np.asarray(templates["template_all_atom_mask"]),
        ),
    )


def encode_sequence(sequence: str) -> np.ndarray:
    """Return the residue classes of a sequence of letters, int64 [N_res].

    Letters other than the 20 amino acids become the unknown class.
    """
    return np.array(
        [restype_order_with_x.get(letter, UNKNOWN_CLASS) for letter in sequence], dtype=np.int64
    )


def _profile(alignment: AlignmentRecord) -> np.ndarray:
    """Compute class frequencies from the counts of the whole alignment; float32 [N_res, 22]."""
    counts = np.empty(alignment.token_counts.shape, dtype=np.float32)
    counts[:, np.asarray(hhblits_to_model_order)] = alignment.token_counts
    return counts / np.float32(alignment.num_sequences)
