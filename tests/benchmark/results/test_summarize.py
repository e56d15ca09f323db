"""`summarize`: published results are reproduced, files are written, bad logs are skipped."""

import csv
import io
import json
from pathlib import Path

import matplotlib.image
import pytest

from benchmark.__main__ import main
from benchmark.results.gather import gather
from benchmark.results.metrics import compute_metrics
from benchmark.results.tables import format_number, markdown_table
from tests.support.synthetic_logs import MadeLog, whole_run

PICTURES = ("lddt_samples.png", "lddt_minutes.png", "step_time.png", "strong_scaling.png")


@pytest.fixture(scope="module")
def published(shared):
    found = gather([shared / "facts" / "mlperf_hpc_v3.0_logs"])
    assert found.rejections == ()
    metrics = [compute_metrics(each) for each in found.sets]
    return {
        ("NVIDIA throughput" if each.is_throughput else each.submitter): each for each in metrics
    }


@pytest.mark.parametrize(
    ("submitter", "minutes", "step", "samples", "accelerators"),
    [
        ("NVIDIA", 7.51, 0.681, 124_160, 2080),
        ("NVIDIA throughput", 28.5, 1.807, 87_406, 2048),
        ("HPE+LBNL", 14.65, 1.433, 109_000, 896),
        ("TACC", 157.3, 6.94, 106_080, 96),
        ("Clemson", 257.6, 22.1, 92_160, 36),
    ],
)
def test_published_times_and_samples(published, submitter, minutes, step, samples, accelerators):
    found = published[submitter]
    assert found.minutes_trimmed_mean == pytest.approx(minutes, rel=1e-3)
    assert found.seconds_per_step == pytest.approx(step, rel=3e-3)
    assert found.samples_trimmed_mean == pytest.approx(samples, abs=1)
    assert found.accelerators == accelerators
    assert found.converged == found.runs == (16 if found.is_throughput else 10)


def test_published_convergence(published):
    outcomes = {name: (each.verdict, round(each.rcp_factor, 3)) for name, each in published.items()}
    assert outcomes == {
        "NVIDIA": ("passes, normalized", 1.072),
        "NVIDIA throughput": ("passes, normalized", 1.015),
        "HPE+LBNL": ("falls short", 1.0),
        "TACC": ("passes", 1.0),
        "Clemson": ("passes, normalized", 1.023),
    }
    assert published["NVIDIA"].minutes_normalized == pytest.approx(7.5122 * 1.0722, rel=1e-4)
    assert published["HPE+LBNL"].minutes_normalized is None


def test_published_micro_steps_and_dap_sizes(published):
    assert [name for name, each in published.items() if each.counts_micro_steps] == ["TACC"]
    assert {name: each.dap_size for name, each in published.items()} == {
        "NVIDIA": 8,
        "NVIDIA throughput": 1,
        "HPE+LBNL": 4,
        "TACC": 1,
        "Clemson": None,
    }
    assert published["NVIDIA throughput"].share_of_peak == pytest.approx(0.0297, abs=2e-4)
    assert (
        published["NVIDIA throughput"].minutes_side_by_side
        > published["NVIDIA throughput"].minutes_max
    )


def test_published_results_in_every_format(shared, tmp_path, capsys):
    logs = str(shared / "facts" / "mlperf_hpc_v3.0_logs")
    assert (
        main(["summarize", logs, "--out", str(tmp_path), "--accelerator", "perlmutter_224x4=A100"])
        == 0
    )
    shown = capsys.readouterr()
    assert "falls short" in shown.out
    assert "assumed to be a throughput result, 16 concurrent runs" in shown.err
    assert (tmp_path / "summary.md").read_text() == shown.out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text())))
    assert [row["runs"] for row in rows] == ["10", "10", "16", "10", "10"]
    sets = json.loads((tmp_path / "summary.json").read_text())["sets"]
    for row, each in zip(rows, sets, strict=True):
        assert float(row["minutes_trimmed_mean"]) == each["minutes_trimmed_mean"]
        assert len(each["each_run"]) == each["runs"]
    assert float(rows[1]["share_of_peak"]) == pytest.approx(0.0288, abs=2e-4)
    for name in PICTURES:
        picture = matplotlib.image.imread(tmp_path / name)
        # Axes, curves and legend cover a part of the picture.
        assert picture.shape[0] > 500 and picture.shape[1] > 900
        assert 0.01 < (picture[..., :3] < 0.9).any(axis=2).mean() < 0.6


