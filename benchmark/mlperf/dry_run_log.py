"""Write the log of a preset without a run, and list what the closed division would refuse in it.

The observer of the run writes the log and mlperf-logging checks it, so all keys are covered. The
values that only a run can produce are those of a successful run: the first evaluation reaches
the target.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmark.mlperf.check import check_log
from benchmark.mlperf.log import MLPerfObserver
from benchmark.mlperf.run_log import RunLog
from benchmark.mlperf.submitter import Submitter
from openfold_opt.train.config import RunConfig
from openfold_opt.train.evaluation.evaluator import ChainScore
from openfold_opt.train.observer import EvaluationReport, RunInfo
from openfold_opt.train.precision import meta_model

COUNT_KEYS = ("train_samples", "eval_samples")
"""Keys whose values depend on the data set."""

# The key and the failed condition in an error message of mlperf-logging.
_KEY = re.compile(r"CHECK for '(\w+)' failed|occurrence of '(\w+)'|Failed checks for (\w+)")
_CONDITION = re.compile(r"^failed test: (.*)$|^Failed checks for \w+ : (.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A key of the log that the checker does not accept."""

    key: str
    """Empty if the error names no key."""
    value: object
    """The logged value; None for a missing key."""
    reason: str
    """The condition of the ruleset, or the message of the checker."""


def count_parameters(config: RunConfig) -> int:
    """Return the number of parameters of the model, without allocating them."""
    return sum(
        parameter.numel() for parameter in meta_model(config.model, config.precision).parameters()
    )


def closed_refusals(config: RunConfig, *, samples: tuple[int | None, int | None]) -> list[Refusal]:
    """Return what the checker of the closed division refuses in a successful run's log.

    samples: numbers of chains to train on and to evaluate; None is not checked.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlperf.log"
        _write_log(path, config, samples=samples)
        complaints = check_log(path).complaints
        values = {event.key: event.value for event in RunLog.read(path).events}
    unknown = {key for key, number in zip(COUNT_KEYS, samples, strict=True) if number is None}
    refusals = [_refusal(complaint, values) for complaint in complaints]
    return [refusal for refusal in refusals if refusal.key not in unknown]


def _refusal(complaint: str, values: Mapping[str, object]) -> Refusal:
    named, condition = _KEY.search(complaint), _CONDITION.search(complaint)
    key = "" if named is None else next(filter(None, named.groups()))
    reason = (
        complaint.partition("\n")[0]
        if condition is None
        else next(filter(None, condition.groups()))
    )
    # The conditions of the ruleset are Python expressions of v['value'].
    reason = reason.replace("v['value']", "value").strip()
    return Refusal(key=key, value=values.get(key), reason=reason)


def _write_log(path: Path, config: RunConfig, *, samples: tuple[int | None, int | None]) -> None:
    """Log one DAP group, one training interval, and one evaluation that reaches the target."""
    batch = config.global_batch_size or config.local_batch_size * config.accumulation
    samples_at_end = config.evaluation.every_steps * batch
    interval = {"step": config.evaluation.every_steps, "samples_at_end": samples_at_end}
    info = RunInfo(
        config=config,
        seed=0,
        number_of_ranks=config.parallel.dap_size + config.parallel.num_evaluation_ranks,
        number_of_nodes=1,
        ranks_per_node=config.parallel.dap_size + config.parallel.num_evaluation_ranks,
        device=config.device,
        global_batch_size=batch,
        num_parameters=count_parameters(config),
        num_tensors=0,
        init_checkpoint_sha256=config.init_checkpoint_sha256,
        resumed_from_step=0,
    )
    observer = MLPerfObserver(path, submitter=Submitter(), division="closed", cache_cleared=True)
    score = config.evaluation.target_lddt_ca
    chains = (ChainScore(chain_id="any", lddt_ca=score, num_residues=1),)
    try:
        observer.init_start(config, seed=info.seed)
        observer.init_stop(info)
        observer.run_start(info)
        observer.data_ready(train_samples=samples[0] or 0, eval_samples=samples[1] or 0)
        observer.interval_start(step=0, samples_at_end=samples_at_end)
        observer.interval_stop(**interval, samples_per_second=1.0)
        observer.evaluation_start(**interval)
        observer.evaluation(EvaluationReport(**interval, lddt_ca=score, chains=chains, seconds=1.0))
        observer.evaluation_stop(**interval)
        observer.run_stop(status="success", samples=samples_at_end)
    finally:
        observer.close()
