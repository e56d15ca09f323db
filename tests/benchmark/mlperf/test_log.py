"""The MLPerf log: keys and order of the published logs, values of the configuration."""

import dataclasses
import json

import pytest

from benchmark.mlperf.check import check_log
from benchmark.mlperf.log import MLPerfObserver
from benchmark.mlperf.run_log import RunLog
from benchmark.mlperf.submitter import Submitter, read_submitter
from benchmark.presets import build_preset
from benchmark.presets.mlperf_reference import INIT_CHECKPOINT_SHA256
from openfold_opt.train.evaluation.evaluator import ChainScore
from openfold_opt.train.observer import EvaluationReport, RunInfo, StepReport

INIT_KEYS = (
    "init_start cache_clear submission_benchmark submission_org submission_division "
    "submission_status submission_platform seed number_of_ranks number_of_nodes "
    "accelerators_per_node global_batch_size gradient_accumulation_steps "
    "target_avg_lddt_ca_value train_max_pdb_release_date val_min_cameo_submission_date "
    "val_max_cameo_submission_date val_max_sequence_length val_every_iters precision "
    "train_sequence_crop_size num_recycling_iters max_msa_clusters max_extra_msa "
    "templates_enabled max_templates fape_loss_weight fape_loss_backbone_weight "
    "fape_loss_sidechain_weight supervised_chi_loss_weight distogram_loss_weight "
    "masked_msa_loss_weight plddt_loss_weight opt_name opt_base_learning_rate opt_adam_beta_1 "
    "opt_adam_beta_2 opt_adam_epsilon opt_weight_decay opt_amsgrad opt_gradient_clipping "
    "opt_gradient_clip_norm opt_learning_rate_warmup_init opt_learning_rate_warmup_steps "
    "init_checkpoint_sha256sum swa_enabled swa_decay_rate model_parameters_count staging_start "
    "staging_stop tracked_stats init_stop run_start"
).split()
DATA_KEYS = ["train_samples", "eval_samples", "initial_training_dataloader_type"]
BLOCK_KEYS = [
    "epoch_start",
    "epoch_stop",
    "tracked_stats",
    "tracked_stats",
    "eval_start",
    "eval_accuracy",
    "eval_stop",
]


def run_info(config, **changes):
    values = {
        "config": config,
        "seed": 1234,
        "number_of_ranks": 128,
        "number_of_nodes": 16,
        "ranks_per_node": 8,
        "device": "NVIDIA H200",
        "global_batch_size": 128,
        "num_parameters": 93229082,
        "num_tensors": 5044,
        "init_checkpoint_sha256": INIT_CHECKPOINT_SHA256,
        "resumed_from_step": 0,
    }
    return RunInfo(**(values | changes))


def step_report(step, *, wait=0.25):
    return StepReport(
        step=step,
        samples_seen=128 * step,
        num_recycling_iterations=0,
        loss=1.0,
        terms={},
        gradient_norm=1.0,
        learning_rate=1e-3,
        step_time_seconds=1.0,
        data_wait_seconds=wait,
        queue_depth=2,
        reorder_distance=0,
    )


def send_run(observer, info, *, lddt_ca=0.81):
    """The events of a run with one block."""
    observer.init_start(info.config, seed=info.seed)
    observer.init_stop(info)
    observer.run_start(info)
    observer.data_ready(train_samples=594595, eval_samples=180)
    observer.interval_start(step=0, samples_at_end=5120)
    observer.step(step_report(1, wait=0.25))
    observer.step(step_report(2, wait=0.75))
    observer.interval_stop(step=40, samples_at_end=5120, samples_per_second=64.0)
    observer.evaluation_start(step=40, samples_at_end=5120)
    chains = (ChainScore(chain_id="7abc_A", lddt_ca=lddt_ca, num_residues=100),)
    observer.evaluation(
        EvaluationReport(step=40, samples_at_end=5120, lddt_ca=lddt_ca, chains=chains, seconds=2.0)
    )
    observer.evaluation_stop(step=40, samples_at_end=5120)
    observer.run_stop(status="success", samples=5120)


@pytest.fixture
def reference_config():
    return build_preset("mlperf_reference")


def new_observer(path, **changes):
    arguments = {
        "submitter": Submitter(platform="machine"),
        "division": "closed",
        "cache_cleared": True,
    }
    return MLPerfObserver(path, **(arguments | changes))


@pytest.fixture
def events(tmp_path, reference_config):
    observer = new_observer(tmp_path / "mlperf.log")
    send_run(observer, run_info(reference_config))
    observer.close()
    log = RunLog.read(tmp_path / "mlperf.log")
    assert log.damage == ()
    return log.events


def test_keys_and_their_order(events):
    assert [event.key for event in events] == [*INIT_KEYS, *DATA_KEYS, *BLOCK_KEYS, "run_stop"]


def test_order_is_that_of_the_published_logs(shared):
    for path in sorted((shared / "facts" / "mlperf_hpc_v3.0_logs").rglob("result_1.txt")):
        published = RunLog.read(path).events
        assert [event.key for event in published][: len(INIT_KEYS)] == INIT_KEYS, path


def test_event_types_are_those_of_the_published_logs(shared, events):
    path = next((shared / "facts" / "mlperf_hpc_v3.0_logs").glob("TACC*/result_1.txt"))
    published = RunLog.read(path).events
    kinds = {event.key: event.event_type for event in published}
    for event in events:
        assert event.event_type == kinds[event.key], event.key


