"""Philox, and the dropout masks computed from it."""

import pytest
import torch

from openfold_opt.kernels.reference.dropout_masks import dropout_masks, philox

# Known answers of the Random123 library, file kat_vectors, philox4x32 10.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
SLOTS = torch.tensor([4, 0, 9])
SITES = torch.tensor([16, 32])


def masks(*, key=(7, 3), sites=SITES, slots=SLOTS, pass_index=1, shape=(1, 11, 6), rate=0.25):
    return dropout_masks(key, sites, slots, pass_index=pass_index, shape=shape, rate=rate)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    words = philox(tuple(torch.tensor(word) for word in counter), key)
    assert tuple(int(word) for word in words) == expected


def test_values_and_rate():
    found = masks(shape=(50, 40), rate=0.25)
    assert found.unique().tolist() == pytest.approx([0.0, 1.0 / 0.75])
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_a_mask_does_not_depend_on_how_sites_and_samples_are_grouped():
    grouped = masks()
    for i in range(len(SITES)):
        for j in range(len(SLOTS)):
            single = masks(sites=SITES[i : i + 1], slots=SLOTS[j : j + 1])
            assert torch.equal(single[0, 0], grouped[i, j])


def test_every_argument_changes_the_mask():
    base = masks()
    changed = [
        masks(key=(8, 3)),
        masks(key=(7, 4)),
        masks(pass_index=2),
        masks(sites=SITES + 1),
        masks(slots=SLOTS + 1),
    ]
    for other in changed:
        agreement = (base == other).float().mean().item()
        assert agreement == pytest.approx(0.75**2 + 0.25**2, abs=0.08)
    assert not torch.equal(base[0], base[1])


def test_seed_and_step_may_be_tensors():
    assert torch.equal(masks(key=(torch.tensor(7), torch.tensor(3))), masks())


def test_only_the_low_word_of_the_seed_is_used():
    assert torch.equal(masks(key=(7 + (5 << 32), 3)), masks())
