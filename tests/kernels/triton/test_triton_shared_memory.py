"""A chip with too little shared memory for a kernel is rejected before any launch."""

import pytest
import torch
from triton.runtime.errors import OutOfResources

from openfold_opt.kernels.chips import CHIPS, shared_bytes_of
from openfold_opt.kernels.interface import KernelConfig, KernelShapes
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.kernels.triton import (
    launching,
    normalized_residual,
    projected_residual_gradient,
)
from openfold_opt.kernels.triton.outer_product_mean import outer_product_mean
from openfold_opt.kernels.triton.tuning import shared_memory
from openfold_opt.model.config import ModelConfig
from openfold_opt.train.precision import PRECISIONS

LIMITS = [row.limit for row in OPERATIONS.values() if row.limit is not None]
WIDEST = {limit.kernels: limit.largest for limit in LIMITS if limit.kernels != "layer_norm"}
TRAINING_CAPABILITIES = (80, 90, 100)
"""Capabilities of the chips used for training, which support every operation."""


@pytest.fixture
def gpu(monkeypatch):
    """Return a function that makes PyTorch report a GPU of a compute capability."""

    def report(capability):
        pair = divmod(capability, 10)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: pair)

    return report


def test_the_table_has_the_largest_width_of_every_listed_operation():
    listed = {*WIDEST, *shared_memory.ONLY_GRADIENT}
    assert listed == set(shared_memory.SHARED_BYTES) == set(shared_memory.WIDTHS)
    widest_gradients = {
        "normalized_residual": normalized_residual.MAX_CHANNELS,
        "projected_residual_gradient": projected_residual_gradient.MAX_CHANNELS_OUT,
    }
    for operation, widest in (WIDEST | widest_gradients).items():
        assert max(shared_memory.SHARED_BYTES[operation]) == widest


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("capability", TRAINING_CAPABILITIES)
def test_every_width_fits_the_training_chips(precision, capability):
    for operation, widths in shared_memory.SHARED_BYTES.items():
        for width in widths:
            needed = shared_memory.bytes_needed(operation, width, precision, capability)
            assert 0 < needed <= shared_bytes_of(capability), (operation, width)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("capability", TRAINING_CAPABILITIES)
def test_the_benchmark_model_fits_the_training_chips(gpu, precision, capability):
    gpu(capability)
    shapes = ModelConfig().kernel_shapes()
    build_kernel_set(KernelConfig.all("triton"), "cuda", shapes, precision=precision)


def test_the_error_for_too_little_shared_memory_has_both_sizes(gpu):
    gpu(89)
    shapes = ModelConfig().kernel_shapes()
    config = KernelConfig(transition="triton")
    expected = (
        r"kernel transition: its Triton kernels need \d+ bytes of shared memory in bf16 "
        r"for a width of 256, and a chip of compute capability 8.9 has 101376; "
        r"set that field .*reference"
    )
    with pytest.raises(ValueError, match=expected):
        build_kernel_set(config, "cuda", shapes, precision="bf16")


def test_a_smaller_chip_accepts_kernels_that_fit(gpu):
    gpu(89)
    config = KernelConfig(layer_norm="triton", self_attention="triton")
    build_kernel_set(config, "cuda", KernelShapes(max_head_size=32), precision="bf16")


def test_an_unknown_chip_is_rejected(gpu):
    gpu(75)
    with pytest.raises(ValueError, match=r"kernel layer_norm: .* found 7.5 .*chips.py"):
        build_kernel_set(KernelConfig(layer_norm="triton"), "cuda", precision="fp32")


def test_the_error_for_a_launch_that_does_not_fit_names_kernel_and_fix():
    class TooLarge:
        fn = outer_product_mean.forward_kernel.fn

        def __getitem__(self, grid):
            def start(*args, **options):
                raise OutOfResources(262144, 101376, "shared memory")

            return start

    expected = r"outer_product_mean.kernels.forward_kernel: .*262144.*101376.*BLOCK_I.*reference"
    with pytest.raises(ValueError, match=expected):
        launching.launch(TooLarge(), (1,), BLOCK_I=16)


def test_chips_are_listed_once():
    names = [chip.name for chip in CHIPS]
    assert len(set(names)) == len(names)
    limits = {(chip.capability, chip.shared_bytes) for chip in CHIPS}
    assert len(limits) == len({capability for capability, _ in limits})
