"""The devices that a test body runs on: always the CPU, and the GPU where there is one."""

import pytest

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
"""Values for pytest.mark.parametrize. A body that runs on the CPU too cannot hide a typo until it first meets a GPU."""
