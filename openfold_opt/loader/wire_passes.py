"""One pass of the wire features of a single sample.

Decoding all passes of a long chain at once needs gigabytes; a prediction decodes one at a time.
"""

from collections.abc import Mapping

import numpy as np

from openfold_opt.loader import wire_format

_FLAGS = {
    "masked_classes": ("msa", wire_format.IS_CHOSEN),
    "deletions": ("msa", wire_format.HAS_DELETION),
    "cluster_deletions": ("msa", wire_format.CLUSTER_HAS_DELETION),
    "profile_counts": ("profile_flags", 0xFF),
    "extra_deletions": ("extra_msa", wire_format.HAS_DELETION),
}
"""Packed per-pass feature -> the fixed feature and the bits that mark its values."""


def cut_to_pass(sample: Mapping[str, np.ndarray], pass_index: int) -> dict[str, np.ndarray]:
    """Return the wire features of one sample with only one of its passes.

    Args:
        sample: wire features of one sample, not of a batch.
        pass_index: 0 to num_passes - 1.

    Returns:
        all wire features; per-pass features have one slice.

    Raises:
        ValueError: the sample has no such pass.
    """
    num_passes = sample["msa"].shape[0]
    if not 0 <= pass_index < num_passes:
        raise ValueError(f"pass {pass_index} requested, but the sample has {num_passes} passes")
    cut = dict(sample)
    for name, spec in wire_format.WIRE_FEATURES.items():
        if not spec.per_pass:
            continue
        if spec.is_packed:
            flags, bits = _FLAGS[name]
            counts = np.bitwise_count(sample[flags] & np.uint8(bits))
            # Values are in the order of the passes.
            ends = np.cumsum(counts.reshape(num_passes, -1).sum(axis=1, dtype=np.int64))
            start = ends[pass_index - 1] if pass_index else 0
            cut[name] = sample[name][start : ends[pass_index]]
        else:
            cut[name] = sample[name][pass_index : pass_index + 1]
    return cut
