"""Selection of kernels."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
import torch

from openfold_opt.kernels.cpu import library
from openfold_opt.kernels.interface import KernelSet, KernelShapes
from openfold_opt.kernels.select import CPU, REFERENCE, KernelConfig, build_kernel_set
from openfold_opt.kernels.triton.operations import OPERATIONS

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_operation_is_in_all_tables_and_configurations():
    names = {field.name for field in dataclasses.fields(KernelSet)}
    assert (
        names
        == set(REFERENCE)
        == set(OPERATIONS)
        == set(CPU)
        == {field.name for field in dataclasses.fields(KernelConfig)}
    )


def test_the_default_is_the_reference():
    kernels = build_kernel_set(KernelConfig(), "cpu")
    assert {name: getattr(kernels, name) for name in REFERENCE} == REFERENCE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("triton", OPERATIONS),
        *(pytest.param(name, CPU, marks=pytest.mark.compiler) for name in ("cpu", "auto")),
    ],
)
def test_one_implementation_for_all_operations(name, expected):
    kernels = build_kernel_set(KernelConfig.all(name), "cpu")
    assert {operation: getattr(kernels, operation) for operation in expected} == expected


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
    assert KernelConfig.all("auto").resolved(torch.device("cpu")) == KernelConfig()


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
            r"\['auto', 'reference', 'cpu', 'compiled', 'triton'\]"
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


@pytest.mark.compiler
def test_compiled_operations_match_the_reference_and_are_compiled_once():
    config = KernelConfig(dropout_residual="compiled", layer_norm="compiled")
    compiled = build_kernel_set(config, "cpu")
    x, update, mask = torch.randn(2, 3, 8), torch.randn(2, 3, 8), torch.ones(2, 1, 8)
    torch.testing.assert_close(
        compiled.dropout_residual(x, update, mask), REFERENCE["dropout_residual"](x, update, mask)
    )
    assert build_kernel_set(config, "cpu").dropout_residual is compiled.dropout_residual


COMPARISON = """
import torch
from openfold_opt.kernels.select import REFERENCE, KernelConfig, build_kernel_set

operation = build_kernel_set(KernelConfig(dropout_residual="compiled"), "cpu").dropout_residual
x, update, mask = torch.randn(2, 3, 64), torch.randn(2, 3, 64), torch.ones(2, 1, 64)
expected = REFERENCE["dropout_residual"](x, update, mask)
torch.testing.assert_close(operation(x, update, mask), expected)
"""


@pytest.mark.compiler
def test_compiled_operations_of_several_processors_share_a_cache(tmp_path):
    # The first process fills the cache with code for this processor; the second has no vectors.
    for capability in (torch.backends.cpu.get_cpu_capability().lower(), "default"):
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
            "ATEN_CPU_CAPABILITY": capability,
        }
        command = [sys.executable, "-c", COMPARISON]
        shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert shown.returncode == 0, f"{capability}: {shown.stderr[-3000:]}"


def test_the_error_for_an_operation_that_is_not_compiled_has_the_reason():
    with pytest.raises(
        ValueError,
        match='kernel weight_update: there is no implementation "compiled", as it works in place',
    ):
        build_kernel_set(KernelConfig(weight_update="compiled"), "cpu")
