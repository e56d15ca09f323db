"""Preflight captures a CUDA graph in a subprocess, which a stub replaces here."""

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmark.finding import Finding
from benchmark.preflight import capture, capture_probe
from benchmark.preflight.capture import check_capture
from benchmark.preflight.capture_probe import probe, small_config
from benchmark.preflight.command import lines_by_host
from benchmark.presets import build_preset
from openfold_opt.train.graphs.recorder import CaptureError
from tests.support.operator_recorder import OperatorRecorder
from tests.support.synthetic_samples import tiny_config

MESSAGES = "a warning\na CUDA graph could not be recorded: set cuda_graphs=False\n"
CPU = torch.device("cpu")


def check(monkeypatch, end, *, preset="mlperf_1x8", num_gpus=8, phase=None) -> Finding:
    """end: result of the subprocess; None if it must not be started."""
    phases = [] if phase is None else [phase]

    def run(command, **options):
        # 128 samples per step on 8 ranks with one sample each.
        accumulation = "16"
        module = "benchmark.preflight.capture_probe"
        assert command == [sys.executable, "-m", module, preset, accumulation, *phases]
        assert options["timeout"] == 60
        if isinstance(end, Exception):
            raise end
        return end

    monkeypatch.setattr(capture.subprocess, "run", run)
    config = build_preset(preset)
    return check_capture(config, preset, phase=phase, num_gpus=num_gpus, timeout_seconds=60)


def line_of(finding: Finding) -> str:
    (line,) = lines_by_host({"node": [finding]})
    return line


def test_a_capture_that_succeeds(monkeypatch):
    found = check(monkeypatch, SimpleNamespace(returncode=0, stdout="", stderr=""))
    assert found.passed and line_of(found).startswith("PASS CUDA graphs: a small step")


def test_the_probe_gets_the_phase(monkeypatch):
    end = SimpleNamespace(returncode=0, stdout="", stderr="")
    assert check(monkeypatch, end, phase="second").passed


def test_a_capture_that_fails_shows_the_last_message(monkeypatch):
    found = check(monkeypatch, SimpleNamespace(returncode=1, stdout="", stderr=MESSAGES))
    assert not found.passed and line_of(found).startswith("FAIL CUDA graphs: ")
    assert "exit code 1: a CUDA graph could not be recorded: set cuda_graphs=False" in found.text


def test_a_subprocess_that_dies_without_a_message(monkeypatch):
    found = check(monkeypatch, SimpleNamespace(returncode=-11, stdout="", stderr=""))
    assert not found.passed and "exit code -11: no message" in found.text


def test_a_capture_that_does_not_end(monkeypatch):
    found = check(monkeypatch, subprocess.TimeoutExpired("probe", 60))
    assert not found.passed and "did not end within 60 s" in found.text


@pytest.mark.parametrize(
    ("preset", "num_gpus", "reason"),
    [("mlperf_1x8", 0, "this node has no GPU"), ("mlperf_reference", 8, "cuda_graphs=False")],
)
def test_a_note_says_why_the_capture_was_skipped(monkeypatch, preset, num_gpus, reason):
    found = check(monkeypatch, None, preset=preset, num_gpus=num_gpus)
    assert found.passed and reason in found.text
    assert line_of(found).startswith("NOTE CUDA graphs: ") and "not tried" in found.text


def test_the_probe_keeps_kernels_precision_and_widths():
    preset = build_preset("mlperf_128x8_dap8")
    small = small_config(preset)
    assert (small.kernels, small.precision, small.cuda_graphs) == (preset.kernels, "bf16", True)
    assert (small.model.c_m, small.model.c_z) == (preset.model.c_m, preset.model.c_z)
    assert small.model.evoformer_stack.num_blocks == 1 and small.data.crop_size == 64
    assert small_config(build_preset("mlperf_1x8")).accumulation == 2


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_probe_compares_replayed_with_eager_steps(accumulation):
    config = small_config(tiny_config(accumulation=accumulation))
    recorder = OperatorRecorder()
    probe(config, CPU, recorder)
    assert recorder.num_replays == (2 if accumulation == 1 else 6)


def test_the_probe_finds_a_replay_that_computes_something_else():
    class Broken(OperatorRecorder):
        def record(self, work):
            recording = super().record(work)
            # The first matrix product does not write its result.
            names = [str(call.operator) for call in recording.calls]
            first = next(i for i, name in enumerate(names) if "mm" in name)
            call = dataclasses.replace(recording.calls[first], operator=lambda *args, **kwargs: ())
            recording.calls[first] = call
            return recording

    with pytest.raises(ValueError, match="a replayed step with 1 recycling iterations has loss"):
        probe(small_config(tiny_config()), CPU, Broken())


def test_the_message_of_a_failed_probe_is_one_line_on_stderr(monkeypatch, capsys):
    def fail(*args):
        raise CaptureError("a CUDA graph could not be recorded")

    config = dataclasses.replace(tiny_config(), precision="fp32")
    monkeypatch.setattr(capture_probe, "build_preset", lambda name: config)
    monkeypatch.setattr(capture_probe, "CudaRecorder", lambda device: None)
    monkeypatch.setattr(capture_probe, "probe", fail)
    monkeypatch.setattr(sys, "argv", ["capture_probe", "tiny"])
    assert capture_probe.main() == 1
    assert capsys.readouterr().err == "a CUDA graph could not be recorded\n"
