"""The reference implementation of a sample: model features directly from raw features.

Every feature is computed at full size, one pass after the other.
"""

import numpy as np

from openfold_opt.loader.random_streams import Purpose, random_stream
from openfold_opt.loader.raw_features import RawFeatures
from openfold_opt.loader.reference.msa_pass import make_msa_pass
from openfold_opt.loader.reference.padding import pad_features, pad_passes
from openfold_opt.loader.sample import SampleChoice
from openfold_opt.loader.transforms.msa_features import make_target_feat
from openfold_opt.loader.transforms.structure_features import make_structure_features
from openfold_opt.loader.transforms.template_features import make_template_features


def reference_sample(raw: RawFeatures, choice: SampleChoice) -> dict[str, np.ndarray]:
    """Return every feature of openfold_opt.protein.features, padded.

    Args:
        raw: the chain.
        choice: from sample.choose_for_training or sample.choose_for_evaluation.

    Returns:
        name -> array; per-pass features have shape [num_passes, ...].
    """
    passes = [
        make_msa_pass(
            raw,
            crop=choice.crop,
            config=choice.config,
            rows_rng=random_stream(choice.seed, Purpose.MSA_ROWS, number),
            mask_rng=random_stream(choice.seed, Purpose.MSA_MASKING, number),
        )
        for number in range(choice.config.num_passes)
    ]
    shared = _shared_features(raw, choice)
    return pad_features(shared, sizes=choice.sizes) | pad_passes(passes, sizes=choice.sizes)


def _shared_features(raw: RawFeatures, choice: SampleChoice) -> dict[str, np.ndarray]:
    """Return the features that all passes share, unpadded."""
    crop = choice.crop
    return {
        **make_structure_features(raw.aatype, raw.all_atom_positions, raw.all_atom_mask, crop=crop),
        **make_template_features(raw.templates, chosen=choice.templates, crop=crop),
        "residue_index": np.arange(crop.start, crop.stop),
        "target_feat": make_target_feat(raw.aatype[crop]),
        "seq_length": np.array(crop.stop - crop.start),
        "resolution": np.array(raw.resolution),
        "use_clamped_fape": np.array(choice.is_clamped),
    }