def test_fixed_values_are_those_of_the_published_logs(shared, events):
    path = next((shared / "facts" / "mlperf_hpc_v3.0_logs").glob("TACC*/result_1.txt"))
    published = RunLog.read(path).events
    expected = {event.key: event.value for event in published}
    found = {event.key: event.value for event in events}
    site = {
        "submission_org",
        "submission_platform",
        "submission_status",
        "seed",
        "number_of_ranks",
        "number_of_nodes",
    }
    free = {
        "accelerators_per_node",
        "global_batch_size",
        "gradient_accumulation_steps",
        "eval_accuracy",
    }
    for key in found.keys() - site - free - {"tracked_stats"}:
        assert found[key] == expected[key], key


def test_closed_log_of_the_reference_preset_complies(tmp_path, reference_config):
    observer = new_observer(tmp_path / "mlperf.log")
    send_run(observer, run_info(reference_config))
    observer.close()
    result = check_log(tmp_path / "mlperf.log")
    assert result.passed, result.complaints


def test_open_log_of_a_changed_preset_complies(tmp_path, reference_config):
    data = dataclasses.replace(reference_config.data, max_extra_msa=16)
    config = dataclasses.replace(reference_config, data=data)
    for division, passes in (("open", True), ("closed", False)):
        path = tmp_path / f"{division}.log"
        observer = new_observer(path, division=division)
        send_run(observer, run_info(config, device="cpu", init_checkpoint_sha256=None))
        observer.close()
        assert check_log(path).passed == passes


def test_metadata_of_blocks(events):
    by_key = {event.key: event for event in events}
    for key in ("epoch_start", "epoch_stop", "eval_start", "eval_accuracy", "eval_stop"):
        assert by_key[key].detail("epoch_num") == 5120
    stats = [event for event in events if event.key == "tracked_stats"]
    assert stats[1].value == {"throughput": 64.0} and stats[1].detail("step") == 1
    assert stats[2].value == {"data_wait_seconds_per_step": 0.5}
    assert by_key["run_stop"].detail("status") == "success"


def test_file_names_are_relative_to_the_checkout(events):
    assert {event.detail("file") for event in events} == {"benchmark/mlperf/log.py"}
    assert len({event.detail("lineno") for event in events}) > 30


def test_cpu_run_has_no_accelerators(tmp_path, reference_config):
    observer = new_observer(tmp_path / "mlperf.log", cache_cleared=False)
    send_run(observer, run_info(reference_config, device="cpu"))
    values = RunLog.read(tmp_path / "mlperf.log").values
    assert values["accelerators_per_node"] == 0
    assert values["cache_clear"] is False


def test_continued_log_is_marked_and_refused(tmp_path, reference_config):
    observer = new_observer(tmp_path / "mlperf.log", num_resumptions=2)
    send_run(observer, run_info(reference_config, resumed_from_step=40))
    event = RunLog.read(tmp_path / "mlperf.log").first("run_continued")
    assert event.value == 2 and event.detail("resumed_from_step") == 40
    assert not check_log(tmp_path / "mlperf.log").passed


def test_two_runs_in_one_process_do_not_share_a_file(tmp_path, reference_config):
    first, second = new_observer(tmp_path / "a.log"), new_observer(tmp_path / "b.log")
    first.init_start(reference_config, seed=1)
    second.init_start(reference_config, seed=2)
    first.run_stop(status="aborted", samples=0)
    assert len((tmp_path / "a.log").read_text().splitlines()) == 3
    assert len((tmp_path / "b.log").read_text().splitlines()) == 2


def test_failure_stops_a_running_clock_only(tmp_path, reference_config):
    before = new_observer(tmp_path / "before.log")
    before.init_start(reference_config, seed=1)
    before.run_failed(ValueError("x"))
    assert "run_stop" not in (tmp_path / "before.log").read_text()
    during = new_observer(tmp_path / "during.log")
    during.init_start(reference_config, seed=1)
    during.init_stop(run_info(reference_config))
    during.run_start(run_info(reference_config))
    during.run_failed(RuntimeError("x"))
    last = json.loads((tmp_path / "during.log").read_text().splitlines()[-1].partition(" ")[2])
    assert last["key"] == "run_stop" and last["metadata"]["status"] == "aborted"


def test_submitter_comes_from_the_environment():
    environment = {"SUBMISSION_ORG": "A", "SUBMISSION_PLATFORM": "b", "SUBMISSION_STATUS": "onprem"}
    assert read_submitter(environment) == Submitter(organization="A", platform="b", status="onprem")
    assert read_submitter({}) == Submitter()
    for name in ("SUBMISSION_ORG", "SUBMISSION_PLATFORM"):
        for value in ("A, B", "two\nlines", "a\rb", 'a "name"', "tab\there"):
            with pytest.raises(ValueError, match=f"{name} is .*expected a name without commas"):
                read_submitter({name: value})
    odd = "HPE+LBNL; Zürich (x)"
    assert read_submitter({"SUBMISSION_ORG": odd}).organization == odd
    with pytest.raises(ValueError, match="SUBMISSION_STATUS is 'sold'"):
        read_submitter({"SUBMISSION_STATUS": "sold"})
