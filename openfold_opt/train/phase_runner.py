"""Run one phase on this rank: set up, warm up, then train or evaluate, and release everything."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from openfold_opt.kernels.select import describe_tuning, uses_triton
from openfold_opt.parallel.broadcast import barrier
from openfold_opt.parallel.context import TRAIN, ParallelContext
from openfold_opt.parallel.heartbeat import SilentHeartbeat
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.train.build_run import (
    PreparedRun,
    RunPaths,
    agree_on_kernels,
    describe_device,
    prepare_run,
    run_identity,
)
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore, FoundCheckpoint
from openfold_opt.train.config import RunConfig, config_hash
from openfold_opt.train.data_source import DataSource, OpenData
from openfold_opt.train.dataset_split import name_chains
from openfold_opt.train.errors import SetupError
from openfold_opt.train.evaluation.evaluation_worker import EvaluationWorker
from openfold_opt.train.global_batch import keep_global_batch
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.observer import PhaseReport, RunInfo, RunObserver, RunSummary
from openfold_opt.train.phase_goal import CONDITION_FAILED, PHASE_COMPLETE, SUCCESS
from openfold_opt.train.phases import Phase
from openfold_opt.train.preemption import StopRequest
from openfold_opt.train.process_memory import paused_garbage_collection
from openfold_opt.train.resolved import count_recomputed_blocks, resolve_config
from openfold_opt.train.step import TrainStep
from openfold_opt.train.training_loop import TrainingLoop
from openfold_opt.train.warm_up import release, warm_up, warm_up_evaluation


@contextmanager
def setup_errors() -> Iterator[None]:
    """Raise each ValueError as a SetupError."""
    try:
        yield
    except ValueError as error:
        raise SetupError(str(error)) from error


@dataclass(frozen=True, kw_only=True, eq=False)
class RunParts:
    """What all phases of a run share on this rank."""

    config: RunConfig
    """Of the whole run."""
    data: DataSource
    paths: RunPaths
    seed: int
    observer: RunObserver
    launch: LaunchInfo
    stop_request: StopRequest
    heartbeat: SilentHeartbeat
    device: torch.device

    def note(self, what: str) -> None:
        """Report a finished part of the set-up."""
        self.heartbeat.set_status(activity=what)
        self.observer.preparing(what)


class PhaseRunner:
    """Runs one phase of a run. Every rank calls `run` once.

    Args:
        parts: what all phases share.
        phase: the phase.
        is_last_of_process: whether the process ends with this phase.
        started: time.perf_counter() at run_start; None for the first phase of the process, which
            sends init_stop and run_start.
        resumed_from_step: steps that earlier processes made; None for the first phase.
    """

    def __init__(
        self,
        parts: RunParts,
        phase: Phase,
        *,
        is_last_of_process: bool,
        started: float | None,
        resumed_from_step: int | None,
    ) -> None:
        self._parts = parts
        self._phase = phase
        self._is_last_of_process = is_last_of_process
        self.started = started
        self.failed_condition: str | None = None
        """Why the phase did not end as required, on the first rank; None: it did."""
        self._resumed_from_step = resumed_from_step
        self._observer, self._device = parts.observer, parts.device

    def run(
        self, context: ParallelContext, store: CheckpointStore, newest: FoundCheckpoint | None
    ) -> RunSummary | None:
        """Train or evaluate until the phase ends.

        newest: the checkpoint to resume from, on the first rank. Returns the summary of the phase,
        or None on a rank that only evaluates.

        Raises what Trainer.run raises.
        """
        try:
            if context.role == TRAIN:
                return self._train(context, store, newest)
            self._evaluate(context)
            return None
        finally:
            # The next phase needs the memory. Garbage collection is off during training.
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _train(
        self, context: ParallelContext, store: CheckpointStore, newest: FoundCheckpoint | None
    ) -> RunSummary:
        parts, device = self._parts, self._device
        facts = {} if newest is None else newest.snapshot.facts
        with setup_errors():
            config = keep_global_batch(
                self._phase.config,
                context,
                resumed_batch=facts.get("global_batch_size"),
                report=self._observer.preparing,
            )
            identity = run_identity(
                config,
                context,
                config_hash=config_hash(parts.config),
                seed=parts.seed,
                data_checksum=parts.data.checksum(),
            )
            config = agree_on_kernels(config, context, device, warn=self._observer.warning)
            prepared = prepare_run(
                config,
                context,
                device=device,
                paths=parts.paths,
                identity=identity,
                store=store,
                newest=newest,
                note=parts.note,
            )
        runner: TrainStep | StepGraphs = prepared.train_step
        if uses_triton(config.kernels, device):
            parts.note(describe_tuning(device))
        if config.warm_up:
            with setup_errors():
                runner = warm_up(config, prepared.train_step, prepared.evaluator, report=parts.note)
        try:
            return self._run_timed(replace(self._phase, config=config), context, prepared, runner)
        finally:
            # Also after a failure: its traceback keeps the graphs alive, and NCCL does not shut
            # down while a graph holds its collectives.
            release(runner, prepared.evaluator)

    def _run_timed(
        self,
        phase: Phase,
        context: ParallelContext,
        prepared: PreparedRun,
        runner: TrainStep | StepGraphs,
    ) -> RunSummary:
        """Train. In the first phase of the process, the clock starts here."""
        info = self._describe(phase.config, prepared)
        barrier(context.world)
        is_first = self.started is None
        if is_first:
            self._observer.init_stop(info)
            self._observer.run_start(info)
        started = self.started = self.started or time.perf_counter()
        # No rank reads data before the first rank has sent run_start.
        barrier(context.world)
        with setup_errors():
            data = self._parts.data.open(phase.config, context, seed=self._parts.seed)
        try:
            if is_first:
                self._report_data(data)
            has_phases = bool(self._parts.config.phases)
            if has_phases:
                self._observer.phase_start(self._phase_report(info, prepared))
            loop = TrainingLoop(
                phase,
                prepared,
                context,
                is_last_of_process=self._is_last_of_process,
                runner=runner,
                data=data,
                observer=self._observer,
                heartbeat=self._parts.heartbeat,
                stop_request=self._parts.stop_request,
            )
            with paused_garbage_collection():
                summary = loop.run(started=started)
            if summary.status == CONDITION_FAILED:
                self.failed_condition = loop.goal.describe_failure(summary.steps)
            if has_phases and summary.status in (SUCCESS, PHASE_COMPLETE):
                self._observer.phase_stop(
                    replace(
                        self._phase_report(info, prepared),
                        last_step=summary.steps,
                        best_lddt_ca=loop.goal.best_lddt_ca,
                    )
                )
            return summary
        finally:
            data.close()

    def _report_data(self, data: OpenData) -> None:
        self._observer.data_ready(
            train_samples=data.train_samples, eval_samples=data.eval_samples, held_out=data.held_out
        )
        held_out = set(data.held_out)
        listed = self._parts.config.selection.train_chain_ids or ()
        dropped = [chain_id for chain_id in listed if chain_id in held_out]
        if dropped:
            self._observer.warning(
                "chains of selection.train_chain_ids that are not trained on, because their "
                f"cluster is held out for validation: {name_chains(dropped)}"
            )

    def _evaluate(self, context: ParallelContext) -> None:
        """Run a rank that only evaluates. It opens the data after run_start."""
        parts, config = self._parts, self._phase.config
        with setup_errors():
            worker = EvaluationWorker(
                config,
                context,
                device=self._device,
                note=parts.heartbeat.set_status,
                stop_request=parts.stop_request,
            )
            graphs = None
            if config.warm_up:
                graphs = warm_up_evaluation(config, worker.evaluator, report=parts.note)
        try:
            # The two barriers of _run_timed: at the first, all ranks are ready; after the second,
            # run_start was sent.
            barrier(context.world)
            barrier(context.world)
            # A rank that evaluates now may train in the next phase, which does not start the clock.
            self.started = time.perf_counter() if self.started is None else self.started
            with setup_errors():
                data = parts.data.open(config, context, seed=parts.seed)
            try:
                with paused_garbage_collection(), parts.stop_request.watched():
                    worker.run(data)
            finally:
                data.close()
        finally:
            if graphs is not None:
                worker.evaluator.release_graphs()

    def _describe(self, config: RunConfig, prepared: PreparedRun) -> RunInfo:
        buffer, launch = prepared.train_step.buffer, self._parts.launch
        resumed_from_step = self._resumed_from_step
        if resumed_from_step is None:
            resumed_from_step = prepared.progress.step
        return RunInfo(
            config=resolve_config(config, self._device),
            seed=self._parts.seed,
            number_of_ranks=launch.world_size,
            number_of_nodes=launch.number_of_nodes,
            ranks_per_node=launch.ranks_per_node,
            device=describe_device(self._device),
            global_batch_size=prepared.identity.global_batch_size,
            num_parameters=buffer.num_parameters,
            num_tensors=len(buffer.names),
            init_checkpoint_sha256=prepared.init_checkpoint_sha256,
            resumed_from_step=resumed_from_step,
            resumed_from=prepared.resumed_from,
            data_checksum=prepared.identity.data_checksum,
            recomputed_blocks=count_recomputed_blocks(config, prepared.num_recomputed_blocks),
        )

    def _phase_report(self, info: RunInfo, prepared: PreparedRun) -> PhaseReport:
        """Return the report for the start of the phase."""
        progress, phase = prepared.progress.phase, self._phase
        return PhaseReport(
            name=phase.name,
            number=phase.index + 1,
            count=phase.count,
            steps_before=progress.steps_before,
            last_step=min(progress.steps_before + phase.settings.steps, phase.config.max_steps),
            best_lddt_ca=progress.best_lddt_ca,
            required_lddt_ca=phase.settings.required_lddt_ca,
            info=info,
        )
