"""Order of template hits and the subset that a training sample keeps."""

import numpy as np
import pytest

from openfold_opt.loader.transforms.template_selection import (
    draw_template_subset,
    template_hit_order,
)


@pytest.mark.parametrize("num_hits", [0, 1, 19, 20, 21, 50])
def test_only_the_best_hits_are_shuffled(num_hits):
    order = template_hit_order(num_hits, num_shuffled=20, rng=np.random.default_rng(1))
    assert sorted(order) == list(range(num_hits))
    assert order[20:].tolist() == list(range(20, num_hits))


def test_each_of_the_best_hits_is_first_equally_often():
    firsts = [
        template_hit_order(30, num_shuffled=20, rng=np.random.default_rng(seed))[0]
        for seed in range(4000)
    ]
    np.testing.assert_allclose(
        np.bincount(firsts, minlength=30)[:20] / 4000, 0.05, atol=4 * np.sqrt(0.05 * 0.95 / 4000)
    )


@pytest.mark.parametrize("num_templates", [0, 1, 4])
def test_subset_sizes_are_uniform(num_templates):
    sizes, members = np.zeros(num_templates + 1), np.zeros(num_templates)
    for seed in range(2000):
        chosen = draw_template_subset(num_templates, rng=np.random.default_rng(seed))
        assert len(set(chosen)) == len(chosen)
        sizes[len(chosen)] += 1
        members[chosen] += 1
    np.testing.assert_allclose(sizes / 2000, 1 / (num_templates + 1), atol=0.04)
    np.testing.assert_allclose(members / 2000, 0.5, atol=0.05)
