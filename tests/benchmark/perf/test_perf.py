"""`perf`: statistics, tables, records, the MLCommons reference as a stub, and both loaders."""

import argparse
import importlib
import json
import sys
import textwrap
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmark.__main__ import main
from benchmark.perf import loader
from benchmark.perf.command import MEASUREMENTS
from benchmark.perf.subprocesses.reference_samples import make_dataclasses_hashable
from benchmark.perf.tools.perf_record import RecordFile, from_json, to_json
from benchmark.perf.tools.timing_stats import TimingStats, table
from data_prep.__main__ import main as data_prep
from openfold_opt.kernels import select

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
(TRITON,) = PROJECT["optional-dependencies"]["gpu"]
MEASURED = [
    path
    for name in ("comm", "data", "evaluation", "loader", "losses")
    for path in sorted((ROOT / "results" / "measured").glob(f"*_perf_{name}*.json"))
]


def test_timing_stats_and_their_ratio():
    ours, theirs = TimingStats.of([2.0, 1.0, 4.0]), TimingStats.of([30.0, 20.0, 10.0])
    assert (ours.median, ours.low, ours.high, ours.count) == (2.0, 1.0, 4.0, 3)
    ratio = theirs.ratio_to(ours)
    assert (ratio.median, ratio.low, ratio.high) == (10.0, 2.5, 30.0)
    assert ratio.text(1) == "10.0 (2.5 to 30.0)"
    assert ours.text(0, scale=1e3) == "2000 (1000 to 4000)"
    with pytest.raises(ValueError, match="no measurements"):
        TimingStats.of([])


def test_tables_are_aligned():
    assert table([["a", "1"], ["bcd", "20"]], header=["x", "n"]).splitlines() == [
        "x     n",
        "---  --",
        "a     1",
        "bcd  20",
    ]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    out = tmp_path_factory.mktemp("raw") / "raw"
    assert data_prep(["synthesize", "--out", str(out), "--chains", "4"]) == 0
    return [
        "--pdb-mmcif",
        str(out / "pdb_mmcif"),
        "--open-protein-set",
        str(out / "open_protein_set"),
    ]


