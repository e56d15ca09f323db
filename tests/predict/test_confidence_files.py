"""Confidences as JSON: keys, types, rounding and layout of the AlphaFold database."""

import json

import numpy as np
import pytest

from openfold_opt.predict import confidence_files
from openfold_opt.predict.confidence_files import confidence_json, has_pae_json, pae_json_blocks


def test_confidence_of_each_residue():
    text = confidence_json(np.array([49.994, 49.996, 69.99, 70, 89.994, 90, 100], np.float32))
    assert text == (
        '{"residueNumber":[1,2,3,4,5,6,7],'
        '"confidenceScore":[49.99,50.0,69.99,70.0,89.99,90.0,100.0],'
        '"confidenceCategory":["D","L","L","M","M","H","H"]}'
    )


@pytest.mark.parametrize("numbers_per_block", [1, 10, 10_000])
def test_aligned_errors_in_blocks_of_rows(monkeypatch, numbers_per_block):
    monkeypatch.setattr(confidence_files, "_NUMBERS_PER_BLOCK", numbers_per_block)
    pae = np.random.default_rng(0).uniform(0, 31.75, (7, 7)).astype(np.float16)
    text = "".join(pae_json_blocks(pae, 31.75))
    values = np.round(pae.astype(np.float64), 1).tolist()
    content = [{"predicted_aligned_error": values, "max_predicted_aligned_error": 31.75}]
    assert text == json.dumps(content, separators=(",", ":"))


def test_no_text_is_written_for_values_that_are_not_finite():
    with pytest.raises(ValueError, match="not JSON compliant"):
        list(pae_json_blocks(np.full((2, 2), np.nan, np.float16), 31.75))


@pytest.mark.parametrize(
    ("num_residues", "requested", "expected"),
    [
        (3000, None, True),
        (3001, None, False),
        (3001, True, True),
        (10, False, False),
    ],
)
def test_long_chains_get_the_aligned_errors_on_request(num_residues, requested, expected):
    assert has_pae_json(num_residues, requested) is expected
