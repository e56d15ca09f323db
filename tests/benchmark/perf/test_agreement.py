"""`perf agreement`: a step that agrees, injected errors, and a variant that fails."""

import json

import pytest
import torch

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf import agreement
from benchmark.perf.agreement import FUSED, LOW, TRUTH, compare, excesses
from benchmark.perf.subprocesses.agreement_probe import VariantResult
from benchmark.perf.tools.headline import headline
from benchmark.perf.tools.perf_record import to_json


def variants(**losses):
    """Return results of three variants; the loss of the bf16 reference is off by one percent."""
    values = {TRUTH: 1.0, LOW: 1.01, FUSED: losses.get("fused", 1.005)}
    return {
        name: VariantResult(
            losses={"fape": value},
            gradient_norm=5.0 * value,
            peak_memory_bytes=2**30,
            device="cpu",
        )
        for name, value in values.items()
    }


def gradients(*, fused=1.01):
    """Return gradients of two model parts; those of the bf16 reference are off by one percent."""
    truth = {"evoformer_stack.w": torch.tensor([3.0, 4.0]), "structure_module.w": torch.ones(4)}
    factors = {TRUTH: 1.0, LOW: 1.01, FUSED: fused}
    return {
        name: {key: factor * value for key, value in truth.items()}
        for name, factor in factors.items()
    }


def test_errors_of_twice_the_reference_are_allowed():
    errors = compare(variants(), gradients())
    assert errors["losses"].fused == pytest.approx(0.005)
    assert errors["losses"].allowed == pytest.approx(0.02)
    names = [
        "losses",
        "gradient norm",
        "gradient of all",
        "gradient of evoformer_stack",
        "gradient of structure_module",
    ]
    assert list(errors) == names
    assert excesses(errors) == []


@pytest.mark.parametrize(
    "losses, gradient, quantity",
    [
        ({"fused": 1.05}, {}, "losses"),
        ({"fused": 1.05}, {}, "gradient norm"),
        ({"fused": float("nan")}, {}, "losses"),
        ({}, {"fused": 1.03}, "gradient of evoformer_stack"),
        ({}, {"fused": float("nan")}, "gradient of all"),
    ],
)
def test_injected_errors_are_found(losses, gradient, quantity):
    lines = excesses(compare(variants(**losses), gradients(**gradient)))
    assert any(line.startswith(f"{quantity}: ") for line in lines), lines


def test_a_small_step_agrees(tmp_path, capsys):
    record = tmp_path / "agreement.json"
    assert (
        main(["perf", "agreement", "--preset", "demo", "--passes", "0", "--json", str(record)]) == 0
    )
    text = capsys.readouterr().out
    assert text.endswith("the steps agree\n") and "peak memory, MiB" in text
    metrics = json.loads(record.read_text())["figures"]
    assert list(metrics["variants"]) == [FUSED, LOW, TRUTH]
    assert all(variant["peak_memory_bytes"] > 10**8 for variant in metrics["variants"].values())
    # Rounding to bf16 changes the gradient of every part of the model, so none is zero.
    assert all(
        row["low"] > 1e-4
        for name, row in metrics["errors"].items()
        if name.startswith("gradient of")
    )
    assert headline("agreement", metrics).endswith("the steps agree")


def test_results_are_kept_when_a_variant_fails(tmp_path, monkeypatch, capsys):
    def probe(module, settings, *, name):
        if settings.kernels != "reference":
            raise BenchmarkError(f"{name} ended with exit code 1: out of shared memory")
        torch.save(gradients()[TRUTH], settings.gradients)
        yield to_json(variants()[TRUTH])

    monkeypatch.setattr(agreement, "run_probe", probe)
    record = tmp_path / "agreement.json"
    assert main(["perf", "agreement", "--preset", "demo", "--json", str(record)]) == 1
    shown = capsys.readouterr()
    assert "FAILED: the step with fused bf16 ended with exit code 1" in shown.err
    assert "could not be compared" in shown.out
    assert list(json.loads(record.read_text())["figures"]["variants"]) == [LOW, TRUTH]
