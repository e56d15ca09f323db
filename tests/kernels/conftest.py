"""Fixtures of the tests of CPU kernels."""

import pytest
import torch

from openfold_opt.kernels.cpu import tiles


@pytest.fixture(params=[64, 2**20], ids=["tiles of one row", "tiles of cache size"])
def tile_bytes(request, monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", request.param)


@pytest.fixture
def on_cpu():
    """Skip on machines with a GPU, where `random` creates tensors on the GPU."""
    if torch.cuda.is_available():
        pytest.skip("CPU kernels are tested on machines without a GPU")
