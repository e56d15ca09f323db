"""Random choices among templates in training."""

import numpy as np


def template_hit_order(num_hits: int, *, num_shuffled: int, rng: np.random.Generator) -> np.ndarray:
    """Order in which hits, sorted best first, are tried: the first `num_shuffled` shuffled, then the rest; int64 [num_hits]."""
    num_shuffled = min(num_shuffled, num_hits)
    return np.concatenate([rng.permutation(num_shuffled), np.arange(num_shuffled, num_hits)])


def draw_template_subset(num_templates: int, *, rng: np.random.Generator) -> np.ndarray:
    """Which templates a training sample keeps, in random order; their number is uniform on 0 .. num_templates."""
    num_kept = int(rng.integers(0, num_templates + 1))
    return rng.permutation(num_templates)[:num_kept]
