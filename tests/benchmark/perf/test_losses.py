"""`perf losses`: runs of a tiny model, an injected fault, refused options, synthetic losses."""

import dataclasses
import json

import pytest
import torch

from benchmark.__main__ import main
from benchmark.perf import losses
from benchmark.perf.subprocesses.losses_probe import RunSettings, configuration, perturbed
from benchmark.perf.tools.loss_windows import (
    Side,
    compare,
    diverging,
    first_step_at,
    largest_of_first_steps,
    ranges,
    summarize,
)
from benchmark.perf.tools.perf_record import from_json
from benchmark.presets import build_preset
from data_prep.progress import Progress
from tests.support.synthetic_samples import MemorySource
from tests.support.tiny_losses_probe import build_tiny

STEPS = 12
SETTINGS = RunSettings(
    preset="demo",
    data_dir="",
    steps=50,
    seed=1,
    kernels="reference",
    precision="fp32",
    graphs=False,
    pads=False,
    perturbation=0.0,
)


def use_tiny_probe(monkeypatch):
    monkeypatch.setattr(losses, "PROBE", "tests.support.tiny_losses_probe")
    monkeypatch.setattr(losses, "ShardDataSource", lambda data_dir: MemorySource())
    monkeypatch.setattr(losses, "build_preset", lambda name: build_tiny())
    # The probe interprets the names of kernels as faults to inject.
    monkeypatch.setattr(losses, "device_for", lambda *_, **__: None)


@pytest.fixture
def tiny(monkeypatch):
    use_tiny_probe(monkeypatch)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """Metrics of a command with one run of each kind."""
    folder = tmp_path_factory.mktemp("losses")
    record = folder / "losses.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_tiny_probe(monkeypatch)
        options = [
            "--data-dir",
            str(folder),
            "--steps",
            str(STEPS),
            "--perturbed",
            "1",
            "--json",
            str(record),
        ]
        assert main(["perf", "losses", *options]) == 0
    return from_json(losses.METRICS, json.loads(record.read_text())["figures"])


def test_the_fast_run_agrees(metrics):
    text = losses.report(metrics)
    assert (
        "losses agree: at most" in text
        and "\n1-10 " in text
        and "\n11-12 " in text
        and "without graphs" in text
    )
    expected = "demo_one_phase, 12 steps, auto kernels in bf16: losses agree"
    assert losses.headline(metrics).startswith(expected)
    sides = metrics.sides
    assert list(sides) == ["fast", "plain", "perturbed 1", "seed 2"]
    assert all(len(side.losses) == len(side.gradient_norms) == STEPS for side in sides.values())
    assert [step for step, _ in sides["plain"].evaluations] == [4, 8, 12]
    # bf16 and perturbed weights change the losses slightly.
    differences = largest_of_first_steps(sides, "losses")
    assert 0.0 < differences["fast"] < 1e-2 and 0.0 < differences["perturbed 1"] < 1e-2


def test_a_different_learning_rate_is_detected(metrics, tiny):
    settings = dataclasses.replace(SETTINGS, steps=STEPS, kernels="triton")
    faulty = losses.run_side("fast", settings, Progress(None, what="", unit="step", is_silent=True))
    sides = metrics.sides | {"fast": faulty}
    assert diverging(compare(sides, "losses"))
    assert "LOSSES DO NOT AGREE" in losses.report(dataclasses.replace(metrics, sides=sides))


def test_a_loss_that_is_not_finite_is_an_error(tiny, tmp_path, capsys):
    record = tmp_path / "losses.json"
    options = [
        "--data-dir",
        str(tmp_path),
        "--steps",
        "8",
        "--kernels",
        "cpu",
        "--json",
        str(record),
    ]
    assert main(["perf", "losses", *options]) == 2
    error = capsys.readouterr().err
    assert (
        "is not finite" in error
        and "chain3" in error
        and "the run 'fast' ended with exit code 1" in error
    )
    assert not record.exists()


def test_impossible_measurements_are_refused(tmp_path, monkeypatch, capsys):
    def error_of(*options):
        assert main(["perf", "losses", "--data-dir", str(tmp_path / "shards"), *options]) == 2
        return capsys.readouterr().err

    assert "at least 1" in error_of("--steps", "0")
    assert str(tmp_path / "shards") in error_of()
    monkeypatch.setattr(losses, "ShardDataSource", lambda data_dir: MemorySource())
    assert "MLCommons' checkpoint" in error_of("--preset", "mlperf_fast", "--graphs", "off")
    assert "start 2" in error_of("--preset", "demo_dap2")
    if not torch.cuda.is_available():
        assert "needs a GPU" in error_of("--graphs", "on")
    with pytest.raises(SystemExit):
        main(["perf", "losses", "--preset", "nowhere", "--data-dir", str(tmp_path)])
    assert "nowhere" in capsys.readouterr().err


def test_graphs_use_padded_samples():
    settings = dataclasses.replace(
        SETTINGS, kernels="triton", precision="bf16", graphs=True, pads=True
    )
    config = configuration(build_preset("real_smoke"), settings)
    assert (
        config.cuda_graphs
        and config.data.pad_to_crop
        and config.device == "cuda"
        and config.max_steps == config.evaluation.every_steps == 50
    )
    settings = dataclasses.replace(settings, steps=200)
    assert configuration(build_preset("demo_one_phase"), settings).evaluation.every_steps == 100


def test_perturbed_weights_differ_by_a_rounding_error():
    weights = {
        "a": torch.randn(1000, generator=torch.Generator().manual_seed(0)),
        "b": torch.zeros(3),
    }
    changed = perturbed(weights, perturb=2.0**-9, seed=1)
    change = (changed["a"] / weights["a"] - 1.0).abs()
    assert 2.0**-10 < change.max() < 1.01 * 2.0**-9 and torch.equal(changed["b"], weights["b"])
    assert not torch.equal(changed["a"], perturbed(weights, perturb=2.0**-9, seed=2)["a"])


def side(values):
    return Side(
        losses=values,
        gradient_norms=[],
        evaluations=[[10, 0.5], [20, 0.8], [30, 0.9]],
        device="cpu",
        seconds_per_step=1.0,
        num_eager_steps=None,
    )


def test_windows_and_summary_of_synthetic_losses():
    assert ranges(200) == [(1, 10), (11, 50), (51, 100), (101, 200)]
    assert ranges(7) == [(1, 7)] and ranges(1200)[-2:] == [(501, 1000), (1001, 1200)]
    reference = [10.0] * 20
    sides = {
        "plain": side(reference),
        "perturbed 1": side([10.1] * 20),
        "perturbed 2": side([9.9, 10.2] * 10),
        "seed 2": side([12.0] * 20),
    }
    sides["fast"] = side([10.3, 9.7] * 5 + [10.6] * 10)
    first, second = compare(sides, "losses")
    assert first.shift == pytest.approx(0.0) and first.fast_difference == pytest.approx(0.03)
    assert (
        first.perturbed_difference == pytest.approx(0.015)
        and first.times_perturbed == pytest.approx(2.0)
        and first.seeds_difference == pytest.approx(0.2)
    )
    assert diverging([first, second]) == [second] and "11-20 (4 times)" in summarize(sides)
    assert largest_of_first_steps(sides, "losses")["fast"] == pytest.approx(0.03)
    sides["fast"] = side(reference)
    assert summarize(sides).startswith("losses agree")
    assert first_step_at(sides["fast"], 0.8) == 20 and first_step_at(sides["fast"], 0.95) is None
