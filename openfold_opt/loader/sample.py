"""A sample: (chain, seed) to the wire features of loader.wire_format, as a pure function; loader.expand makes model features of them."""

import dataclasses

import numpy as np

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.random_streams import Purpose, evaluation_seed, random_stream
from openfold_opt.loader.raw_features import RawFeatures
from openfold_opt.loader.raw_reading import read_evaluation_features, read_training_features
from openfold_opt.loader.transforms.cropping import draw_crop
from openfold_opt.loader.transforms.encode_msa import draw_passes, encode_msa
from openfold_opt.loader.transforms.encode_structure import encode_structure, encode_templates
from openfold_opt.loader.transforms.template_selection import draw_template_subset
from openfold_opt.loader.wire_format import pad_wire
from openfold_opt.protein.reader import ShardReader


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleChoice:
    """What is drawn or decided for a sample as a whole."""

    crop: slice
    templates: np.ndarray
    """int64 [n]: which templates, in which order."""
    is_clamped: bool
    """Backbone FAPE is clamped."""
    seed: int
    """Rows and masking of each pass follow from it."""
    config: DataConfig
    """With crop_size the residues to pad to."""

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
    reader: ShardReader, chain_id: str, *, seed: int, config: DataConfig
) -> dict[str, np.ndarray]:
    """A training sample: cropped, padded to the crop size, with a random subset of templates.

    Args:
        reader: of the data set.
        chain_id: the chain.
        seed: 0 or more; every draw follows from it.
        config: sizes and probabilities.

    Returns:
        every wire feature of loader.wire_format, N_res = crop_size unless not pad_to_crop.
    """
    raw = read_training_features(reader, chain_id, seed=seed, config=config)
    return encode_sample(raw, choose_for_training(raw, seed=seed, config=config))


def make_evaluation_sample(
    reader: ShardReader, chain_id: str, *, config: DataConfig
) -> dict[str, np.ndarray]:
    """An evaluation sample: the whole chain at its true length, its best templates; the MSA is sampled and masked here too.

    Every draw follows from the chain's id alone. Returns what make_training_sample returns, with N_res the chain's length.
    """
    raw = read_evaluation_features(reader, chain_id, config=config)
    return encode_sample(
        raw, choose_for_evaluation(raw, seed=evaluation_seed(chain_id), config=config)
    )


def choose_for_training(raw: RawFeatures, *, seed: int, config: DataConfig) -> SampleChoice:
    """Draws crop, templates and clamping."""
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
    """The whole chain, all its templates, not clamped."""
    return SampleChoice(
        crop=slice(0, raw.num_res),
        templates=np.arange(len(raw.templates.aatype)),
        is_clamped=False,
        seed=seed,
        config=dataclasses.replace(config, crop_size=raw.num_res),
    )


def encode_sample(raw: RawFeatures, choice: SampleChoice) -> dict[str, np.ndarray]:
    """The wire features of a sample, padded; see loader.wire_format."""
    crop, config = choice.crop, choice.config
    passes = draw_passes(raw, config=config, seed=choice.seed)
    features = {
        # The benchmark counts from 0 in every chain; gaps in the structure do not show.
        "crop_start": np.array(crop.start),
        "seq_length": np.array(crop.stop - crop.start),
        "resolution": np.array(raw.resolution),
        "use_clamped_fape": np.array(choice.is_clamped),
        **encode_structure(raw, crop=crop),
        **encode_templates(raw.templates, chosen=choice.templates, crop=crop),
        **encode_msa(raw, passes=passes, crop=crop, max_extra_msa=config.max_extra_msa),
    }
    return pad_wire(features, sizes=choice.sizes)
