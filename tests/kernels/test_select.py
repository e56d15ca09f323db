"""The choice of kernels."""

import dataclasses

import pytest

from openfold_opt.kernels.interface import KernelSet
from openfold_opt.kernels.reference.attention import attention
from openfold_opt.kernels.select import IMPLEMENTATIONS, KernelConfig, build_kernel_set


def test_every_operation_has_a_reference_a_field_and_a_place_in_the_set():
    names = {field.name for field in dataclasses.fields(KernelSet)}
    assert names == set(IMPLEMENTATIONS) == {field.name for field in dataclasses.fields(KernelConfig)}
    assert all("reference" in implementations for implementations in IMPLEMENTATIONS.values())


def test_the_default_is_the_reference():
    assert build_kernel_set(KernelConfig(), "cpu").attention is attention


def test_an_unknown_name_is_an_error_that_lists_what_exists():
    with pytest.raises(ValueError, match=r"kernel attention: found implementation 'magic', expected one of \['reference'\]"):
        build_kernel_set(KernelConfig(attention="magic"), "cpu")
