"""`plan validate`: no system is predicted from its own logs; the stored results are those logs."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from benchmark.__main__ import main
from benchmark.plan.fitting import fit_factors, predict_published
from benchmark.plan.published import SETUPS, published_results, read_published
from benchmark.plan.step_counts import NVIDIA, REFERENCE
from benchmark.plan.validation import validate

SHARED = os.environ.get("OPENFOLD_SHARED")
TITLES = [setup.title for setup in SETUPS.values()]


@pytest.mark.skipif(not SHARED, reason="needs the published logs")
def test_the_stored_results_are_those_of_the_logs():
    folder = Path(SHARED) / "facts" / "mlperf_hpc_v3.0_logs"
    assert tuple(read_published(folder)) == published_results()


def test_a_missing_folder_of_logs_is_named(tmp_path, capsys):
    assert main(["plan", "validate", "--logs", str(tmp_path)]) == 2
    assert "expected result_*.txt of MLPerf HPC v3.0" in capsys.readouterr().err


def test_batches_of_the_published_runs():
    assert [setup.batch for setup in SETUPS.values()] == [256, 218, 128, 192, 144]


@pytest.mark.parametrize("index", range(5))
def test_a_system_is_predicted_without_its_own_logs(small_table, index):
    results = published_results()
    changed = list(results)
    changed[index] = dataclasses.replace(
        results[index],
        micro_step_seconds=3 * results[index].micro_step_seconds,
        start_seconds=9_999.0,
        evaluation_seconds=9_999.0,
        wait_seconds=0.5,
    )
    before, after = (validate(each, small_table) for each in (results, changed))
    assert before.steps[index].predicted == after.steps[index].predicted
    assert before.steps[index].baseline == after.steps[index].baseline
    assert before.runs[index].predicted == after.runs[index].predicted
    assert TITLES[index] not in before.steps[index].fitted_on


def test_results_that_the_model_explains_are_found_again(small_table):
    """With steps of the model itself, times a factor for each code base, all errors vanish."""
    results = published_results()
    factors = fit_factors(results, small_table)
    exact = [
        dataclasses.replace(
            result,
            micro_step_seconds=predict_published(
                result.setup, small_table, factors, loader_seconds=0.0
            ).total
            / result.setup.accumulation,
            wait_seconds=None,
        )
        for result in results
    ]
    validation = validate(exact, small_table)
    assert validation.worst_error < 1e-6
    assert validation.num_factors == 2
    assert validation.baseline_mean > 0.01
    assert set(factors.by_code) == {NVIDIA, REFERENCE}


def test_validate_writes_all_numbers(counts_file, tmp_path, capsys):
    path, picture = tmp_path / "validation.json", tmp_path / "curves.png"
    options = ["--counts", str(counts_file), "--json", str(path), "--png", str(picture)]
    assert main(["plan", "validate", *options]) == 0
    value = json.loads(path.read_text())
    shown = capsys.readouterr().out
    assert [row["title"] for row in value["steps"]] == TITLES
    assert f"mean absolute error {value['mean_error']:.1%}" in shown
    assert "fitted factors: 2" in shown
    assert len(value["others"]) == 15 and not value["notes"]
    assert set(value["curves"]) == {NVIDIA, REFERENCE}
    assert picture.read_bytes().startswith(b"\x89PNG")
    for curve in value["curves"].values():
        best = max(curve, key=lambda point: point["speedup"])
        assert f"predicted {best['speedup']:.1f} on {best['num_gpus']:,}" in shown
    assert value["search"]["num_splits"] > value["search"]["rank"] >= 1


def test_a_missing_dap_size_leaves_out_what_needs_it(small_table):
    steps = [step for step in small_table.steps if (step.code, step.dap) != (NVIDIA, 2)]
    validation = validate(published_results(), dataclasses.replace(small_table, steps=steps))
    assert len(validation.others) == 13
    assert "DAP 2 for crop 256" in validation.notes[0]


def test_a_code_base_without_another_log_is_predicted_from_a_published_row(small_table):
    results = [each for each in published_results() if each.setup.title != TITLES[3]]
    rows = {row.title: row for row in validate(results, small_table).steps}
    assert rows[TITLES[4]].fitted_on == "ScaleFold's step on A100 (recalled)"
    assert rows[TITLES[0]].fitted_on == f"{TITLES[1]} and {TITLES[2]}"
