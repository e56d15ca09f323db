"""`plan train` and `plan search`: tables, JSON, pictures and bad input."""

import dataclasses
import json

import pytest

from benchmark.__main__ import main
from benchmark.perf.tools.perf_record import to_json
from benchmark.plan.loader_wait import simulated_wait
from benchmark.plan.step_counts import PROJECT, REFERENCE, STORED, read_table
from benchmark.plan.step_model import Layout
from benchmark.plan.systems import load_system, system_json
from benchmark.presets import build_preset
from openfold_opt.train.phases import phases_of

PNG = b"\x89PNG"


def run_plan(question, counts_file, *arguments) -> int:
    return main(["plan", question, "--counts", str(counts_file), *map(str, arguments)])


def own_system(tmp_path, name="h100_sxm", **changes):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(system_json(load_system(name)) | changes))
    return path


def test_every_number_of_the_picture_is_in_the_json(counts_file, tmp_path, capsys):
    json_file, picture = tmp_path / "plan.json", tmp_path / "plan.png"
    options = ["--preset", "mlperf_256x8_dap8", "--system", "h100_sxm"]
    options += ["--json", json_file, "--png", picture]
    assert run_plan("train", counts_file, *options) == 0
    value = json.loads(json_file.read_text())
    (plan,) = value["plans"]
    assert picture.read_bytes().startswith(PNG)
    assert value["bars"][0]["seconds"] == plan["step"]["parts"]
    assert value["counts"] == [{"command": "plan counts", "commit": "abc", "date": "2026-11-30"}]
    assert sum(plan["step"]["parts"].values()) == pytest.approx(plan["step_seconds"])
    assert plan["least_step_seconds"] < plan["step_seconds"] <= plan["most_step_seconds"]
    layout = plan["layout"]
    assert (layout["num_gpus"], layout["dap"], layout["evaluation_ranks"]) == (2080, 8, 32)
    assert plan["target"]["gpu_hours"] == pytest.approx(2080 * plan["target"]["seconds"] / 3600)
    assert plan["memory_bytes"] < 80e9
    shown = capsys.readouterr().out
    assert "256 x DAP 8 train, 32 evaluate" in shown and "to 0.8:" in shown


def test_a_price_of_a_node_gives_the_cost(counts_file, tmp_path):
    system = own_system(tmp_path, price={"amount": 16.0, "unit": "EUR/node-hour"})
    json_file = tmp_path / "plan.json"
    options = ["--preset", "mlperf_16x8_dap1", "--system", system, "--json", json_file]
    assert run_plan("train", counts_file, *options) == 0
    target = json.loads(json_file.read_text())["plans"][0]["target"]
    assert target["cost"] == pytest.approx(2.0 * target["gpu_hours"])
    assert target["currency"] == "EUR"


def test_each_phase_is_planned_with_its_own_gpus(counts_file, tmp_path, capsys):
    json_file = tmp_path / "plan.json"
    options = ["--preset", "initial_training_2080", "--system", "h100_sxm", "--json", json_file]
    assert run_plan("train", counts_file, *options) == 0
    first, second = json.loads(json_file.read_text())["plans"]
    assert [plan["layout"]["num_gpus"] for plan in (first, second)] == [1056, 2080]
    assert first["target"]["samples"] == 5_000 * 128
    assert second["target"]["samples"] == 13.44e6 - 5_000 * 128
    assert "all phases:" in capsys.readouterr().out
    for name in ("second", "2"):
        assert run_plan("train", counts_file, *options, "--phase", name) == 0
        assert [plan["phase"] for plan in json.loads(json_file.read_text())["plans"]] == ["second"]


@pytest.mark.parametrize(
    ("preset", "system", "options", "message"),
    [
        ("mlperf_256x8_dap8", "h100_sxm", ["--gpus", "2081"], "cannot be divided into groups of 8"),
        (
            "mlperf_16x8_dap1",
            "h100_sxm",
            ["--gpus", "96"],
            "a batch of 128 cannot be split over 96 x DAP 1 with micro-batches of 1; the nearest",
        ),
        ("mlperf_16x8_dap1", "lonestar6", ["--gpus", "512"], "lonestar6 has 252; choose fewer"),
        ("initial_training", "h100_sxm", ["--phase", "third"], "its phases are first, second"),
        ("demo", "h100_sxm", [], "for samples of the shape crop"),
        ("mlperf_fast", "none", [], "unknown system 'none'"),
    ],
)
def test_wrong_requests_are_refused(counts_file, capsys, preset, system, options, message):
    assert run_plan("train", counts_file, "--preset", preset, "--system", system, *options) == 2
    assert message in capsys.readouterr().err


def test_a_gpu_that_is_too_small_is_named_with_what_is_missing(counts_file, tmp_path, capsys):
    system = own_system(tmp_path, memory_bytes=10 * 10**9)
    options = ["--preset", "mlperf_16x8_dap1", "--system", system]
    assert run_plan("train", counts_file, *options) == 2
    error = capsys.readouterr().err
    assert "has 10 GB" in error and "are missing" in error


def test_dap_over_several_nodes_is_warned_of(counts_file, capsys):
    options = ["--preset", "mlperf_256x8_dap8", "--system", "perlmutter"]
    assert run_plan("train", counts_file, *options) == 0
    assert "WARNING: DAP 8, but a node of perlmutter has 4 GPUs" in capsys.readouterr().out


