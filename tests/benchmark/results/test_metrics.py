"""Sets of runs: grouping of logs, and the metrics of a set."""

import json

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.results.gather import gather
from benchmark.results.metrics import compute_metrics
from benchmark.results.origin import describe_origin
from benchmark.results.peak import peak_tflop_per_second
from benchmark.results.reference_points import (
    NORMALIZED,
    NOT_CHECKED,
    PASS,
    REQUIRED_RUNS,
    SHORT,
    reference_mean,
    reference_points,
)
from tests.support.synthetic_logs import whole_run


def write_set(folder, cycles, **settings):
    for i, number in enumerate(cycles):
        whole_run(cycles=number, start=10_000 * i, **settings).write(folder / f"result_{i}.txt")
    return folder


def metrics_of(*paths, **options):
    return [compute_metrics(each) for each in gather(paths, **options).sets]


def test_metrics_of_a_set(tmp_path):
    (found,) = metrics_of(write_set(tmp_path / "set", [3, 4, 5, 6, 9]))
    run_minutes = [(120 + 80 * (n - 1) + 10 * n) / 60 for n in (3, 4, 5, 6, 9)]
    assert (found.runs, found.converged, found.rejected) == (5, 5, 0)
    assert found.minutes_min == pytest.approx(run_minutes[0])
    assert found.minutes_max == pytest.approx(run_minutes[-1])
    assert found.minutes_trimmed_mean == pytest.approx(sum(run_minutes[1:4]) / 3)
    assert found.samples_trimmed_mean == pytest.approx(5 * 40 * 32)
    assert found.seconds_per_step == pytest.approx(2)
    assert found.seconds_per_step_all_cycles == pytest.approx((27 * 2 + 5) / 27)
    assert found.samples_per_second == pytest.approx(16)
    assert found.data_wait_seconds_per_step == pytest.approx(0.1)
    assert found.evaluation_seconds == pytest.approx(10)
    assert found.evaluation_minutes_alone == pytest.approx(27 / 5 * 10 / 60)
    assert found.init_minutes == pytest.approx(20 / 60)
    assert found.share_of_peak == pytest.approx(16 * 53.1 / (32 * 989))
    assert (found.accelerators, found.accelerator, found.nodes) == (32, "H100", 4)
    assert (found.dap_size, found.is_dap_size_inferred) == (1, True)


def test_one_unconverged_run_counts_as_the_slowest_and_two_give_no_mean(tmp_path):
    folder = write_set(tmp_path / "set", [3, 4, 5])
    whole_run(status="aborted", start=9e4).write(folder / "result_3.txt")
    (found,) = metrics_of(folder)
    assert (found.runs, found.converged) == (4, 3)
    assert found.minutes_trimmed_mean == pytest.approx(
        ((120 + 240 + 40) + (120 + 320 + 50)) / 2 / 60
    )
    assert found.minutes_max is None
    whole_run(status="aborted", start=9e4).write(folder / "result_4.txt")
    (found,) = metrics_of(folder)
    assert found.minutes_trimmed_mean is None
    assert found.samples_trimmed_mean is None
    assert found.minutes_min is not None


def test_share_of_peak_only_for_the_closed_sample_on_a_known_accelerator(tmp_path):
    small = write_set(tmp_path / "small", [3], max_extra_msa=16)
    unknown = write_set(tmp_path / "unknown", [3], submission_platform="4xbox")
    fp32 = write_set(tmp_path / "fp32", [3], precision="fp32")
    assert [found.share_of_peak for found in metrics_of(small, unknown, fp32)] == [None, None, None]
    assert compute_metrics(
        gather([unknown]).sets[0], accelerator="A100"
    ).share_of_peak == pytest.approx(16 * 53.1 / (32 * 312))


def test_the_share_of_peak_needs_a_precision_of_the_tensor_cores():
    assert peak_tflop_per_second("NVIDIA H100 80GB HBM3", "bf16") == 989.0
    assert peak_tflop_per_second("NVIDIA A100-SXM4-80GB", "tf32") == 156.0
    assert peak_tflop_per_second("NVIDIA H100 80GB HBM3", "fp32") is None
    assert peak_tflop_per_second("box", "bf16") is None
    assert peak_tflop_per_second(None, None) is None


def converging(folder, samples, *, batch):
    """Write a set of runs with one evaluation each, after the given numbers of samples."""
    for i, number in enumerate(samples):
        log = whole_run(cycles=1, start=1e4 * i, global_batch_size=batch)
        text = "\n".join(log.lines).replace(f'"epoch_num": {40 * batch}', f'"epoch_num": {number}')
        folder.mkdir(exist_ok=True)
        (folder / f"result_{i}.txt").write_text(text)
    return folder


def test_convergence_is_compared_with_the_reference_points(tmp_path):
    at_128 = next(point for point in reference_points() if point.batch == 128)
    assert len(at_128.samples) == 20
    assert at_128.mean == pytest.approx(sum(sorted(at_128.samples)[1:-1]) / 18)
    assert at_128.least < at_128.mean
    slow, near, fast = (
        metrics_of(
            converging(tmp_path / name, [round(share * at_128.mean)] * REQUIRED_RUNS, batch=128)
        )[0]
        for name, share in (("slow", 1.1), ("near", 0.99), ("fast", 0.7))
    )
    assert (slow.verdict, slow.rcp_factor) == (PASS, 1.0)
    assert slow.minutes_normalized == pytest.approx(slow.minutes_trimmed_mean)
    assert near.verdict == NORMALIZED
    assert near.rcp_factor == pytest.approx(1 / 0.99, rel=1e-4)
    assert near.minutes_normalized == pytest.approx(near.minutes_trimmed_mean / 0.99, rel=1e-4)
    assert fast.verdict == SHORT
    assert fast.minutes_normalized is None


