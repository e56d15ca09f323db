"""`perf counts`: operations of known sizes, and the bytes that fused kernels save."""

import json

import pytest
import torch
from torch import nn

from benchmark.__main__ import main
from benchmark.perf.tools.counting import Counter, count_each
from openfold_opt.kernels.triton.layer_norm import layer_norm

META = torch.device("meta")


def test_a_matrix_product_counts_and_a_view_does_not():
    a, b = torch.empty(3, 5, device=META), torch.empty(5, 7, device=META)
    with Counter() as counter:
        (a @ b).t()
    assert counter.counts.flops == 2 * 3 * 5 * 7
    assert counter.counts.bytes == 4 * (3 * 5 + 5 * 7 + 3 * 7) and counter.counts.launches == 1


def test_expanded_elements_count_once():
    a, b = torch.empty(8, 1, device=META).expand(8, 100), torch.empty(8, 100, device=META)
    with Counter() as counter:
        a + b
    assert counter.counts.bytes == 4 * (8 + 800 + 800)


def test_a_fused_operation_counts_the_operands_of_its_launch():
    x, weight, bias = (
        torch.empty(10, 64, device=META),
        torch.empty(64, device=META),
        torch.empty(64, device=META),
    )
    with Counter() as counter:
        layer_norm(x, weight, bias, eps=1e-5)
    assert counter.counts.launches == 1
    assert counter.counts.bytes == 4 * (2 * 640 + 2 * 64 + 2 * 10)


def test_forward_and_backward_of_single_modules():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).to(META)
    x = torch.empty(5, 4, device=META, requires_grad=True)
    first, _ = count_each(lambda: model(x), (model[0], model[2]))
    assert first.forward.flops == 2 * 5 * 4 * 6
    assert first.backward.flops == 2 * first.forward.flops


def test_fused_kernels_move_a_third_of_the_bytes_of_an_evoformer_block(tmp_path):
    record = tmp_path / "counts.json"
    assert main(["perf", "counts", "--json", str(record)]) == 0
    variants = json.loads(record.read_text())["figures"]["variants"]
    reference, fused = (
        variants[name]["Evoformer block"]["whole block"]
        for name in ("reference bf16", "triton bf16")
    )

    def total(block):
        return block["forward"]["bytes"] + block["backward"]["bytes"]

    assert total(reference) / total(fused) >= 3.0
    # A recycling iteration costs a third of the pass with gradient; 1.5 of them and the pass with
    # gradient are 53 TFLOP.
    whole = variants["reference tf32"]
    step = whole["forward and backward"]["flops"] + 1.5 * whole["forward"]["flops"]
    assert step / 1e12 == pytest.approx(53.0, abs=0.5)
