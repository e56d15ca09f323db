"""`perf host`: counts and times of a reference whose operations are known."""

import argparse
import dataclasses
import json
import sys
import textwrap
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf import host
from benchmark.perf.host import HostMetrics
from benchmark.perf.tools import mlcommons_reference
from benchmark.perf.tools.mlcommons_reference import Reference
from benchmark.perf.tools.options import checked_reference
from benchmark.perf.tools.perf_record import to_json

STACK = "from torch.utils.checkpoint import checkpoint as gradient_checkpointing_fn\n"
SOURCES = {
    "config.py": """
        import dataclasses

        @dataclasses.dataclass(unsafe_hash=True)
        class Part:
            c_m: int = 256
            c_out: int = 23

        @dataclasses.dataclass
        class AlphaFoldConfig:
            part: Part = dataclasses.field(default_factory=Part)
            loss_config: int = 0

            @classmethod
            def from_preset(cls, stage):
                return cls()
    """,
    "loss.py": """
        class AlphaFoldLoss:
            def __init__(self, config):
                pass

            def __call__(self, outputs, batch):
                return outputs.sum(), {}
    """,
    "model/alphafold.py": """
        import torch
        from openfold.model import evoformer_stack

        class AlphaFold(torch.nn.Module):
            def __init__(self, config):
                super().__init__()
                assert (config.part.c_m, config.part.c_out) == (8, 23)
                self.weight = torch.nn.Parameter(torch.ones(8))

            def forward(self, batch):
                value = self.weight
                for _ in range(batch["target_feat"].shape[-1]):
                    value = evoformer_stack.block(value)
                return value
    """,
    "model/evoformer_stack.py": STACK
    + """
        def block(value):
            return gradient_checkpointing_fn(lambda x: x.sin().view(8), value)
    """.replace("\n        ", "\n"),
    "model/extra_msa_stack.py": STACK,
    "model/template_pair_stack.py": STACK,
    "swa.py": """
        class AlphaFoldSWA:
            def __init__(self, alphafold, enabled, decay_rate):
                self.average = alphafold.weight.detach().clone()

            def update(self, model):
                self.average.mul_(0.5)
    """,
}


@pytest.fixture
def reference(tmp_path):
    for name, text in SOURCES.items():
        path = tmp_path / "openfold" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return Reference(checkout=tmp_path, python=sys.executable)


@pytest.fixture
def metrics(reference):
    return host.measure_reference(reference, repeats=3)


def test_launches_and_views_of_each_part(metrics):
    assert metrics.parameters == 1
    launches, views = metrics.launches, metrics.views
    assert launches["forward pass"] == launches["recycling iteration"] == 1
    assert views["forward pass"] == views["recycling iteration"] == 1
    assert launches["losses"] == 1 and launches["average"] == 1
    recomputed = launches["backward pass"] - launches["backward pass without recomputation"]
    assert recomputed == 1


def test_the_parts_are_timed(metrics):
    timed = {part: len(seconds) for part, seconds in metrics.seconds.items()}
    assert set(timed.values()) == {3}
    assert timed.keys() == metrics.launches.keys() - {"backward pass without recomputation"}


def test_a_failing_step_of_the_reference_is_an_error(reference, capsys):
    (reference.checkout / "openfold" / "loss.py").write_text("raise SystemExit('no loss')")
    with pytest.raises(BenchmarkError, match="training step ended with exit code 1"):
        host.measure_reference(reference, repeats=1)
    assert "no loss" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "print('bye')", "print('{}')", "print('[' * 100_000)"])
def test_an_unexpected_last_line_is_an_error(reference, text):
    path = reference.checkout / "openfold" / "loss.py"
    path.write_text(f"{path.read_text()}\nimport atexit\natexit.register(lambda: {text or None})")
    if not text:
        reference = dataclasses.replace(reference, python="/bin/true")
    with pytest.raises(BenchmarkError, match="expected JSON with its times") as error:
        host.measure_reference(reference, repeats=1)
    assert len(str(error.value)) < 500


def test_the_interpreter_is_the_one_that_the_options_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in mlcommons_reference._NEEDED:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    Path("python").write_text("#!/bin/sh\nexit 3")
    Path("python").chmod(0o755)
    options = ["perf", "host", "--reference", str(tmp_path), "--reference-python"]
    assert main([*options, "./python"]) == 2
    assert "ended with exit code 3" in capsys.readouterr().err
    Path("python").write_text("#!/bin/sh\nexit 0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("./python", "python"):
        parsed = argparse.Namespace(reference=tmp_path, reference_python=name)
        assert checked_reference(parsed).python == str(tmp_path / "python")


def test_the_report_has_the_time_of_a_launch():
    parts = {"forward pass": 100, "recycling iteration": 100, "losses": 100, "backward pass": 100}
    loops = {"Adam": 100, "average": 100}
    launches = {**parts, "backward pass without recomputation": 50, **loops}
    metrics = HostMetrics(
        parameters=5,
        launches=launches,
        views=dict.fromkeys(launches, 7),
        seconds=dict.fromkeys(parts, [1e-3, 2e-3, 9.0]) | dict.fromkeys(loops, [5e-4]),
    )
    text = host.report(metrics)
    assert "20.0 us for a launch of the model, 5.0 us for one of a loop over 5 tensors" in text
    assert json.loads(json.dumps(to_json(metrics)))["launches"] == launches


def test_options_are_checked(capsys):
    assert main(["perf", "host"]) == 2
    assert "--reference is missing" in capsys.readouterr().err
    assert main(["perf", "host", "--repeats", "0"]) == 2
    assert "--repeats 0: expected at least 1" in capsys.readouterr().err
