"""`perf predict`: a fake OpenFold, measured memory, names of weights, comparison and report."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.perf import predict
from benchmark.perf.subprocesses.forward_measurement import (
    ForwardRun,
    ForwardSettings,
    Model,
    measure,
)
from benchmark.perf.subprocesses.openfold_forward import softmax_in_place
from benchmark.perf.subprocesses.reference_forward import batch_of_one
from benchmark.perf.tools import predict_sides
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.predict_case import CaseSizes
from benchmark.perf.tools.predict_report import PredictMetrics, SideResults
from tests.support.fake_openfold import write_fake_openfold

MEBIBYTE = 2**20
OPTIONS = [
    "--lengths",
    "18",
    "--rounds",
    "1",
    "--blocks",
    "1",
    "--extra-blocks",
    "1",
    "--templates",
    "1",
    "--clusters",
    "5",
    "--extra-msa",
    "6",
]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Record and printed text of a command with a fake OpenFold, and its exit code."""
    folder = tmp_path_factory.mktemp("predict")
    checkout = write_fake_openfold(folder / "openfold_checkout")
    options = [
        *OPTIONS,
        "--no-count",
        "--openfold",
        str(checkout),
        "--openfold-python",
        sys.executable,
        "--unchunked-up-to",
        "17",
        "--json",
        str(folder / "record.json"),
    ]
    with pytest.MonkeyPatch.context() as monkeypatch:
        # The fake needs fewer packages than OpenFold.
        monkeypatch.setattr(predict_sides, "_OPENFOLD_MODULES", "numpy, torch")
        code = main(["perf", "predict", *options])
    record = json.loads((folder / "record.json").read_text())
    return code, from_json(predict.METRICS, record["figures"])


def test_openfold_gets_the_same_weights_and_features(command):
    _, metrics = command
    sides = metrics.lengths["18"]
    assert sides["ours"].runs[0].seconds > 0 and not sides["ours"].differences
    differences = sides["OpenFold chunk 4"].differences
    assert set(differences) == {"positions", "plddt"}
    assert 0 <= max(differences.values()) < 1e-5


def test_a_setting_that_fails_or_does_not_run_is_in_the_table(command):
    code, metrics = command
    assert code == 1
    (failure,) = metrics.failures
    assert "18 residues, OpenFold tuned" in failure and "can't allocate memory" in failure
    lines = predict.report(metrics).splitlines()
    assert any(line.startswith("18 OpenFold tuned") and "not run" in line for line in lines)
    assert any(line.startswith("18 OpenFold unchunked") and "not run" in line for line in lines)
    assert "OpenFold unchunked: not run beyond 17 residues (--unchunked-up-to)" in lines


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "0"], "must be at least 1"),
        (["--openfold", "/nowhere"], "expected a checkout of aqlaboratory/openfold"),
    ],
)
def test_wrong_options_are_refused(options, message, capsys):
    assert main(["perf", "predict", *options]) == 2
    assert message in capsys.readouterr().err


def test_an_interpreter_without_the_packages_is_refused(tmp_path):
    checkout = write_fake_openfold(tmp_path)
    with pytest.raises(BenchmarkError, match="cannot import the packages of OpenFold"):
        predict_sides.openfold_sides(checkout, sys.executable, ["4"])


SETTINGS = ForwardSettings(
    features="",
    warm_up_features="",
    weights="",
    results="",
    blocks=1,
    extra_blocks=1,
    variant="",
    device="cpu",
    precision="fp32",
    threads=1,
    untimed=0,
    counts=True,
    profiles=False,
    memory_limit_bytes=None,
)