@pytest.fixture(scope="module")
def data_dir(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "shards"
    assert data_prep(["convert", *raw, "--out", str(out)]) == 0
    return out


@pytest.fixture
def reference(tmp_path):
    """Return a stub of a checkout of mlcommons/hpc, with stubs of the packages that it imports."""
    root = tmp_path / "openfold_checkout"
    files = {
        "scripts/preprocess_pdb_mmcif.py": "import time; time.sleep(0.2)",
        "scripts/preprocess_open_protein_set.py": "",
        "openfold/__init__.py": "",
        "openfold/config.py": """
            from dataclasses import dataclass
            @dataclass
            class Inner:
                size: int = 1
            @dataclass
            class AlphaFoldConfig:
                inner: Inner = Inner()
                @classmethod
                def from_preset(cls, stage):
                    assert stage == "initial_training"
                    return cls()
        """,
        "openfold/datasets.py": """
            from types import SimpleNamespace
            import numpy as np
            class InitialTrainingDataset:
                def __init__(self, **paths):
                    self.mmcif_chains = [{"pdb_chain_id": name} for name in ("9000_A", "9002_A")]
                    self.template_hit_featurizer = SimpleNamespace(shuffle_top_k_prefiltered=20)
                def __getitem__(self, index_and_seed):
                    return {"x": np.zeros(125_000), "id": "not an array"}
        """,
        **{f"{name}.py": "" for name in ("Bio", "dacite", "pandas", "psutil", "pympler", "scipy")},
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (root / "torch.py").write_text("def set_num_threads(n): pass\n")
    (root / "tqdm.py").write_text("")
    return root


def make_reference_python(checkout, tmp_path):
    """Return an interpreter that imports the stubs of the checkout, whatever its environment is."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{checkout}" exec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_data_without_the_reference(raw, tmp_path, capsys):
    record = tmp_path / "record.json"
    assert main(["perf", "data", *raw, "--repeats", "2", "--json", str(record)]) == 0
    text = capsys.readouterr().out
    assert (
        "conversion of 4 entries on one core" in text
        and "9000_A" in text
        and "ratio over the chains" not in text
    )
    metrics = json.loads(record.read_text())
    assert (
        metrics["measurement"] == "data"
        and metrics["versions"]["python"]
        and metrics["machine"]["processor"]
    )
    chain = metrics["figures"]["samples"]["training"]["9000_A"]
    assert len(chain["ours"]) == len(chain["expansion"]) == 2 and chain["ours_bytes"] > 1000


def test_data_with_the_reference(raw, reference, tmp_path, capsys):
    picture, record = tmp_path / "times.png", tmp_path / "record.json"
    options = [
        "--reference",
        str(reference),
        "--reference-python",
        make_reference_python(reference, tmp_path),
        "--repeats",
        "1",
    ]
    assert (
        main(["perf", "data", *raw, *options, "--picture", str(picture), "--json", str(record)])
        == 0
    )
    text = capsys.readouterr().out
    assert "ratio over the chains" in text and "1.00" in text
    samples = json.loads(record.read_text())["figures"]["samples"]
    assert {
        kind: sorted(name for name in chains if "reference" in chains[name])
        for kind, chains in samples.items()
    } == {
        "training": ["9000_A", "9002_A"],
        "evaluation": ["9000_A", "9002_A"],
    }
    assert samples["training"]["9000_A"]["reference_bytes"] == 1_000_000
    assert picture.stat().st_size > 1000


def test_only_conversion_is_measured(raw, reference, tmp_path, capsys):
    options = [
        "--reference",
        str(reference),
        "--reference-python",
        make_reference_python(reference, tmp_path),
        "--only",
        "conversion",
    ]
    assert main(["perf", "data", *raw, *options]) == 0
    text = capsys.readouterr().out
    assert "ratio" in text and "training samples" not in text


def test_invalid_arguments_are_refused(raw, reference, tmp_path, capsys):
    def error_of(*arguments):
        assert main(["perf", "data", *raw, *arguments]) == 2
        return capsys.readouterr().err

    assert "has no scripts/preprocess_pdb_mmcif.py" in error_of("--reference", str(tmp_path))
    assert "cannot be started" in error_of(
        "--reference", str(reference), "--reference-python", str(tmp_path / "none")
    )
    broken = tmp_path / "broken_python"
    broken.write_text("#!/bin/sh\necho ModuleNotFoundError: No module named Bio >&2; exit 1\n")
    broken.chmod(0o755)
    assert "cannot import the packages of the MLCommons reference" in error_of(
        "--reference", str(reference), "--reference-python", str(broken)
    )
    assert "expected at least 1" in error_of("--repeats", "0")
    assert "9zzz_A" in error_of("--chains", "9zzz_A", "--repeats", "1")
    assert "does not exist; create it first" in error_of(
        "--json", str(tmp_path / "no" / "record.json")
    )


def test_a_failing_script_of_the_reference_is_named(raw, reference, tmp_path, capsys):
    (reference / "scripts" / "preprocess_open_protein_set.py").write_text(
        "raise SystemExit('no such thing')"
    )
    options = [
        "--reference",
        str(reference),
        "--reference-python",
        make_reference_python(reference, tmp_path),
    ]
    assert main(["perf", "data", *raw, *options]) == 2
    error = capsys.readouterr().err
    assert (
        "preprocess_open_protein_set.py of the MLCommons reference ended with exit code 1" in error
        and "no such thing" in error
    )


def loader_arguments(*options):
    parser = argparse.ArgumentParser()
    loader.add_arguments(parser)
    parser.set_defaults(record=RecordFile(None, measurement="loader"), only="order")
    return parser.parse_args(["--steps", "120", "--step-ms", "2", "--workers", "4", *options])


def test_both_loaders_deliver_the_same_samples():
    metrics = loader.measure(loader_arguments("--window", "60", "--busy", "0.5"))
    in_order, reordered = metrics.loaders.values()
    for result in (in_order, reordered):
        assert (result.delivered, result.missing, result.delivered_twice) == (120, 0, 0)
        assert 0 <= result.stall_share < 1
    assert in_order.largest_reorder_distance == 0
    assert 0 < reordered.largest_reorder_distance <= 60 and reordered.largest_lateness <= 60
    text = loader.report(metrics)
    assert "in order" in text and "window 60" in text and "(0 missing, 0 twice)" in text


def test_times_are_scaled_to_the_busy_share_of_the_workers():
    metrics = loader.measure(loader_arguments("--busy", "0.25"))
    task = loader.ReplayTask(
        seconds=tuple(metrics.scale * t for t in loader.BUILT_IN_SECONDS), seed=0
    )
    mean = sum(task.time_of(position) for position in range(120)) / 120
    assert mean == pytest.approx(0.25 * 4 * 0.002)


def test_times_are_read_from_a_record(tmp_path):
    path = tmp_path / "record.json"
    chains = {"a": {"ours": [0.1, 0.3, 0.2], "reference": [2.0]}, "b": {"ours": [0.5]}}
    path.write_text(json.dumps({"figures": {"samples": {"training": chains}}}))
    assert loader.read_times(path, side="ours") == [0.2, 0.5]
    assert loader.read_times(path, side="reference") == [2.0]
    chains["a"].pop("reference")
    path.write_text(json.dumps({"figures": {"samples": {"training": chains}}}))
    with pytest.raises(loader.BenchmarkError, match="no times of --side reference"):
        loader.read_times(path, side="reference")
    for times in ([float("nan")], [-1.0], [0.0], [float("inf")]):
        chains["b"]["ours"] = times
        path.write_text(json.dumps({"figures": {"samples": {"training": chains}}}))
        with pytest.raises(loader.BenchmarkError, match="a time is not a number > 0"):
            loader.read_times(path, side="ours")
    path.write_text("{}")
    with pytest.raises(loader.BenchmarkError, match="has no field 'figures'; expected a record"):
        loader.read_times(path, side="ours")


@pytest.mark.parametrize(
    "option", ["--busy=1.0", "--steps=0", "--window=0", "--prefetch=0", "--step-ms=0", "--rounds=0"]
)
def test_invalid_replay_options_are_refused(option):
    with pytest.raises(loader.BenchmarkError, match=r"--.* must be at least 1"):
        loader.measure(loader_arguments(option))


def test_only_dataclasses_of_the_reference_become_hashable():
    import dataclasses

    original = dataclasses.dataclass
    try:
        make_dataclasses_hashable()

        @dataclasses.dataclass
        class Own:
            size: int = 1

        assert Own.__hash__ is None
        Foreign = dataclasses.dataclass(
            type(
                "Foreign",
                (),
                {"__module__": "openfold.config", "__annotations__": {"size": int}, "size": 1},
            )
        )
        assert hash(Foreign()) == hash(Foreign())
    finally:
        dataclasses.dataclass = original


@pytest.mark.parametrize("preset", ["mlperf_fast", "mlperf_reference", "mlperf_128x8_dap8"])
@pytest.mark.parametrize("measurement", ["agreement", "losses", "precision", "step"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_presets_are_refused_in_one_line_without_a_gpu(measurement, preset, data_dir, capsys):
    data = ["--data-dir", str(data_dir)] if measurement == "losses" else []
    assert main(["perf", measurement, "--preset", preset, *data]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "needs a GPU and PyTorch sees none" in message or "found 1 ranks" in message


@pytest.mark.parametrize("measurement", ["agreement", "losses", "step"])
def test_kernels_that_cannot_run_are_refused_in_one_line(
    measurement, data_dir, capsys, monkeypatch
):
    monkeypatch.setattr(select, "cpu_unsupported_reason", lambda: "there is no C++ compiler")
    data = ["--data-dir", str(data_dir)] if measurement == "losses" else []
    assert main(["perf", measurement, "--preset", "demo", "--kernels", "cpu", *data]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1 and message.startswith("benchmark perf: kernel ")


def test_every_measurement_can_be_imported_and_has_help(capsys):
    for measurement in MEASUREMENTS:
        with pytest.raises(SystemExit) as exit_info:
            main(["perf", measurement, "--help"])
        assert exit_info.value.code == 0 and "--json" in capsys.readouterr().out


@pytest.mark.parametrize("measurement", ["counts", "resources"])
def test_a_missing_triton_is_reported_with_install_commands(measurement, capsys, monkeypatch):
    def import_module(name):
        if name.startswith("openfold_opt.kernels.triton"):
            raise ModuleNotFoundError("No module named 'triton'", name="triton")
        return importlib.import_module(name)

    monkeypatch.setattr(
        "benchmark.perf.tools.can_run.importlib", SimpleNamespace(import_module=import_module)
    )
    assert main(["perf", measurement]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1 and "./run_tests.sh --setup-only" in message
    assert f"pip install {TRITON}" in message


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.stem)
def test_archived_metrics_keep_their_format(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    module = importlib.import_module(f"benchmark.perf.{record['measurement']}")
    assert to_json(from_json(module.METRICS, record["figures"])) == record["figures"]
