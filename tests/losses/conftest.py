"""Fixtures: the structure of an ideal helix."""

import pytest

from tests.support.loss_inputs import ideal_helix


@pytest.fixture
def truth():
    """Return an ideal helix with a turn, as a batch of one sample."""
    return ideal_helix()
