"""The choice of kernels."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
import torch

from openfold_opt.kernels.cpu import library
from openfold_opt.kernels.cpu.operations import OPERATIONS as FOR_CPU
from openfold_opt.kernels.interface import KernelSet, KernelShapes
from openfold_opt.kernels.select import REFERENCE, KernelConfig, build_kernel_set
from openfold_opt.kernels.triton.operations import OPERATIONS

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_operation_has_a_version_of_each_kind_a_field_and_a_place_in_the_set():
    names = {field.name for field in dataclasses.fields(KernelSet)}
    assert (
        names
        == set(REFERENCE)
        == set(OPERATIONS)
        == set(FOR_CPU)
        == {field.name for field in dataclasses.fields(KernelConfig)}
    )


def test_the_default_is_the_reference():
    kernels = build_kernel_set(KernelConfig(), "cpu")
    assert {name: getattr(kernels, name) for name in REFERENCE} == REFERENCE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("triton", OPERATIONS),
        *(pytest.param(name, FOR_CPU, marks=pytest.mark.compiler) for name in ("cpu", "auto")),
    ],
)
def test_one_kind_for_all(name, expected):
    kernels = build_kernel_set(KernelConfig.all(name), "cpu")
    assert {operation: getattr(kernels, operation) for operation in expected} == expected


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(library, "COMPILERS", ("a-compiler-that-nobody-has",))
    forget = [library.library.cache_clear, library.unsupported_reason.cache_clear]
    for each in forget:
        each()
    yield
    for each in forget:
        each()


def test_without_a_compiler_auto_means_plain(no_compiler):
    assert KernelConfig.all("auto").resolved(torch.device("cpu")) == KernelConfig()


def test_without_a_compiler_the_versions_for_a_cpu_are_refused(no_compiler):
    with pytest.raises(
        ValueError,
        match='kernel transition: implementation "cpu" was asked for, but there is no C.. compiler',
    ):
        build_kernel_set(KernelConfig(transition="cpu"), "cpu")


def test_the_versions_for_a_cpu_refuse_a_gpu():
    with pytest.raises(
        ValueError, match='kernel layer_norm: found implementation "cpu" for a model on cuda'
    ):
        build_kernel_set(KernelConfig(layer_norm="cpu"), "cuda")


def test_an_unknown_name_is_an_error_that_lists_what_exists():
    with pytest.raises(
        ValueError,
        match=r"kernel self_attention: found implementation 'magic', expected one of \['auto', 'reference', 'cpu', 'compiled', 'triton'\]",
    ):
        build_kernel_set(KernelConfig(self_attention="magic"), "cpu")


def test_asked_for_and_impossible_is_an_error_with_the_reason():
    shapes = KernelShapes(max_transition_channels=384)
    with pytest.raises(
        ValueError,
        match="kernel transition: transition holds rows of at most 256 channels, found 384; set that field",
    ):
        build_kernel_set(KernelConfig(transition="triton"), "cpu", shapes)


def test_without_triton_the_error_says_how_to_get_it(monkeypatch):
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
def test_compiled_operations_equal_the_plain_ones_and_are_compiled_once():
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
def test_the_cache_of_compiled_operations_serves_several_processors(tmp_path):
    # the first process fills the cache with code for this processor, the second has no vectors
    for capability in (torch.backends.cpu.get_cpu_capability().lower(), "default"):
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
            "ATEN_CPU_CAPABILITY": capability,
        }
        command = [sys.executable, "-c", COMPARISON]
        shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert shown.returncode == 0, f"{capability}: {shown.stderr[-3000:]}"


def test_not_every_operation_is_compiled():
    with pytest.raises(
        ValueError,
        match='kernel weight_update: there is no implementation "compiled", as it works in place',
    ):
        build_kernel_set(KernelConfig(weight_update="compiled"), "cpu")
