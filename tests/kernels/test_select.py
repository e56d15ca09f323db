"""Selection of kernels."""

import dataclasses
import sys

import pytest
import torch

from openfold_opt.kernels.cpu import library
from openfold_opt.kernels.interface import KernelConfig, KernelShapes
from openfold_opt.kernels.operations import OPERATIONS, Operation
from openfold_opt.kernels.select import build_kernel_set, resolve_auto


def test_the_default_is_the_reference():
    kernels = build_kernel_set(KernelConfig(), "cpu")
    for name, operation in OPERATIONS.items():
        assert getattr(kernels, name) is operation.reference


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("triton", Operation.for_triton),
        *(
            pytest.param(name, Operation.for_cpu, marks=pytest.mark.compiler)
            for name in ("cpu", "auto")
        ),
    ],
)
def test_one_implementation_for_all_operations(name, expected):
    kernels = build_kernel_set(KernelConfig.all(name), "cpu")
    for operation in OPERATIONS.values():
        assert getattr(kernels, operation.name) is expected(operation)


def test_fused_attention_is_a_choice():
    triton = KernelConfig.all("triton")
    kernels = build_kernel_set(triton, "cpu")
    assert kernels.residual_attention.__name__ == "residual_attention"
    separate = build_kernel_set(dataclasses.replace(triton, fused_attention=False), "cpu")
    assert separate == dataclasses.replace(kernels, residual_attention=None)


def test_resolving_keeps_the_choice_of_attention():
    config = dataclasses.replace(KernelConfig.all("auto"), fused_attention=False)
    expected = dataclasses.replace(KernelConfig.all("triton"), fused_attention=False)
    assert resolve_auto(config, torch.device("cuda")) == expected


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(library, "COMPILERS", ("a-compiler-that-does-not-exist",))
    cached = (library.library, library.unsupported_reason)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def test_without_a_compiler_auto_means_reference(no_compiler):
    assert resolve_auto(KernelConfig.all("auto"), torch.device("cpu")) == KernelConfig()


def test_without_a_compiler_cpu_kernels_are_an_error(no_compiler):
    with pytest.raises(
        ValueError,
        match='kernel transition: implementation "cpu" requested, but there is no C.. compiler',
    ):
        build_kernel_set(KernelConfig(transition="cpu"), "cpu")


def test_cpu_kernels_on_a_gpu_are_an_error():
    with pytest.raises(
        ValueError, match='kernel layer_norm: found implementation "cpu" for a model on cuda'
    ):
        build_kernel_set(KernelConfig(layer_norm="cpu"), "cuda")


def test_the_error_for_an_unknown_name_lists_the_implementations():
    with pytest.raises(
        ValueError,
        match=(
            r"kernel self_attention: found implementation 'magic', expected one of "
            r"\['auto', 'reference', 'cpu', 'triton', 'cuequivariance'\]"
        ),
    ):
        build_kernel_set(KernelConfig(self_attention="magic"), "cpu")


def test_the_error_for_unsupported_shapes_has_the_reason():
    shapes = KernelShapes(max_transition_channels=384)
    with pytest.raises(
        ValueError,
        match=(
            "kernel transition: transition supports rows of at most 256 channels, found 384; "
            "set that field"
        ),
    ):
        build_kernel_set(KernelConfig(transition="triton"), "cpu", shapes)


def test_without_triton_the_error_says_how_to_install_it(monkeypatch):
    for name in [
        name
        for name in sys.modules
        if name == "triton" or name.startswith("openfold_opt.kernels.triton")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(
        ValueError, match="kernel layer_norm: Triton cannot be imported .* install the extra `gpu`"
    ):
        build_kernel_set(KernelConfig(layer_norm="triton"), "cpu")
