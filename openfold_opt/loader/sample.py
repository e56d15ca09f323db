"""Samples: pure functions from (chain, seed) to the wire features of loader.wire_format.

loader.decode computes the model features from the wire features.
"""

import dataclasses

import numpy as np

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.random_streams import Purpose, evaluation_seed, random_stream
from openfold_opt.loader.raw_features import RawFeatures
from openfold_opt.loader.raw_reading import read_evaluation_features, read_training_features
from openfold_opt.loader.transforms.encode_msa import encode_msa
from openfold_opt.loader.transforms.encode_structure import encode_structure, encode_templates
from openfold_opt.loader.transforms.msa_draws import draw_passes
from openfold_opt.loader.wire_format import pad_wire
from openfold_opt.protein.reader import ShardReader


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleChoice:
    """The choices that all passes of a sample share."""

    crop: slice
    templates: np.ndarray
    """int64 [n], indices of the templates, in order."""
    is_clamped: bool
    """Whether the backbone FAPE is clamped."""
    seed: int
    """Seed of the rows and the masking of each pass."""
    config: DataConfig
    """Its crop_size is the number of residues to pad to."""

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes of the symbolic dims of openfold_opt.protein.features."""
        return {
            "N_res": self.config.crop_size,
            "N_clust": self.config.max_msa_clusters,
            "N_extra": self.config.max_extra_msa,
            "N_templ": self.config.max_templates,
        }


def make_training_sample(
    reader: ShardReader,
    chain_id: str,
    *,
    seed: int,
    config: DataConfig,
    is_distilled: bool = False,
) -> dict[str, np.ndarray]:
    """Make a training sample: cropped, padded to the crop size, with a random subset of templates.

    Args:
        reader: reader of the data set.
        chain_id: the chain.
        seed: 0 or more; determines every draw.
        config: sizes and probabilities.
        is_distilled: whether the chain is of the distillation set, so that rows are drawn from a
            deep alignment first.

    Returns:
        all wire features of loader.wire_format; N_res = crop_size if pad_to_crop, else the length
        of the crop.
    """
    raw = read_training_features(reader, chain_id, seed=seed, config=config)
    if is_distilled:
        rng = random_stream(seed, Purpose.DISTILLATION_ROWS)
        raw = limit_rows(raw, max_rows=config.distillation_max_msa_rows, rng=rng)
    return encode_sample(raw, choose_for_training(raw, seed=seed, config=config))


def limit_rows(raw: RawFeatures, *, max_rows: int, rng: np.random.Generator) -> RawFeatures:
    """Draw at most max_rows rows of the MSA uniformly, the query always among them.

    The same rows are used in all passes. A smaller MSA is returned unchanged.
    """
    num_rows = len(raw.msa)
    if num_rows <= max_rows:
        return raw
    drawn = rng.choice(num_rows - 1, max_rows - 1, replace=False) + 1
    return raw.with_rows(np.concatenate([np.zeros(1, dtype=np.int64), np.sort(drawn)]))


def make_evaluation_sample(
    reader: ShardReader, chain_id: str, *, config: DataConfig
) -> dict[str, np.ndarray]:
    """Make an evaluation sample: the whole chain, unpadded, with its best templates.

    The MSA is sampled and masked as in training. Every draw depends only on the id of the chain.

    Returns:
        all wire features of loader.wire_format; N_res is the length of the chain.
    """
    raw = read_evaluation_features(reader, chain_id, config=config)
    return encode_sample(
        raw, choose_for_evaluation(raw, seed=evaluation_seed(chain_id), config=config)
    )


def choose_for_training(raw: RawFeatures, *, seed: int, config: DataConfig) -> SampleChoice:
    """Draw the crop, the templates and the clamping."""
    crop = draw_crop(raw.num_res, crop_size=config.crop_size, rng=random_stream(seed, Purpose.CROP))
    if not config.pad_to_crop:
        config = dataclasses.replace(config, crop_size=crop.stop - crop.start)
    return SampleChoice(
        crop=crop,
        templates=draw_template_subset(
            len(raw.templates.aatype), rng=random_stream(seed, Purpose.TEMPLATE_SUBSET)
        ),
        is_clamped=random_stream(seed, Purpose.CLAMPED_FAPE).random()
        < config.clamped_fape_probability,
        seed=seed,
        config=config,
    )


def choose_for_evaluation(raw: RawFeatures, *, seed: int, config: DataConfig) -> SampleChoice:
    """Choose the whole chain and all its templates, without clamping."""
    return SampleChoice(
        crop=slice(0, raw.num_res),
        templates=np.arange(len(raw.templates.aatype)),
        is_clamped=False,
        seed=seed,
        config=dataclasses.replace(config, crop_size=raw.num_res),
    )


def draw_crop(num_res: int, *, crop_size: int, rng: np.random.Generator) -> slice:
    """Draw a contiguous range of min(num_res, crop_size) residues.

    The start is uniform, as in the MLCommons reference. The AlphaFold2 supplement biases it.
    """
    length = min(num_res, crop_size)
    start = int(rng.integers(0, num_res - length + 1))
    return slice(start, start + length)


def draw_template_subset(num_templates: int, *, rng: np.random.Generator) -> np.ndarray:
    """Draw the templates of a training sample, in random order, as an array of indices.

    Their number is uniform on 0 .. num_templates.
    """
    num_kept = int(rng.integers(0, num_templates + 1))
    return rng.permutation(num_templates)[:num_kept]


def encode_sample(raw: RawFeatures, choice: SampleChoice) -> dict[str, np.ndarray]:
    """Return the wire features of a sample, padded; see loader.wire_format."""
    crop, config = choice.crop, choice.config
    passes = draw_passes(raw, config=config, seed=choice.seed)
    features = {
        # As in the MLCommons reference, residues are numbered from 0 in every chain, without gaps.
        "crop_start": np.array(crop.start),
        "seq_length": np.array(crop.stop - crop.start),
        "resolution": np.array(raw.resolution),
        "use_clamped_fape": np.array(choice.is_clamped),
        **encode_structure(raw, crop=crop),
        **encode_templates(raw.templates, chosen=choice.templates, crop=crop),
        **encode_msa(raw, passes=passes, crop=crop, max_extra_msa=config.max_extra_msa),
    }
    return pad_wire(features, sizes=choice.sizes)