def test_the_loader_of_a_slow_worker_is_simulated():
    config = build_preset("mlperf_reference")
    layout = Layout(code=REFERENCE, num_gpus=128)
    assert simulated_wait(config, layout, 0.05) > 0.01
    assert simulated_wait(config, layout, 1e4) == 0
    assert simulated_wait(config, dataclasses.replace(layout, code=PROJECT), 1.0) < 1e-9


def test_a_wait_for_data_is_a_part_of_each_micro_step(counts_file, tmp_path):
    json_file = tmp_path / "plan.json"
    options = ["--preset", "mlperf_1x8", "--system", "h100_sxm", "--gpus", 8, "--json", json_file]
    assert run_plan("train", counts_file, *options, "--loader-wait", 0.5) == 0
    plan = json.loads(json_file.read_text())["plans"][0]
    assert plan["step"]["parts"]["loader"] == 0.5 * plan["layout"]["accumulation"]


def test_blocks_are_recomputed_if_memory_is_short(counts_file, tmp_path):
    json_file = tmp_path / "plan.json"
    options = ["--preset", "mlperf_16x8_dap1", "--json", json_file]
    blocks, seconds = [], []
    for system in ("h100_sxm", own_system(tmp_path, memory_bytes=40 * 10**9)):
        assert run_plan("train", counts_file, *options, "--system", system) == 0
        plan = json.loads(json_file.read_text())["plans"][0]
        blocks.append(plan["memory"]["recomputed_blocks"])
        seconds.append(plan["step_seconds"])
    assert blocks[0] == 0 < blocks[1] <= 48
    assert seconds[1] > seconds[0]


def test_search_finds_the_fastest_and_the_smallest(counts_file, tmp_path, capsys):
    json_file, picture = tmp_path / "search.json", tmp_path / "search.png"
    options = ["--preset", "mlperf_256x8_dap8", "--system", "h100_sxm", "--gpus", 2080]
    options += ["--within", 60, "--json", json_file, "--png", picture]
    assert run_plan("search", counts_file, *options) == 0
    value = json.loads(json_file.read_text())
    splits = value["splits"]
    assert splits == sorted(splits, key=lambda split: split["seconds"])
    assert all(split["layout"]["num_gpus"] <= 2080 for split in splits)
    fewest = value["fewest"]["layout"]["num_gpus"]
    fast = [split for split in splits if split["seconds"] <= 3600]
    assert fewest == min(split["layout"]["num_gpus"] for split in fast)
    assert picture.read_bytes().startswith(PNG)
    assert "fewest GPUs for 60 minutes" in capsys.readouterr().out


def test_search_says_if_no_split_is_fast_enough(counts_file, capsys):
    options = ["--preset", "mlperf_16x8_dap1", "--system", "h100_sxm", "--gpus", 8, "--within", 1]
    assert run_plan("search", counts_file, *options) == 1
    assert "no split needs at most 1 minutes" in capsys.readouterr().out


def test_counts_of_a_user_need_no_other_code_base(small_table, tmp_path):
    steps = [step for step in small_table.steps if step.code == PROJECT]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(to_json(dataclasses.replace(small_table, steps=steps))))
    assert len(read_table(path).steps) == 4
    assert run_plan("train", path, "--preset", "mlperf_fast", "--system", "h200_sxm") == 0


def test_damaged_counts_are_named(tmp_path, capsys):
    path = tmp_path / "counts.json"
    path.write_text("{}")
    assert run_plan("train", path, "--preset", "mlperf_fast", "--system", "h200_sxm") == 2
    assert f"counts {path}: expected the fields" in capsys.readouterr().err


def test_search_of_a_phase_with_a_number_of_steps_takes_its_samples(counts_file, tmp_path, capsys):
    json_file = tmp_path / "search.json"
    options = ["--preset", "initial_training", "--system", "h100_sxm", "--gpus", 128]
    options += ["--phase", "1", "--json", json_file]
    assert run_plan("search", counts_file, *options) == 0
    best = json.loads(json_file.read_text())["splits"][0]
    assert best["seconds"] > 5_000 * best["step_seconds"]
    assert best["seconds"] < 6_000 * best["step_seconds"]
    assert "first, to 0.8 on at most 128 GPUs" in capsys.readouterr().out


def test_efficiency_compares_with_a_gpu_that_recomputes_as_much(counts_file, tmp_path):
    json_file = tmp_path / "plan.json"
    system = own_system(tmp_path, memory_bytes=40 * 10**9)
    options = ["--preset", "mlperf_16x8_dap1", "--json", json_file, "--system", system]
    assert run_plan("train", counts_file, *options) == 0
    plan = json.loads(json_file.read_text())["plans"][0]
    assert plan["memory"]["recomputed_blocks"] > 0
    assert 0.9 < plan["parallel_efficiency"] < 1


@pytest.mark.parametrize("preset", ["finetuning", "finetuning_ptm", "initial_training"])
def test_full_training_is_planned_from_the_stored_counts(preset, tmp_path):
    """The memory plan of a run recomputes 28 blocks of fine-tuning on 80 GB (docs/runs.md)."""
    json_file = tmp_path / "plan.json"
    options = ["--preset", preset, "--system", "h100_sxm", "--json", json_file]
    assert run_plan("train", STORED, *options) == 0
    plans = json.loads(json_file.read_text())["plans"]
    assert [plan["phase"] for plan in plans] == [
        phase.name for phase in phases_of(build_preset(preset))
    ]
    blocks = plans[0]["memory"]["recomputed_blocks"]
    assert blocks == pytest.approx(28, abs=4) if "finetuning" in preset else blocks == 0
