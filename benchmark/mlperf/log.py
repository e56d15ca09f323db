"""The MLPerf log of a run, with the keys and order of the logs published for MLPerf HPC v3.0."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mlperf_logging.mllog import constants
from mlperf_logging.mllog.mllog import MLLogger

from benchmark.machine import CHECKOUT
from benchmark.mlperf.log_values import hyperparameter_values
from benchmark.mlperf.run_log import CONTINUED_KEY, MONOTONIC_KEY
from benchmark.mlperf.submitter import Submitter
from benchmark.run.run_clock import RunClock
from openfold_opt.train.config import RunConfig
from openfold_opt.train.observer import (
    EvaluationReport,
    NullObserver,
    PhaseReport,
    RunInfo,
    StepReport,
)
from openfold_opt.train.phase_goal import ABORTED, PHASE_COMPLETE

INSTANCE = {"instance": 0}
"""Metadata of the published logs: the number of the run in a job with concurrent runs."""
SETTINGS_KEY = "changed_fields"
"""Key of the fields that `--set` changed, as FIELD=VALUE."""
PHASE_KEY = "phase"
"""Our own key: the start of a phase of a run with several phases."""


class MLPerfObserver(NullObserver):
    """Writes the events of one run to one file and flushes every line.

    Args:
        path: the log; an existing file is overwritten.
        submitter: values of the submission_* keys.
        division: "closed" or "open".
        cache_cleared: whether the pages of the data set were dropped from the page cache.
        num_resumptions: how often the run was resumed. Above 0 the log has CONTINUED_KEY, and
            `check` refuses it.
        clock: started and stopped with the run. run_stop has its monotonic duration, which `check`
            compares with the times of the events.
        settings: FIELD=VALUE of `--set`, logged as SETTINGS_KEY if there are any.
    """

    def __init__(
        self,
        path: Path,
        *,
        submitter: Submitter,
        division: str,
        cache_cleared: bool,
        num_resumptions: int = 0,
        clock: RunClock | None = None,
        settings: Sequence[str] = (),
    ) -> None:
        self._submitter = submitter
        self._division = division
        self._cache_cleared = cache_cleared
        self._num_resumptions = num_resumptions
        self._settings = list(settings)
        self._clock = clock if clock is not None else RunClock()
        # The logger is not in the registry of logging: two runs in a process must not share a file.
        self._handler = logging.FileHandler(path, mode="w", encoding="utf-8")
        # By default logging prints a write error and continues; a run needs its log.
        self._handler.handleError = self._raise_again
        self._cannot_write = False
        logger = logging.Logger("mlperf", level=logging.INFO)
        logger.addHandler(self._handler)
        # Stack offset 2 logs the line of the caller of _event, _start and _end.
        self._log = MLLogger(logger, default_stack_offset=2, root_dir=re.escape(str(CHECKOUT)))
        self._run_started = False
        self._loader_window = 0
        self._num_intervals = 0
        self._data_waits: list[float] = []

    def _event(self, key: str, value: object = None, **metadata: object) -> None:
        self._log.event(key, value, metadata=metadata)

    def _start(self, key: str, **metadata: object) -> None:
        self._log.start(key, metadata=metadata)

    def _end(self, key: str, **metadata: object) -> None:
        self._log.end(key, metadata=metadata)

    def init_start(self, config: RunConfig, *, seed: int) -> None:
        """Write the first line of the log. The configuration follows before init_stop."""
        self._start(constants.INIT_START)
        self._event(constants.CACHE_CLEAR, self._cache_cleared)

    def init_stop(self, info: RunInfo) -> None:
        """Log everything that is fixed before data is read, then the end of the initialization."""
        self._log_submission(info)
        for key, value in hyperparameter_values(info.config).items():
            self._event(key, value)
        self._event("init_checkpoint_sha256sum", info.init_checkpoint_sha256 or "")
        self._event("swa_enabled", True)
        self._event("swa_decay_rate", info.config.weight_average.decay_rate)
        self._event("model_parameters_count", info.num_parameters)
        self._log_staging()
        self._end(constants.INIT_STOP)

    def _log_submission(self, info: RunInfo) -> None:
        config = info.config
        self._event(constants.SUBMISSION_BENCHMARK, "openfold")
        self._event(constants.SUBMISSION_ORG, self._submitter.organization)
        self._event(constants.SUBMISSION_DIVISION, self._division)
        self._event(constants.SUBMISSION_STATUS, self._submitter.status)
        self._event(
            constants.SUBMISSION_PLATFORM, f"{info.number_of_nodes}x{self._submitter.platform}"
        )
        if self._num_resumptions:
            self._event(
                CONTINUED_KEY, self._num_resumptions, resumed_from_step=info.resumed_from_step
            )
        self._event(constants.SEED, info.seed)
        self._event("number_of_ranks", info.number_of_ranks)
        self._event("number_of_nodes", info.number_of_nodes)
        self._event("accelerators_per_node", 0 if info.device == "cpu" else info.ranks_per_node)
        self._event(constants.GLOBAL_BATCH_SIZE, info.global_batch_size)
        self._event("gradient_accumulation_steps", config.accumulation)
        self._event("target_avg_lddt_ca_value", config.evaluation.target_lddt_ca)
        self._event("train_max_pdb_release_date", config.selection.train_max_release_date)
        self._event("val_min_cameo_submission_date", config.selection.validation_min_date)
        self._event("val_max_cameo_submission_date", config.selection.validation_max_date)
        self._event("val_max_sequence_length", config.selection.validation_max_length)
        self._event("val_every_iters", config.evaluation.every_steps)
        self._event("precision", config.precision)
        if self._settings:
            self._event(SETTINGS_KEY, self._settings)

    def _log_staging(self) -> None:
        """Log a staging time of zero, because shards are read in place."""
        self._event("staging_start")
        self._event("staging_stop", staging_duration=0.0, **INSTANCE)
        self._event("tracked_stats", {"staging_duration": 0.0}, step=0, **INSTANCE)

    def run_start(self, info: RunInfo) -> None:
        """Start the clock."""
        self._start(constants.RUN_START)
        self._clock.start()
        self._run_started = True
        self._loader_window = info.config.loader.window

    def data_ready(
        self, *, train_samples: int, eval_samples: int, held_out: Sequence[str] = ()
    ) -> None:
        """Log the sizes of the data set, counted after the clock started."""
        self._event(constants.TRAIN_SAMPLES, train_samples)
        self._event(constants.EVAL_SAMPLES, eval_samples)
        in_order = self._loader_window == 0
        self._event(
            "initial_training_dataloader_type",
            # The names in the published logs: PyTorch's order, or a priority queue.
            f"InitialTrainingDataloader{'PT' if in_order else 'PQ'}",
        )

    def phase_start(self, report: PhaseReport) -> None:
        """Log the phase, with the values that may differ between phases."""
        config = report.info.config
        self._event(
            PHASE_KEY,
            report.name,
            number=report.number,
            first_step=report.steps_before + 1,
            last_step=report.last_step,
            global_batch_size=report.info.global_batch_size,
            gradient_accumulation_steps=config.accumulation,
            dap_size=config.parallel.dap_size,
            crop_size=config.data.crop_size,
        )

    def interval_start(self, *, step: int, samples_at_end: int) -> None:
        """Log the beginning of a training interval."""
        self._num_intervals += 1
        self._data_waits.clear()
        self._start(constants.EPOCH_START, epoch_num=samples_at_end, **INSTANCE)

    def step(self, report: StepReport) -> None:
        """Collect the wait for data. Single steps are not logged."""
        self._data_waits.append(report.data_wait_seconds)

    def interval_stop(self, *, step: int, samples_at_end: int, samples_per_second: float) -> None:
        """Log the throughput in samples per second and the mean wait for a batch in seconds."""
        self._end(constants.EPOCH_STOP, epoch_num=samples_at_end, **INSTANCE)
        # In the published logs, this "step" is the number of the training interval.
        position = {"step": self._num_intervals, **INSTANCE}
        self._event("tracked_stats", {"throughput": samples_per_second}, **position)
        if self._data_waits:
            mean_wait = sum(self._data_waits) / len(self._data_waits)
            self._event("tracked_stats", {"data_wait_seconds_per_step": mean_wait}, **position)

    def evaluation_start(self, *, step: int, samples_at_end: int) -> None:
        """Log the beginning of an evaluation."""
        self._start(constants.EVAL_START, epoch_num=samples_at_end, **INSTANCE)

    def evaluation(self, report: EvaluationReport) -> None:
        """Log lDDT-Ca, 0 to 1."""
        samples = report.samples_at_end
        self._event(constants.EVAL_ACCURACY, report.lddt_ca, epoch_num=samples, **INSTANCE)

    def evaluation_stop(self, *, step: int, samples_at_end: int) -> None:
        """Log the end of an evaluation."""
        self._end(constants.EVAL_STOP, epoch_num=samples_at_end, **INSTANCE)

    def run_stop(self, *, status: str, samples: int) -> None:
        """Stop the clock. MLPerf has no status for a run that ends between two phases."""
        phase = {"phase_complete": True} if status == PHASE_COMPLETE else {}
        self._stop_clock(status=ABORTED if phase else status, **phase)

    def run_failed(self, error: BaseException) -> None:
        """Stop the clock if it is running, so that the log has an outcome."""
        if self._run_started:
            self._stop_clock(status="aborted", error=type(error).__name__)

    def _stop_clock(self, **metadata: object) -> None:
        self._run_started = False
        self._clock.stop()
        elapsed = {MONOTONIC_KEY: round(self._clock.monotonic_seconds, 3)}
        self._end(constants.RUN_STOP, **metadata, **elapsed)

    def close(self) -> None:
        """Close the file. Raises OSError if that fails, unless an earlier write failed."""
        try:
            self._handler.close()
        except OSError:
            if not self._cannot_write:
                raise

    def _raise_again(self, record: logging.LogRecord) -> None:
        """Raise the current write error, which logging would only print, with the file name."""
        self._cannot_write = True
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.filename is None:
            error.filename = self._handler.baseFilename
        raise
