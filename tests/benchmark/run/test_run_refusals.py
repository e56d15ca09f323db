"""Refusals of `benchmark run` before it writes anything: a message and exit code 2."""

import dataclasses
import errno
import signal

import pytest
import torch

from benchmark.__main__ import main
from benchmark.presets import build_preset, preset_names
from benchmark.run import command as run_command
from benchmark.run import request as run_request
from benchmark.run.signals import Terminated
from openfold_opt.train import phase_runner
from openfold_opt.train.graphs.recorder import CaptureError
from tests.support.synthetic_samples import tiny_config


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    """Add a preset `tiny`, which needs no GPU."""
    monkeypatch.setattr(
        run_request,
        "build_preset",
        lambda name: tiny_config() if name == "tiny" else build_preset(name),
    )


def run(tmp_path, preset="tiny", *flags, data=None):
    data = tmp_path / "shards" if data is None else data
    return main(
        [
            "run",
            "--preset",
            preset,
            "--data-dir",
            str(data),
            "--output-dir",
            str(tmp_path / "out"),
            *flags,
        ]
    )


@pytest.fixture
def refused(tmp_path, capsys):
    """Return a function that starts a run, which must be refused, and returns the message."""

    def check(*args, **keywords):
        assert run(tmp_path, *args, **keywords) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("benchmark run: ")
        assert "Traceback" not in captured.err
        assert not (tmp_path / "out" / "mlperf.log").exists()
        return captured.err

    return check


def test_unknown_preset(refused):
    message = refused("dmeo")
    assert "unknown preset 'dmeo'" in message
    for name in preset_names():
        assert name in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_preset_that_needs_a_gpu(refused):
    assert build_preset("mlperf_reference").device == "cuda"
    message = refused("mlperf_reference")
    assert "needs a GPU" in message and "(demo, own_data, real_smoke)" in message


def test_ranks_that_the_preset_cannot_use(refused):
    assert "start 2, for instance by torchrun --nproc-per-node 2" in refused("demo_dap2")