def test_convergence_is_checked_only_for_ten_runs_of_the_closed_sample(tmp_path):
    few = write_set(tmp_path / "few", [3] * (REQUIRED_RUNS - 1))
    small = write_set(tmp_path / "small", [3] * REQUIRED_RUNS, max_extra_msa=16)
    first, second = metrics_of(few, small)
    assert (first.verdict, first.verdict_message) == (NOT_CHECKED, "9 of 10 runs")
    assert (second.verdict, second.verdict_message) == (
        NOT_CHECKED,
        "not the closed division's model and target",
    )


def test_the_reference_mean_is_interpolated_between_its_points():
    low, high = reference_points()
    assert reference_mean((low.batch + high.batch) // 2) == pytest.approx(
        (low.mean + high.mean) / 2
    )
    assert reference_mean(32) == low.mean
    assert reference_mean(high.batch + 1) is None


def test_a_batch_above_the_reference_points_fails(tmp_path):
    (found,) = metrics_of(converging(tmp_path / "large", [400_000] * REQUIRED_RUNS, batch=512))
    assert found.verdict == SHORT
    assert "Missing RCP" in found.verdict_message
    assert found.reference_samples is None


def test_the_checker_does_not_change_the_folder(tmp_path):
    folder = write_set(tmp_path / "set", [3] * REQUIRED_RUNS)
    (folder / "scaling.json").write_text("{}")
    before = sorted(path.name for path in folder.iterdir())
    metrics_of(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def write_concurrent_runs(folder, **settings):
    for i in range(3):
        whole_run(cycles=3 + i, start=i, **settings).write(folder / f"result_{i}.txt")
    return folder


def test_throughput_is_detected_by_name_and_selected_by_option(tmp_path):
    weak = write_concurrent_runs(tmp_path / "org__system__weak")
    strong = write_concurrent_runs(tmp_path / "org__system__strong")
    total = (2 + 120 + 320 + 50) / 60
    first, second = metrics_of(weak, strong)
    assert (first.is_throughput, first.minutes_side_by_side) == (True, pytest.approx(total))
    assert (second.is_throughput, second.minutes_side_by_side) == (False, None)
    (forced,) = metrics_of(strong, is_throughput=True)
    assert forced.minutes_side_by_side == pytest.approx(total)
    # Each of the three runs has four nodes with eight accelerators.
    assert (forced.nodes, forced.accelerators, forced.accelerators_per_run) == (12, 96, 32)
    assert forced.share_of_peak == second.share_of_peak


def test_logs_with_the_nodes_of_the_whole_job(tmp_path):
    folder = write_concurrent_runs(tmp_path / "weak", number_of_nodes=12)
    (found,) = metrics_of(folder)
    assert (found.nodes, found.accelerators, found.accelerators_per_run) == (12, 96, 32)


def test_folders_are_sets_and_loose_logs_are_grouped(tmp_path):
    write_set(tmp_path / "all" / "a", [3, 3])
    write_set(tmp_path / "all" / "b", [3], global_batch_size=64)
    for seed in (1, 2):
        whole_run(seed=seed).write(tmp_path / "runs" / f"seed_{seed}" / "mlperf.log")
    whole_run(global_batch_size=64).write(tmp_path / "runs" / "other" / "mlperf.log")
    sets = gather([tmp_path / "all", tmp_path / "runs"]).sets
    assert sorted(len(each.runs) for each in sets) == [1, 1, 2, 2]


def test_loose_logs_of_different_presets_are_different_sets(tmp_path):
    for name in ("one", "two"):
        whole_run().write(tmp_path / name / "mlperf.log")
        config = {
            "preset": name,
            "config": {"parallel": {"dap_size": 2}},
            "machine": {"accelerator": "NVIDIA H200"},
        }
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    found = metrics_of(tmp_path)
    assert [each.preset for each in found] == ["one", "two"]
    assert [(each.dap_size, each.is_dap_size_inferred, each.accelerator) for each in found] == [
        (2, False, "NVIDIA H200")
    ] * 2


def test_a_folder_of_different_configurations_is_rejected(tmp_path):
    write_set(tmp_path / "good", [3])
    bad = write_set(tmp_path / "bad", [3, 3])
    whole_run(global_batch_size=64).write(bad / "result_7.txt")
    found = gather([tmp_path])
    assert len(found.sets) == 1
    (rejection,) = found.rejections
    assert rejection.path == bad
    assert "global_batch_size is 32 and 64" in rejection.reason


def test_submitter_and_system_are_inferred_from_the_path(tmp_path):
    package = tmp_path / "Center"
    folder = package / "results" / "big_8x4" / "weak" / "openfold"
    (package / "systems").mkdir(parents=True)
    (package / "systems" / "big_8x4.json").write_text(
        json.dumps({"accelerator_model_name": "NVIDIA A100-SXM4-80GB"})
    )
    folder.mkdir(parents=True)
    origin = describe_origin(folder)
    assert (origin.submitter, origin.system, origin.accelerator, origin.is_throughput) == (
        "Center",
        "big_8x4",
        "NVIDIA A100-SXM4-80GB",
        True,
    )
    assert describe_origin(tmp_path / "A__b__strong").submitter == "A"
    assert describe_origin(tmp_path / "results" / "runs").submitter is None
    assert not describe_origin(tmp_path / "tweak").is_throughput


def test_paths_without_logs_are_errors(tmp_path):
    with pytest.raises(BenchmarkError, match="does not exist"):
        gather([tmp_path / "absent"])
    with pytest.raises(BenchmarkError, match="has no logs"):
        gather([tmp_path])
