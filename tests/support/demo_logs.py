"""Logs of synthetic runs, written by the observer of real runs."""

from __future__ import annotations

import json
import logging

from mlperf_logging.mllog.mllog import MLLogger

from benchmark.mlperf.log import MLPerfObserver
from benchmark.mlperf.submitter import Submitter
from benchmark.presets import build_preset
from benchmark.submission.description import MEANINGS
from openfold_opt.train.evaluation.evaluator import ChainScore
from openfold_opt.train.observer import EvaluationReport, RunInfo

DESCRIPTION = {
    "submitter": "Example",
    "division": "open",
    "status": "research",
    "system_name": "two cores",
    "number_of_nodes": "1",
    "host_processors_per_node": "1",
    "host_processor_model_name": "a processor",
    "host_processor_core_count": "2",
    "host_memory_capacity": "24 GiB",
    "host_networking": "none",
    "accelerators_per_node": "0",
    "framework": "PyTorch",
    "other_software_stack": {"python_version": "3.11"},
    "operating_system": "Linux",
}


def write_demo_log(
    path, *, seed, scores=(0.5, 0.81), minutes=0.0, global_batch_size=2, num_resumptions=0
):
    """Write the log of a demo run with an evaluation after every 100 steps.

    Runs of different seeds start an hour apart.

    Args:
        scores: lDDT-Ca of each evaluation.
        minutes: Duration that is added to the run.
    """
    config = build_preset("demo")
    path.parent.mkdir(parents=True, exist_ok=True)
    submitter = Submitter(organization="Example", platform="machine")
    log = MLPerfObserver(
        path,
        submitter=submitter,
        division="open",
        cache_cleared=True,
        num_resumptions=num_resumptions,
    )
    info = RunInfo(
        config=config,
        seed=seed,
        number_of_ranks=1,
        number_of_nodes=1,
        ranks_per_node=1,
        device="cpu",
        global_batch_size=global_batch_size,
        num_parameters=380642,
        num_tensors=336,
        init_checkpoint_sha256=None,
        resumed_from_step=0,
    )
    log.init_start(config, seed=seed)
    log.init_stop(info)
    log.run_start(info)
    log.data_ready(train_samples=368, eval_samples=16)
    for index, score in enumerate(scores):
        step, samples = 100 * (index + 1), 200 * (index + 1)
        log.interval_start(step=step - 100, samples_at_end=samples)
        log.interval_stop(step=step, samples_at_end=samples, samples_per_second=12.0)
        log.evaluation_start(step=step, samples_at_end=samples)
        chains = (ChainScore(chain_id="7abc_A", lddt_ca=score, num_residues=100),)
        log.evaluation(
            EvaluationReport(
                step=step, samples_at_end=samples, lddt_ca=score, chains=chains, seconds=2.0
            )
        )
        log.evaluation_stop(step=step, samples_at_end=samples)
    log.run_stop(status="success" if scores[-1] >= 0.8 else "aborted", samples=200 * len(scores))
    log.close()
    events = [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]
    for event in events:
        event["time_ms"] += 3_600_000 * seed
    last = events[-1]
    assert last["key"] == "run_stop"
    last["time_ms"] += round(60_000 * minutes)
    last["metadata"]["monotonic_seconds"] += 60 * minutes
    path.write_text("".join(f":::MLLOG {json.dumps(event)}\n" for event in events))
    return path


def write_record(folder, *, commit, **changes):
    """Write config.json with the keys that `submit` reads."""
    record = {
        "preset": "demo",
        "config": {"data": {"crop_size": 36}},
        "data_checksum": "abc",
        "versions": {"commit": commit},
        "machine": {"host": "node17", "accelerator": "none"},
    }
    (folder / "config.json").write_text(json.dumps(record | changes))


def write_power(folder, *, watts=200.0, seconds=10):
    """Write power/node_0.txt with a reading every second."""
    log = logging.Logger("power", level=logging.INFO)
    (folder / "power").mkdir()
    log.addHandler(logging.FileHandler(folder / "power" / "node_0.txt"))
    events = MLLogger(log)
    events.start("power_measurement_start", time_ms=0)
    for second in range(1, seconds + 1):
        events.event("power_reading", watts, time_ms=1000 * second)
    events.end("power_measurement_stop", time_ms=1000 * seconds)
    log.handlers[0].close()


def write_description(path, **changes):
    """Write a complete system description; optional keys are empty."""
    path.write_text(json.dumps(dict.fromkeys(MEANINGS, "") | DESCRIPTION | changes))
    return path