def test_bad_logs_are_named_and_the_others_are_summarized(tmp_path, capsys):
    for i in range(3):
        whole_run(cycles=3 + i, start=1e4 * i).write(tmp_path / "set" / f"result_{i}.txt")
    (tmp_path / "set" / "result_3.txt").write_text("cut off")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result_0.txt").write_text(":::MLLOG {")
    assert main(["summarize", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert "3 (+1 skipped)" in shown.out
    for text in ("set/result_3.txt: it contains no", "other/result_0.txt: damaged: line 1"):
        assert text in shown.out
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(written["sets"]) == 1
    assert len(written["left_out"]) == 2


def test_a_log_with_several_names_is_counted_once(tmp_path, monkeypatch):
    for i in range(3):
        whole_run(start=1e4 * i).write(tmp_path / "runs" / f"run_{i}" / "mlperf.log")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "result_0.txt").symlink_to("../runs/run_0/mlperf.log")
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to("runs")
    names = [
        Path("runs"),
        tmp_path / "runs",
        link,
        Path("runs/run_1/mlperf.log"),
        Path("runs/../runs/run_2"),
    ]
    assert [len(each.runs) for each in gather(names).sets] == [3]
    # Logs of a folder of results are not counted again.
    assert [
        len(each.runs)
        for each in gather([Path("set"), Path("set/result_0.txt"), Path("runs")]).sets
    ] == [1, 2]


def test_only_bad_logs_are_an_error(tmp_path, capsys):
    (tmp_path / "result_0.txt").write_text("")
    assert main(["summarize", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert "result_0.txt: it contains no MLPerf event" in shown.out
    assert "no log could be read" in shown.err
    assert main(["summarize", str(tmp_path), "--format", "csv"]) == 2
    assert "skipped: " in capsys.readouterr().err


def test_other_benchmarks_of_a_submission_are_skipped(tmp_path, capsys):
    whole_run().write(tmp_path / "openfold" / "result_0.txt")
    whole_run(submission_benchmark="deepcam").write(tmp_path / "deepcam" / "result_0.txt")
    assert main(["summarize", str(tmp_path)]) == 0
    assert "deepcam: skipped" in capsys.readouterr().err
    # A log without the name of its benchmark is an error.
    whole_run(submission_benchmark=None).write(tmp_path / "unnamed" / "result_0.txt")
    assert main(["summarize", str(tmp_path)]) == 1
    (tmp_path / "unnamed" / "result_0.txt").unlink()
    # A log of another benchmark is an error in a folder of OpenFold logs, or if it is given itself.
    mixed = whole_run(submission_benchmark="deepcam").write(tmp_path / "openfold" / "result_1.txt")
    assert main(["summarize", str(tmp_path)]) == 1
    assert main(["summarize", str(mixed)]) == 2


def test_a_single_open_run_without_convergence_has_tables_and_plots(tmp_path, capsys):
    settings = {
        "accelerators_per_node": 0,
        "submission_division": "open",
        "model_parameters_count": 10,
        "number_of_ranks": 1,
    }
    path = whole_run(status="aborted", **settings).write(tmp_path / "mlperf.log")
    assert main(["summarize", str(path), "--out", str(tmp_path / "out"), "--format", "json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["sets"]
    assert (found["runs"], found["converged"], found["minutes_min"]) == (1, 0, None)
    assert all((tmp_path / "out" / name).stat().st_size > 5000 for name in PICTURES)
    assert "1 CPU rank " in (tmp_path / "out" / "summary.md").read_text()


def test_a_run_that_stopped_before_its_first_interval_is_listed(tmp_path, capsys):
    log = MadeLog()
    log.event("run_start")
    log.now += 5
    log.event("run_stop", status="aborted")
    assert (
        main(["summarize", str(log.write(tmp_path / "mlperf.log")), "--out", str(tmp_path / "out")])
        == 0
    )
    assert "| org 4xNVIDIA DGX H100 |" in capsys.readouterr().out


def test_plots_of_special_names_and_of_a_run_that_starts_at_the_target(tmp_path):
    log = MadeLog(submission_org="_100$ and a$_{", submission_platform="two\nlines")
    log.event("run_start")
    log.evaluate(0.9, seconds=5, samples=0)
    log.event("run_stop", status="success")
    log.write(tmp_path / "mlperf.log")
    whole_run(submission_org="_1$ and a$_{").write(tmp_path / "other" / "mlperf.log")
    assert main(["summarize", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert all((tmp_path / "out" / name).stat().st_size > 5000 for name in PICTURES)


@pytest.mark.parametrize("pair", ["eos", "eos=", "=A100", "eos=abacus"])
def test_an_unknown_accelerator_is_refused(tmp_path, capsys, pair):
    whole_run().write(tmp_path / "mlperf.log")
    assert main(["summarize", str(tmp_path), "--accelerator", pair]) == 2
    assert "expected SYSTEM=NAME" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_an_error(tmp_path, capsys):
    log = whole_run().write(tmp_path / "mlperf.log")
    assert main(["summarize", str(log), "--out", str(log)]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (7.5122, "7.512"),
        (257.558, "257.6"),
        (594595, "594,595"),
        (0.68092, "0.6809"),
        (0.0039, "0.003900"),
    ],
)
def test_numbers_have_four_significant_digits(value, text):
    assert format_number(value) == text


def test_markdown_is_aligned_and_escaped():
    lines = markdown_table([["a|b", "1"], ["c", "23"]], header=["name", "n"]).splitlines()
    assert lines == ["| name |  n |", "| ---- | -: |", "| a\\|b |  1 |", "| c    | 23 |"]
    assert markdown_table([["two\nlines"]], header=["name"]).splitlines()[2:] == ["| two lines |"]
