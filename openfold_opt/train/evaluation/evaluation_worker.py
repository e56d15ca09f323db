"""The work of a rank that only evaluates. remote.py has the side of the training ranks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict

import torch
import torch.distributed as dist

from openfold_opt.parallel.broadcast import broadcast_object, broadcast_tensor
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_evaluation_plan, build_model
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import OpenData
from openfold_opt.train.errors import NonFiniteError
from openfold_opt.train.evaluation.evaluator import Evaluator
from openfold_opt.train.evaluation.remote import (
    END_KEY,
    POLL_SECONDS,
    PREEMPTED,
    STOP_KEY,
    request_key,
    scores_key,
)
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer
from openfold_opt.train.precision import low_precision_names
from openfold_opt.train.preemption import PreemptedError, StopRequest


class EvaluationWorker:
    """Receives snapshots, evaluates them with its group, and writes the scores to the store."""

    def __init__(
        self,
        config: RunConfig,
        context: ParallelContext,
        *,
        device: torch.device,
        note: Callable[..., None],
        stop_request: StopRequest,
    ) -> None:
        """note: called with what this rank does, and at which step, for the heartbeat."""
        assert context.store is not None and context.bridge is not None
        self._evaluation_group = context.evaluation_group
        # On an evaluation rank, `training_ranks` are the ranks of its evaluation group.
        self._group = context.training_ranks
        self._store, self._bridge = context.store, context.bridge
        self._set_heartbeat = note
        self._stop_request = stop_request
        # Any seed will do: each snapshot replaces the weights.
        model = build_model(config, seed=0, device=device)
        self._buffer = ParameterBuffer(
            model, low_precision=low_precision_names(model, config.precision)
        )
        self.evaluator = Evaluator(
            model,
            self._buffer.views(self._buffer.values),
            plan=build_evaluation_plan(config, device),
            dap=context.dap,
        )

    def run(self, data: OpenData) -> None:
        """Evaluate until training ends. Raises PreemptedError if the run stops on request."""
        number = self._evaluation_group
        while self._wait_for(number):
            if self._receive():
                self._evaluate(data, number)
            number += len(self._bridge.evaluators)
        if self._store.get(END_KEY).decode() == PREEMPTED:
            raise PreemptedError("the run was asked to stop; the same command resumes it")

    def _note(self, *, activity: str, step: int | None = None) -> None:
        """Update the heartbeat and forward a stop request; called between chains and in waits."""
        self._set_heartbeat(activity=activity, step=step)
        if self._stop_request.is_raised and not self._stop_request.is_acknowledged:
            self._stop_request.is_acknowledged = True
            self._store.set(STOP_KEY, "")

    def _wait_for(self, number: int) -> bool:
        """Wait for snapshot `number` and return whether it was requested before the run ended.

        The weights of a requested snapshot are always sent, even if the run then ends.
        """
        store = self._store
        while True:
            self._note(activity="waiting for weights")
            has_ended = store.check([END_KEY])
            if store.check([request_key(number)]):
                self._note(
                    activity="evaluating", step=json.loads(store.get(request_key(number)))["step"]
                )
                return True
            if has_ended:
                return False
            time.sleep(POLL_SECONDS)

    def _receive(self) -> bool:
        """Receive the weights and return whether to evaluate them.

        The first rank of the group decides: there is no evaluation after the end of the run.
        """
        values = self._buffer.values
        if self._group.rank == 0:
            weights = torch.empty_like(values, device="cpu")
            dist.recv(weights, src=0, group=self._bridge.process_group)
            values.copy_(weights)
        broadcast_tensor(values, self._group)
        return broadcast_object(not self._store.check([END_KEY]), self._group)

    def _evaluate(self, data: OpenData, number: int) -> None:
        started = time.perf_counter()
        try:
            scores = self.evaluator.run(data, self._group, note=self._note)
            result = {
                "scores": [asdict(score) for score in scores],
                "seconds": time.perf_counter() - started,
            }
        except NonFiniteError as error:
            result = {"error": str(error)}
        if self._group.rank == 0:
            self._store.set(scores_key(number), json.dumps(result))
