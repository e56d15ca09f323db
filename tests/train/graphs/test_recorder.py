"""A failed capture names the operation and cuda_graphs. A substitute raises the errors of CUDA."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from openfold_opt.kernels.reference.layer_norm import layer_norm
from openfold_opt.train import warm_up as warm_up_module
from openfold_opt.train.errors import SetupError
from openfold_opt.train.graphs.recorder import CaptureError, CudaRecorder
from tests.support.recording_observer import train
from tests.support.synthetic_samples import tiny_config
from tests.support.tiny_steps import as_if_on_a_gpu

NOT_PERMITTED = "operation not permitted when stream is capturing"
REFUSED = f"CUDA error: {NOT_PERMITTED}\nCUDA kernel errors might be ..."


class Refusing(TorchDispatchMode):
    """Makes layer_norm an operator that a capture does not permit."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket._qualified_op_name == "aten::native_layer_norm":
            raise RuntimeError(REFUSED)
        return func(*args, **(kwargs or {}))


class FakeCapture:
    """Replaces torch.cuda.graph, whose exit raises a second error after a failed capture."""

    def __init__(self, graph, **options) -> None:
        assert options["capture_error_mode"] == "thread_local"
        self._mode = Refusing()

    def __enter__(self) -> None:
        self._mode.__enter__()

    def __exit__(self, kind, error, trace) -> None:
        self._mode.__exit__(kind, error, trace)
        if error is not None:
            raise RuntimeError("CUDA error: failed due to a previous error during capture")


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "graph", FakeCapture)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(reset=lambda: None))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(CudaRecorder, "warm_up_run", lambda self, work: work())


def test_a_failed_capture_names_the_operation_and_the_remedy():
    recorder = CudaRecorder(torch.device("cuda"))
    with pytest.raises(CaptureError) as caught:
        one = torch.ones(3)
        recorder.record(lambda: layer_norm(torch.ones(2, 3), one, one, eps=1e-5))
    text = str(caught.value)
    assert f"{NOT_PERMITTED} (at openfold_opt/kernels/reference/layer_norm.py:" in text
    assert "in layer_norm: return F.layer_norm(" in text
    assert "set cuda_graphs=False in the preset" in text and "previous error" not in text
    assert str(caught.value.__cause__) == REFUSED


def test_a_capture_that_fails_outside_any_operation_says_so():
    def leave_stream_open() -> None:
        raise RuntimeError("CUDA error: unjoined work")

    message = r"unjoined work \(at the beginning or the end of the capture\)"
    with pytest.raises(CaptureError, match=message):
        CudaRecorder(torch.device("cuda")).record(leave_stream_open)


def test_a_run_ends_with_a_setup_error_and_releases_its_graphs(tmp_path, monkeypatch):
    released = []
    monkeypatch.setattr(
        warm_up_module.StepGraphs, "release", lambda self: released.append("step graphs")
    )
    config = tiny_config()
    short = dataclasses.replace(config.selection, validation_max_length=60)
    config = as_if_on_a_gpu(dataclasses.replace(config, selection=short))
    with pytest.raises(SetupError, match="set cuda_graphs=False in the preset"):
        train(config, tmp_path)
    assert released == ["step graphs"]
