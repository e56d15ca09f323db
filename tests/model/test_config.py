"""Validation of the model configuration."""

import pytest

from openfold_opt.model.config import ModelConfig


def test_a_width_of_zero_is_an_error():
    with pytest.raises(ValueError, match="c_z is 0"):
        ModelConfig(c_z=0)
