"""Random raw features, and samples as model features."""

import numpy as np

from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.raw_features import RawFeatures, Templates
from openfold_opt.loader.sample import choose_for_evaluation, choose_for_training, encode_sample
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.protein.sparse_deletions import SparseDeletions


def make_raw(*, num_res=20, num_rows=30, num_templates=4) -> RawFeatures:
    rng = np.random.default_rng(0)
    # The MSA has only classes 0..9 and the profile only class 20, so the class of a masked position
    # identifies the source of the replacement.
    msa = rng.integers(0, 10, (num_rows, num_res), dtype=np.uint8)
    profile = np.zeros((num_res, 22), np.float32)
    profile[:, 20] = 1
    mask = (rng.random((num_res, 37)) < 0.9).astype(np.float32)
    return RawFeatures(
        aatype=msa[0].astype(np.int64),
        all_atom_positions=np.where(
            mask[..., None] > 0, rng.normal(size=(num_res, 37, 3)), 0
        ).astype(np.float32),
        all_atom_mask=mask,
        resolution=float("nan"),
        msa=msa,
        deletions=SparseDeletions.from_dense(
            rng.integers(0, 300, msa.shape) * (rng.random(msa.shape) < 0.05)
        ),
        profile=profile,
        templates=Templates(
            aatype=rng.integers(0, 22, (num_templates, num_res)),
            all_atom_positions=rng.normal(size=(num_templates, num_res, 37, 3)).astype(np.float32),
            all_atom_mask=np.ones((num_templates, num_res, 37), np.float32),
        ),
    )


def decoded(sample) -> dict[str, np.ndarray]:
    """Return the model features of one sample of wire features."""
    return {
        name: tensor[0].numpy() for name, tensor in decode_batch(stack_samples([sample])).items()
    }


def training_sample(raw, *, seed, config) -> dict[str, np.ndarray]:
    return decoded(encode_sample(raw, choose_for_training(raw, seed=seed, config=config)))


def evaluation_sample(raw, *, seed, config) -> dict[str, np.ndarray]:
    return decoded(encode_sample(raw, choose_for_evaluation(raw, seed=seed, config=config)))
