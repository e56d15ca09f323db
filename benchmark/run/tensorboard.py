"""Write the metrics of a run as event files for TensorBoard.

The files are in OUTPUT_DIR/tensorboard: one for each process of the run, in the order of their
names. TensorBoard then shows the metrics of a resumed run as one line, because the file of a
process removes the steps that it repeats from those of the processes before.

The package `tensorboard` is optional and is imported only for this. Events are written at once by
the thread of the caller: a full disk is an OSError of the event, as for steps.jsonl, and no thread
remains when the process ends.
"""

from __future__ import annotations

import importlib.util
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmark.command_line import BenchmarkError
from benchmark.replace_file import append_bytes
from openfold_opt.train.build_run import peak_memory_bytes
from openfold_opt.train.observer import (
    EvaluationReport,
    NullObserver,
    PhaseReport,
    RunInfo,
    StepReport,
)

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

TENSORBOARD_FOLDER = "tensorboard"
FILE_PREFIX = "events.out.tfevents."
"""TensorBoard reads the files of a folder in the order of their names."""
FILE_VERSION = "brain.Event:2"
"""The version of the format, in which a start of a session removes later steps."""


def check_tensorboard() -> None:
    """Raise BenchmarkError if the package is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise BenchmarkError(
            "--tensorboard needs the package tensorboard, which is not installed; install it with "
            "the extra: pip install 'openfold-opt[tensorboard]' (in the checkout: pip install "
            "'.[tensorboard]'), or leave out --tensorboard"
        )


class TensorBoardObserver(NullObserver):
    """Writes the metrics of steps, evaluations and phases.

    Args:
        folder: the output directory of the run.
        continued: whether the files of earlier processes of this run remain.
    """

    def __init__(self, folder: Path, *, continued: bool = False) -> None:
        events = folder / TENSORBOARD_FOLDER
        events.mkdir(exist_ok=True)
        earlier = sorted(events.glob(FILE_PREFIX + "*"))
        if not continued:
            # An earlier run may have ended before its first checkpoint.
            for path in earlier:
                path.unlink()
            earlier = []
        self._path = events / f"{FILE_PREFIX}{len(earlier):05d}"
        self._global_batch_size = 0
        self._log_every_steps = 1
        self._device = torch.device("cpu")

    def init_stop(self, info: RunInfo) -> None:
        """Start the file of this process."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._use(info)
        if info.device != "cpu":
            self._device = torch.device("cuda", torch.cuda.current_device())
        self._append(Event(wall_time=time.time(), file_version=FILE_VERSION))
        # TensorBoard removes this step and later ones of the files before.
        start = SessionLog(status=SessionLog.START)
        first_step = info.resumed_from_step + 1
        self._append(Event(wall_time=time.time(), step=first_step, session_log=start))

    def phase_start(self, report: PhaseReport) -> None:
        """Write the number of the phase."""
        self._use(report.info)
        first_step = max(report.steps_before, report.info.resumed_from_step) + 1
        self._write(first_step, {"phase": report.number})

    def step(self, report: StepReport) -> None:
        """Write the metrics of a step; memory every log_every_steps steps."""
        values = {f"loss terms/{name}": value for name, value in report.terms.items()}
        values |= {
            "loss": report.loss,
            "optimizer/gradient norm": report.gradient_norm,
            "optimizer/learning rate": report.learning_rate,
            "speed/step seconds": report.step_time_seconds,
            "speed/data wait seconds": report.data_wait_seconds,
            "loader/queue depth": report.queue_depth,
        }
        if report.step_time_seconds > 0:
            rate = self._global_batch_size / report.step_time_seconds
            values["speed/samples per second"] = rate
        if report.step % self._log_every_steps == 0:
            values["memory/peak GiB of the first rank"] = peak_memory_bytes(self._device) / 2**30
        self._write(report.step, values)

    def evaluation(self, report: EvaluationReport) -> None:
        """Write the mean and the lowest lDDT-Ca, and the duration of the evaluation."""
        values = {
            "lDDT-Ca/mean": report.lddt_ca,
            "lDDT-Ca/lowest": min(chain.lddt_ca for chain in report.chains),
            "speed/evaluation seconds": report.seconds,
        }
        self._write(report.step, values)

    def _use(self, info: RunInfo) -> None:
        """Take the sizes of the run or of the phase."""
        self._global_batch_size = info.global_batch_size
        self._log_every_steps = info.config.log_every_steps

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the value of each name."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        items = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._append(Event(wall_time=time.time(), step=step, summary=Summary(value=items)))

    def _append(self, event: Event) -> None:
        """Append an event to the file. Raises OSError, which names the file."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(event.SerializeToString())
        append_bytes(self._path, record.getvalue())
