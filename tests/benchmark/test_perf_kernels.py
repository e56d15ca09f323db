"""`perf kernels` on a CPU at the demo's shapes."""

import json

import pytest
import torch

from benchmark.__main__ import main
from benchmark.perf.kernel_cases import CaseMaker
from benchmark.perf.kernel_peers import attention_peers, core_leaves
from benchmark.presets import build_preset
from openfold_opt.kernels.reference.attention import attention
from openfold_opt.kernels.select import REFERENCE

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_operation_with_gradients_has_a_case_that_runs(precision):
    cases = list(CaseMaker(build_preset("demo"), device=CPU, precision=precision).cases())
    assert {case.operation for case in cases} == set(REFERENCE) - {"dropout_masks", "weight_update"}
    for case in cases:
        results = case.call(REFERENCE[case.operation])(*case.leaves)
        results = results if isinstance(results, tuple) else (results,)
        gradients = torch.autograd.grad(results, case.leaves, [torch.ones_like(x) for x in results])
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_attention_of_pytorch_is_asked_for_the_same():
    for case in CaseMaker(build_preset("demo"), device=CPU, precision="fp32").cases():
        if case.attention is None:
            continue
        sizes = case.attention
        projected, bias = core_leaves(sizes, dtype=torch.float32, device=CPU)
        found = attention_peers(sizes, projected, bias)["SDPA"]().transpose(-2, -3).flatten(-2).unflatten(0, (sizes.batch, sizes.groups))
        mask = torch.ones(sizes.batch, sizes.groups, sizes.length)
        gate = projected[..., -sizes.num_heads * sizes.c_head :]
        ours = attention(projected, num_heads=sizes.num_heads, mask=mask, mask_inf=1e9, bias=bias)
        torch.testing.assert_close(found * torch.sigmoid(gate), ours, rtol=1e-4, atol=1e-5)


def test_table_and_record(tmp_path, capsys):
    record = tmp_path / "kernels.json"
    assert main(["perf", "kernels", "--preset", "demo", "--repeats", "2", "--only", "triangle", "--json", str(record)]) == 0
    text = capsys.readouterr().out
    assert "triangle_update, triangle, and backward" in text and "GB/s" in text and "transition" not in text
    cases = json.loads(record.read_text())["figures"]["cases"]
    assert all(len(times["both"]) == 2 for case in cases for times in case["seconds"].values())
    assert {"ours", "plain"} <= set(cases[-1]["seconds"])


def test_a_failing_operation_is_recorded_and_the_others_are_measured(tmp_path, monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise RuntimeError("out of shared memory")

    monkeypatch.setitem(REFERENCE, "triangle_update", fails)
    record = tmp_path / "kernels.json"
    options = ["--preset", "demo", "--repeats", "1", "--only", "triangle", "--json", str(record)]
    assert main(["perf", "kernels", *options, "--without", "SDPA", "FlexAttention"]) == 1
    expected = "FAILED: triangle_update (triangle), plain: RuntimeError: out of shared memory"
    assert expected in capsys.readouterr().err
    figures = json.loads(record.read_text())["figures"]
    cases = {case["operation"]: case for case in figures["cases"]}
    assert "ours" in cases["triangle_update"]["seconds"] and len(figures["failures"]) == 1
    assert {"ours", "plain"} <= set(cases["triangle_edges"]["seconds"])
    assert "SDPA" not in cases["attention core"]["seconds"]


def test_nothing_to_measure_is_an_error(capsys):
    assert main(["perf", "kernels", "--preset", "demo", "--only", "magic", "--repeats", "1"]) == 2
    assert "--only magic" in capsys.readouterr().err
