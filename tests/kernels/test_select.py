"""The choice of kernels."""

import dataclasses
import sys

import pytest

from openfold_opt.kernels.interface import KernelSet, KernelShapes
from openfold_opt.kernels.reference.attention import attention
from openfold_opt.kernels.select import REFERENCE, KernelConfig, build_kernel_set
from openfold_opt.kernels.triton.operations import OPERATIONS


def test_every_operation_has_a_plain_and_a_fused_version_a_field_and_a_place_in_the_set():
    names = {field.name for field in dataclasses.fields(KernelSet)}
    assert names == set(REFERENCE) == set(OPERATIONS) == {field.name for field in dataclasses.fields(KernelConfig)}


def test_the_default_is_the_reference():
    assert build_kernel_set(KernelConfig(), "cpu").attention is attention


def test_triton_for_all():
    kernels = build_kernel_set(KernelConfig.all("triton"), "cpu")
    assert {name: getattr(kernels, name) for name in OPERATIONS} == OPERATIONS


def test_an_unknown_name_is_an_error_that_lists_what_exists():
    with pytest.raises(ValueError, match=r"kernel attention: found implementation 'magic', expected one of \['reference', 'triton'\]"):
        build_kernel_set(KernelConfig(attention="magic"), "cpu")


def test_asked_for_and_impossible_is_an_error_with_the_reason():
    shapes = KernelShapes(max_transition_channels=384)
    with pytest.raises(ValueError, match="kernel transition: transition holds rows of at most 256 channels, found 384; set that field"):
        build_kernel_set(KernelConfig(transition="triton"), "cpu", shapes)


def test_without_triton_the_error_says_how_to_get_it(monkeypatch):
    for name in [name for name in sys.modules if name == "triton" or name.startswith("openfold_opt.kernels.triton")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ValueError, match="kernel layer_norm: Triton cannot be imported .* install the extra `gpu`"):
        build_kernel_set(KernelConfig(layer_norm="triton"), "cpu")
