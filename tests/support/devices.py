"""The devices that a test runs on: the CPU, and the GPU if there is one."""

import pytest

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
"""Values for pytest.mark.parametrize.

Tests also run on the CPU, so that errors in the test code are found without a GPU.
"""