def test_ranks_that_cannot_make_the_global_batch(refused, monkeypatch):
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
    for name, value in (ranks | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29876"}).items():
        monkeypatch.setenv(name, value)
    message = refused("demo_dap2")
    assert "global_batch_size=2 is not a multiple of 4 = 2 data-parallel ranks" in message


def test_an_accumulation_that_does_not_make_the_global_batch(refused):
    message = refused("demo_one_phase", "--set", "accumulation=4")
    assert (
        "--set accumulation=4: it follows from global_batch_size=2 and the ranks, and is 1; set "
        "global_batch_size" in message
    )
    assert "data_prep convert" in refused("demo_one_phase", "--set", "accumulation=1")


def test_missing_data_directory(refused):
    message = refused()
    assert "does not exist" in message and "data_prep convert" in message


def test_empty_data_directory(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(data=tmp_path / "empty")


def test_a_directory_without_shards(refused, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"x")
    assert "expected shards made by" in refused(data=folder)


def test_missing_checkpoint(refused, tmp_path):
    message = refused("tiny", "--init-checkpoint", str(tmp_path / "absent.pt"))
    assert "absent.pt is not a file" in message


def test_a_distillation_set_and_its_probability_need_each_other(refused, tmp_path):
    message = refused("demo", "--set", "selection.distillation_probability=0.75")
    assert "there is no distillation set; name its shards with --distillation-data-dir" in message
    message = refused("demo", "--distillation-data-dir", str(tmp_path))
    assert "would not be used, because selection.distillation_probability is 0" in message


def test_seed_out_of_range(refused):
    assert "seed -1 is out of range" in refused("tiny", "--seed", "-1")


@pytest.fixture
def tiny(monkeypatch):
    """Return a function that changes fields of the preset. The data set is empty."""

    def replace(**changes):
        config = dataclasses.replace(tiny_config(), **changes)
        monkeypatch.setattr(run_request, "build_preset", lambda name: config)

        class Index:
            checksum = "none"
            shards = ()

            @classmethod
            def load(cls, data_dir):
                return cls()

        class Source:
            def __init__(self, data_dir):
                pass

            def checksum(self):
                return "none"

        monkeypatch.setattr(run_command, "data_checksum", lambda *folders: "none")
        monkeypatch.setattr("benchmark.run.page_cache.ShardIndex", Index)
        monkeypatch.setattr(run_command, "ShardDataSource", Source)
        return config

    return replace


def refused_checkpoint(tmp_path, capsys, content):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert run(tmp_path, "tiny", "--init-checkpoint", str(path)) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message and "weights.pt" in message
    # Nothing was trained, so the directory is accepted again.
    assert run(tmp_path, "tiny", "--init-checkpoint", str(path)) == 2
    assert "weights.pt" in capsys.readouterr().err
    return message


@pytest.fixture
def weights():
    from openfold_opt.model.alphafold import AlphaFold

    return AlphaFold(tiny_config().model).state_dict()


def test_a_damaged_checkpoint(tiny, tmp_path, capsys):
    tiny()
    message = refused_checkpoint(tmp_path, capsys, b"PK\x03\x04 cut off")
    assert "it was cut short or damaged, so fetch it again" in message


def test_checkpoint_with_a_missing_tensor(tiny, tmp_path, capsys, weights):
    tiny()
    name = next(iter(weights))
    message = refused_checkpoint(
        tmp_path, capsys, {key: value for key, value in weights.items() if key != name}
    )
    assert "missing" in message and name in message


def test_checkpoint_with_an_extra_tensor(tiny, tmp_path, capsys, weights):
    tiny()
    message = refused_checkpoint(
        tmp_path, capsys, dict(weights) | {"surplus.weight": torch.zeros(3)}
    )
    assert "surplus.weight" in message


def test_checkpoint_with_a_misshapen_tensor(tiny, tmp_path, capsys, weights):
    tiny()
    name = next(iter(weights))
    message = refused_checkpoint(tmp_path, capsys, dict(weights) | {name: torch.zeros(5, 7)})
    expected = ", ".join(map(str, weights[name].shape))
    assert name in message and "5, 7" in message and expected in message


def test_checkpoint_of_another_sha256(tiny, tmp_path, capsys, weights):
    tiny(init_checkpoint_sha256="0" * 64)
    assert f"expected {'0' * 64}" in refused_checkpoint(tmp_path, capsys, weights)


def test_closed_preset_without_its_checkpoint(tiny, tmp_path, capsys):
    tiny(init_checkpoint_sha256="0" * 64)
    assert run(tmp_path) == 2
    assert "--init-checkpoint" in capsys.readouterr().err


def test_a_failed_capture_of_a_cuda_graph(tiny, tmp_path, capsys, monkeypatch):
    """tests/train/graphs/test_recorder.py tests the text of the error."""

    def fail(*args, **options):
        raise CaptureError("a CUDA graph could not be recorded: set cuda_graphs=False")

    monkeypatch.setattr(phase_runner, "warm_up", fail)
    tiny()
    assert run(tmp_path) == 2
    message = capsys.readouterr().err
    assert "benchmark run: a CUDA graph could not be recorded: set cuda_graphs=False" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (OSError(errno.EIO, "Input/output error", "shard.h5"), 2, "failed: OSError"),
        (Terminated(signal.SIGTERM), 143, "interrupted: a signal ended the run at once"),
    ],
)
def test_an_end_while_the_page_cache_is_cleared_is_recorded(
    tiny, tmp_path, capsys, monkeypatch, error, code, outcome
):
    def fail(files):
        raise error

    monkeypatch.setattr(run_command, "clear_page_cache", fail)
    tiny()
    assert run(tmp_path) == code
    assert main(["status", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith(outcome)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run.json", "run.lock"]
