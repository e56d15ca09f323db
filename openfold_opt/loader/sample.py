"""A sample: (chain, seed) to the model features of openfold_opt.protein.features, as a pure function."""

import dataclasses

import numpy as np

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.random_streams import Purpose, evaluation_seed, random_stream
from openfold_opt.loader.raw_features import RawFeatures
from openfold_opt.loader.raw_reading import read_evaluation_features, read_training_features
from openfold_opt.loader.transforms.cropping import draw_crop
from openfold_opt.loader.transforms.msa_features import make_target_feat
from openfold_opt.loader.transforms.msa_pass import make_msa_pass
from openfold_opt.loader.transforms.padding import pad_features, pad_passes
from openfold_opt.loader.transforms.structure_features import make_structure_features
from openfold_opt.loader.transforms.template_features import make_template_features
from openfold_opt.loader.transforms.template_selection import draw_template_subset
from openfold_opt.protein.reader import ShardReader


def make_training_sample(reader: ShardReader, chain_id: str, *, seed: int, config: DataConfig) -> dict[str, np.ndarray]:
    """A training sample: cropped, padded to the crop size, with a random subset of templates.

    Args:
        reader: of the data set.
        chain_id: the chain.
        seed: 0 or more; every draw follows from it.
        config: sizes and probabilities.

    Returns:
        every feature of openfold_opt.protein.features, N_res = crop_size unless not pad_to_crop; per-pass ones [num_passes, ...].
    """
    raw = read_training_features(reader, chain_id, seed=seed, config=config)
    return training_sample_from_raw(raw, seed=seed, config=config)


def make_evaluation_sample(reader: ShardReader, chain_id: str, *, config: DataConfig) -> dict[str, np.ndarray]:
    """An evaluation sample: the whole chain at its true length, its best templates; the MSA is sampled and masked here too.

    Every draw follows from the chain's id alone. Returns what make_training_sample returns, with N_res the chain's length.
    """
    raw = read_evaluation_features(reader, chain_id, config=config)
    return evaluation_sample_from_raw(raw, seed=evaluation_seed(chain_id), config=config)


def training_sample_from_raw(raw: RawFeatures, *, seed: int, config: DataConfig) -> dict[str, np.ndarray]:
    """make_training_sample for raw features that are read already."""
    crop = draw_crop(raw.num_res, crop_size=config.crop_size, rng=random_stream(seed, Purpose.CROP))
    templates = draw_template_subset(len(raw.templates.aatype), rng=random_stream(seed, Purpose.TEMPLATE_SUBSET))
    is_clamped = random_stream(seed, Purpose.CLAMPED_FAPE).random() < config.clamped_fape_probability
    shared = _shared_features(raw, crop=crop, templates=templates, is_clamped=is_clamped)
    if not config.pad_to_crop:
        config = dataclasses.replace(config, crop_size=crop.stop - crop.start)
    return _assemble(raw, shared, crop=crop, seed=seed, config=config)


def evaluation_sample_from_raw(raw: RawFeatures, *, seed: int, config: DataConfig) -> dict[str, np.ndarray]:
    """make_evaluation_sample for raw features that are read already."""
    crop = slice(0, raw.num_res)
    shared = _shared_features(raw, crop=crop, templates=np.arange(len(raw.templates.aatype)), is_clamped=False)
    return _assemble(raw, shared, crop=crop, seed=seed, config=dataclasses.replace(config, crop_size=raw.num_res))


def _shared_features(raw: RawFeatures, *, crop: slice, templates: np.ndarray, is_clamped: bool) -> dict[str, np.ndarray]:
    """Features that all recycling passes share, unpadded."""
    return {
        **make_structure_features(raw.aatype, raw.all_atom_positions, raw.all_atom_mask, crop=crop),
        **make_template_features(raw.templates, chosen=templates, crop=crop),
        # The benchmark counts from 0 in every chain; gaps in the structure do not show.
        "residue_index": np.arange(crop.start, crop.stop),
        "target_feat": make_target_feat(raw.aatype[crop]),
        "seq_length": np.array(crop.stop - crop.start),
        "resolution": np.array(raw.resolution),
        "use_clamped_fape": np.array(is_clamped),
    }


def _assemble(
    raw: RawFeatures, shared: dict[str, np.ndarray], *, crop: slice, seed: int, config: DataConfig
) -> dict[str, np.ndarray]:
    """Pads the shared features to config.crop_size residues, adds those of each pass."""
    sizes = {
        "N_res": config.crop_size,
        "N_clust": config.max_msa_clusters,
        "N_extra": config.max_extra_msa,
        "N_templ": config.max_templates,
    }
    passes = [
        make_msa_pass(
            raw,
            crop=crop,
            config=config,
            rows_rng=random_stream(seed, Purpose.MSA_ROWS, number),
            mask_rng=random_stream(seed, Purpose.MSA_MASKING, number),
        )
        for number in range(config.num_passes)
    ]
    return pad_features(shared, sizes=sizes) | pad_passes(passes, sizes=sizes)
