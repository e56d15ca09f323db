"""Evaluation on separate ranks while training continues.

For each evaluation, the averaged weights are copied to host memory. A thread sends the snapshots to
the evaluation groups round-robin, and the scores return through the store. The cost to training is
one device-to-host copy per evaluation while fewer than `queue_size` snapshots are in progress.
Otherwise training waits for one of them to finish; these waits are counted.

Snapshot number n goes to group n % groups. Keys in the store: `evaluate/<n>` is written before
snapshot n is sent, `scores/<n>` when it is evaluated, and `evaluate/end` after the last snapshot,
with the value PREEMPTED if the run stops on request.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict

import torch
import torch.distributed as dist
from torch import Tensor

from openfold_opt.parallel.context import Bridge, ParallelContext
from openfold_opt.train.errors import NonFiniteError
from openfold_opt.train.evaluation.evaluator import ChainScore, mean_score
from openfold_opt.train.evaluation.inline import EvaluationPoint
from openfold_opt.train.observer import EvaluationReport, RunObserver
from openfold_opt.train.optim.weight_average import WeightAverage

END_KEY = "evaluate/end"
PREEMPTED = "preempted"
"""Value of END_KEY if the run stops on request; otherwise it is empty."""
STOP_KEY = "evaluate/asked to stop"
"""Key that an evaluation rank writes when it receives a request to stop."""
POLL_SECONDS = 0.02


def request_key(number: int) -> str:
    """Return the key that the first training rank writes before it sends snapshot `number`."""
    return f"evaluate/{number}"


def scores_key(number: int) -> str:
    """Return the key for the scores of snapshot `number`, written by an evaluation group."""
    return f"scores/{number}"


class RemoteEvaluation:
    """The side of the training ranks. Only the first of them does any work."""

    def __init__(
        self,
        average: WeightAverage,
        context: ParallelContext,
        *,
        queue_size: int,
        observer: RunObserver,
        note: Callable[..., None],
    ) -> None:
        self.num_waits = 0
        self.wait_seconds = 0.0
        self.is_stop_requested = False
        assert context.store is not None and context.bridge is not None
        self._average = average
        self._store = context.store
        self._queue_size = queue_size
        self._observer = observer
        self._note = note
        self._num_requested = 0
        self._in_progress: dict[int, EvaluationPoint] = {}
        self._reports: list[EvaluationReport] = []
        self._sender: _Sender | None = None
        if context.training_ranks.rank == 0:
            self._sender = _Sender(context.store, context.bridge)

    def request(self, point: EvaluationPoint) -> None:
        if self._sender is None:
            return
        self._wait_for_queue()
        self._observer.evaluation_start(step=point.step, samples_at_end=point.samples_at_end)
        number, self._num_requested = self._num_requested, self._num_requested + 1
        self._in_progress[number] = point
        self._sender.send(number, point, self._average.average)

    def finished(self) -> Iterable[EvaluationReport]:
        self._poll()
        reports, self._reports = self._reports, []
        return reports

    def drain(self) -> Iterable[EvaluationReport]:
        while self._in_progress:
            self._note(activity=f"waiting for {len(self._in_progress)} evaluations")
            self._poll()
            time.sleep(POLL_SECONDS)
        return self.finished()

    def close(self, *, preempted: bool) -> None:
        if self._sender is not None:
            self._sender.close()
            self._store.set(END_KEY, PREEMPTED if preempted else "")

    def _wait_for_queue(self) -> None:
        """Wait until fewer than `queue_size` snapshots are in progress."""
        if len(self._in_progress) < self._queue_size:
            return
        self.num_waits += 1
        started = time.perf_counter()
        while len(self._in_progress) >= self._queue_size:
            self._note(activity="waiting for a place in the evaluation queue")
            self._poll()
            time.sleep(POLL_SECONDS)
        self.wait_seconds += time.perf_counter() - started
        self._observer.warning(
            f"training waited {time.perf_counter() - started:.1f} s for evaluations: "
            f"{self._queue_size} snapshots were in progress; use more evaluation ranks or groups "
            "to prevent this"
        )

    def _poll(self) -> None:
        """Collect the reports of finished evaluations, in the order of their requests."""
        if self._sender is None:
            return
        self._sender.check()
        store = self._store
        self.is_stop_requested = self.is_stop_requested or store.check([STOP_KEY])
        for number in list(self._in_progress):
            if not store.check([scores_key(number)]):
                # Another group may have finished a later evaluation; reports keep their order.
                break
            result = json.loads(store.get(scores_key(number)))
            self._reports.append(self._build_report(result, self._in_progress.pop(number)))

    @staticmethod
    def _build_report(result: dict, point: EvaluationPoint) -> EvaluationReport:
        if "error" in result:
            message = f"evaluation after step {point.step}: {result['error']}"
            raise NonFiniteError(message, step=point.step)
        scores = tuple(ChainScore(**score) for score in result["scores"])
        return EvaluationReport(
            step=point.step,
            samples_at_end=point.samples_at_end,
            lddt_ca=mean_score(scores),
            chains=scores,
            seconds=result["seconds"],
        )


class _Sender:
    """Sends snapshots in order from a thread, and reuses their host memory."""

    def __init__(self, store: dist.Store, bridge: Bridge) -> None:
        self._store = store
        self._bridge = bridge
        self._jobs: queue.Queue[tuple[int, EvaluationPoint, Tensor] | None] = queue.Queue()
        self._spare: queue.Queue[Tensor] = queue.Queue()
        """Host memory of snapshots that were sent."""
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def send(self, number: int, point: EvaluationPoint, weights: Tensor) -> None:
        """Copy the weights to the host and return before they are sent."""
        try:
            copy = self._spare.get_nowait()
        except queue.Empty:
            copy = torch.empty_like(weights, device="cpu", pin_memory=weights.is_cuda)
        copy.copy_(weights)
        self._jobs.put((number, point, copy))
        if self._thread is None:
            # Started with the first job, so that an error during set-up leaves no thread behind.
            self._thread = threading.Thread(
                target=self._run, name="snapshots to evaluate", daemon=True
            )
            self._thread.start()

    def check(self) -> None:
        """Raise RuntimeError if the thread failed."""
        if self._error is not None:
            raise RuntimeError(
                f"weights could not be sent to the evaluation ranks: {self._error}"
            ) from self._error

    def close(self) -> None:
        """Drop snapshots that wait to be sent, and wait for the one that is being sent."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)
        if self._thread is not None:
            # The thread ends: the heartbeat detects a lost group, and sends have a timeout.
            self._thread.join()

    def _run(self) -> None:
        bridge = self._bridge
        try:
            while (job := self._jobs.get()) is not None:
                number, point, weights = job
                self._store.set(request_key(number), json.dumps(asdict(point)))
                dist.send(
                    weights,
                    dst=bridge.evaluators[number % len(bridge.evaluators)],
                    group=bridge.process_group,
                )
                self._spare.put(weights)
        except BaseException as error:
            self._error = error