def measured(tmp_path, settings=SETTINGS, *, sizes=(64, 32, 32)):
    """Measure a function that allocates MiB: the first and second together, then the third."""
    np.savez(tmp_path / "features.npz", aatype=np.zeros(4))
    path = str(tmp_path / "features.npz")
    settings = dataclasses.replace(settings, features=path, warm_up_features=path)

    def run(batch):
        first, second = (torch.ones(size * MEBIBYTE // 4) for size in sizes[:2])
        kept = float(first[0] + second[0])
        del first, second
        third = torch.ones(sizes[2] * MEBIBYTE // 4)
        return {"positions": third[:4] * kept, "pair": torch.ones(20, 3)}

    return measure(Model(run=run, prepare=lambda features: features), settings)


def test_live_tensors_are_counted(tmp_path):
    run, _ = measured(tmp_path)
    assert run.counted_bytes == pytest.approx(96 * MEBIBYTE, abs=1000)


def test_the_resident_set_is_measured(tmp_path):
    run, results = measured(tmp_path, dataclasses.replace(SETTINGS, counts=False))
    assert 60 * MEBIBYTE < run.peak_bytes - run.base_bytes < 140 * MEBIBYTE
    assert run.first_seconds is None and run.counted_bytes is None and run.cpu_seconds > 0
    assert results["positions"].tolist() == [2.0] * 4 and results["pair"].shape == (8, 3)


def test_a_peak_before_the_timed_pass_does_not_count(tmp_path):
    """The short chain's memory is freed, and its peak is reset."""
    large = torch.ones(200 * MEBIBYTE // 4)
    del large
    run, _ = measured(tmp_path, dataclasses.replace(SETTINGS, untimed=1, counts=False))
    assert run.peak_bytes - run.base_bytes < 140 * MEBIBYTE
    assert run.first_seconds > 0


def test_the_softmax_is_in_place():
    logits = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(1))
    expected = torch.softmax(logits.clone(), -1)
    softmax_in_place(logits, 15, 7)
    assert torch.equal(logits, expected)


def test_the_reference_gets_dims_of_samples_and_passes():
    batch = batch_of_one({"aatype": torch.zeros(9), "msa_feat": torch.zeros(2, 9, 49)}, "cpu")
    assert [tuple(value.shape) for value in batch.values()] == [(1, 9, 1), (1, 2, 9, 49, 1)]


def side(seconds, *, peak, counted=None, planned=None, differences=None):
    run = ForwardRun(
        seconds=seconds,
        cpu_seconds=seconds,
        first_seconds=None,
        base_bytes=100 * MEBIBYTE,
        peak_bytes=(100 + peak) * MEBIBYTE,
        counted_bytes=None,
        load=1.0,
        planned_bytes=planned and planned * MEBIBYTE,
        planned_resident_bytes=planned and 3 * planned * MEBIBYTE,
    )
    counted_run = dataclasses.replace(run, counted_bytes=counted * MEBIBYTE)
    return SideResults(runs=[run], counted=counted_run, differences=differences or {})


METRICS = PredictMetrics(
    sizes=CaseSizes(blocks=2, extra_blocks=4, templates=4, clusters=124, extra_msa=1024),
    kernels="auto",
    ran="which are cpu",
    device="cpu",
    precision="fp32",
    threads=1,
    rounds=1,
    lengths={
        "256": {
            "ours": side(30.0, peak=200, counted=64, planned=60),
            "MLCommons reference": side(20.0, peak=100, counted=50),
            "OpenFold chunk 4": side(40.0, peak=400, counted=128, differences={"pair": 2e-7}),
            "OpenFold tuned": side(50.0, peak=300, counted=100, differences={"pair": 3e-7}),
        }
    },
)


def test_ours_is_compared_with_the_fastest_setting_of_openfold():
    ratio = next(line for line in predict.report(METRICS).splitlines() if "ours / " in line)
    assert ratio.split() == [
        *("256", "ours", "/", "OpenFold", "chunk", "4"),
        *("0.75", "(0.75", "to", "0.75)", "0.75", "(0.75", "to", "0.75)", "0.50", "0.50"),
    ]
    # A pair tensor of 256 residues has 32 MiB.
    ours = next(line for line in predict.report(METRICS).splitlines() if "256 ours " in line)
    assert ours.split()[-5:] == ["2.00", "0.94", "200", "0.90", "1.0"]
    assert (
        "256 residues 30.00 s, 0.75 of OpenFold chunk 4 with 0.50 of its memory"
        in predict.headline(METRICS)
    )


def test_results_of_a_wrong_adapter_are_failures(tmp_path):
    np.savez(tmp_path / "ours.npz", positions=np.ones(4), plddt=np.ones(2))
    np.savez(tmp_path / "theirs.npz", positions=np.array([1, 1, 1, 1.01]))
    differences = predict.compare(tmp_path / "theirs.npz", tmp_path / "ours.npz")
    assert differences == {"positions": pytest.approx(0.005)}
    good, bad = {"pair": 1e-6}, {"pair": float("nan")}
    results = {
        "a": SideResults(differences=differences),
        "b": SideResults(differences=good),
        "c": SideResults(differences=bad),
    }
    assert [line.split(",")[1].split(":")[0] for line in predict.differing(9, results)] == [
        " a",
        " c",
    ]
