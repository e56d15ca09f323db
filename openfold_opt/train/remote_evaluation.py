"""Evaluation on ranks of its own while the others train on.

Every evaluation that is due gets a snapshot of the averaged weights in host memory, which a thread sends to one of the evaluation
groups, each in its turn; the scores come back as a word in the store. So training gives up the time of one copy per evaluation, and
nothing else, as long as fewer than `queue_size` snapshots are under way. Beyond that it waits for the earliest, which is counted.

Snapshot number n goes to group n % groups. Keys in the store: `evaluate/<n>` is written before snapshot n is sent, `scores/<n>` when it
is evaluated, `evaluate/end` when there will be no more, with the reason if it is not the end of the run.
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

from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.evaluation import mean_score
from openfold_opt.train.evaluations import EvaluationPoint
from openfold_opt.train.observer import ChainScore, EvaluationReport, RunObserver
from openfold_opt.train.training_interval import NonFiniteError
from openfold_opt.train.weight_average import WeightAverage

END_KEY = "evaluate/end"
PREEMPTED = "preempted"
"""Value of END_KEY if the run was asked to stop."""
STOP_KEY = "evaluate/asked to stop"
"""Where an evaluation rank that was asked to stop passes it on."""
POLL_SECONDS = 0.02


def order_key(number: int) -> str:
    """Where the first training rank says that snapshot `number` is on its way."""
    return f"evaluate/{number}"


def scores_key(number: int) -> str:
    """Where an evaluation group leaves the scores of snapshot `number`."""
    return f"scores/{number}"


class RemoteEvaluation:
    """The training ranks' side; only the first of them does anything."""

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
        self.is_asked_to_stop = False
        self._average = average
        self._context = context
        self._queue_size = queue_size
        self._observer = observer
        self._note = note
        self._num_asked = 0
        self._under_way: dict[int, EvaluationPoint] = {}
        self._arrived: list[EvaluationReport] = []
        self._is_first = context.training_ranks.rank == 0
        self._sender = _Sender(context) if self._is_first else None

    def ask(self, point: EvaluationPoint) -> None:
        if not self._is_first:
            return
        self._wait_for_place()
        self._observer.evaluation_start(step=point.step, epoch_num=point.epoch_num)
        number, self._num_asked = self._num_asked, self._num_asked + 1
        self._under_way[number] = point
        self._sender.send(number, point, self._average.average)

    def finished(self) -> Iterable[EvaluationReport]:
        if self._is_first:
            self._poll()
        reports, self._arrived = self._arrived, []
        return reports

    def drain(self) -> Iterable[EvaluationReport]:
        while self._under_way:
            self._note(activity=f"waiting for {len(self._under_way)} evaluations")
            self._poll()
            time.sleep(POLL_SECONDS)
        return self.finished()

    def close(self, *, preempted: bool) -> None:
        if self._sender is not None:
            self._sender.close()
            self._context.store.set(END_KEY, PREEMPTED if preempted else "")

    def _wait_for_place(self) -> None:
        if len(self._under_way) < self._queue_size:
            return
        self.num_waits += 1
        started = time.perf_counter()
        while len(self._under_way) >= self._queue_size:
            self._note(activity="waiting for a place in the evaluation queue")
            self._poll()
            time.sleep(POLL_SECONDS)
        self.wait_seconds += time.perf_counter() - started
        self._observer.warning(
            f"training waited {time.perf_counter() - started:.1f} s for evaluations: {self._queue_size} snapshots were under way; "
            "more evaluation ranks or groups would prevent it"
        )

    def _poll(self) -> None:
        """Take over what has come in, in whatever order."""
        self._sender.check()
        store = self._context.store
        self.is_asked_to_stop = self.is_asked_to_stop or store.check([STOP_KEY])
        for number in list(self._under_way):
            if store.check([scores_key(number)]):
                self._arrived.append(
                    self._report(
                        json.loads(store.get(scores_key(number))), self._under_way.pop(number)
                    )
                )

    @staticmethod
    def _report(answer: dict, point: EvaluationPoint) -> EvaluationReport:
        if "error" in answer:
            message = f"evaluation after step {point.step}: {answer['error']}"
            raise NonFiniteError(message, step=point.step)
        scores = tuple(ChainScore(**score) for score in answer["scores"])
        return EvaluationReport(
            step=point.step,
            epoch_num=point.epoch_num,
            lddt_ca=mean_score(scores),
            chains=scores,
            seconds=answer["seconds"],
        )


class _Sender:
    """Sends snapshots from a thread, in their order. Their memory is used again once they are gone."""

    def __init__(self, context: ParallelContext) -> None:
        self._context = context
        self._jobs: queue.Queue[tuple[int, EvaluationPoint, Tensor] | None] = queue.Queue()
        self._spare: queue.Queue[Tensor] = queue.Queue()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def send(self, number: int, point: EvaluationPoint, weights: Tensor) -> None:
        """Copy the weights to the host, and return before they are sent."""
        try:
            copy = self._spare.get_nowait()
        except queue.Empty:
            copy = torch.empty_like(weights, device="cpu", pin_memory=weights.is_cuda)
        copy.copy_(weights)
        self._jobs.put((number, point, copy))
        if self._thread is None:
            # not before it has work: an error in the set-up of the run would leave it behind
            self._thread = threading.Thread(
                target=self._run, name="snapshots to evaluate", daemon=True
            )
            self._thread.start()

    def check(self) -> None:
        """Raise what went wrong in the thread."""
        if self._error is not None:
            raise RuntimeError(
                f"weights could not be sent to the evaluation ranks: {self._error}"
            ) from self._error

    def close(self) -> None:
        """Drop what was not sent, and wait until what is on its way has arrived."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
        self._jobs.put(None)
        if self._thread is not None:
            # it ends: the heartbeat finds a group that died, and a send has the groups' timeout
            self._thread.join()

    def _run(self) -> None:
        bridge = self._context.bridge
        try:
            while (job := self._jobs.get()) is not None:
                number, point, weights = job
                self._context.store.set(order_key(number), json.dumps(asdict(point)))
                dist.send(
                    weights,
                    dst=bridge.evaluators[number % len(bridge.evaluators)],
                    group=bridge.process_group,
                )
                self._spare.put(weights)
        except BaseException as error:
            self._error = error
