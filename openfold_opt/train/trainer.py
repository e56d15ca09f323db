"""Run a configuration: connect the ranks, set up, train or evaluate, and clean up."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from threading import Lock

import torch
from torch.distributed import PrefixStore, Store

from openfold_opt.loader.supervisor import prepare_to_start_workers
from openfold_opt.parallel.broadcast import barrier, broadcast_object, gather_objects
from openfold_opt.parallel.context import ParallelContext, build_parallel_context
from openfold_opt.parallel.heartbeat import (
    Heartbeat,
    LostRankError,
    SilentHeartbeat,
    is_lost_connection,
)
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.parallel.report import describe_ranks
from openfold_opt.parallel.same_facts import require_same_facts
from openfold_opt.parallel.store import open_store
from openfold_opt.train.build_run import RunPaths, check_plan, resolve_device
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore, FoundCheckpoint
from openfold_opt.train.config import RunConfig, config_hash
from openfold_opt.train.data_source import DataSource
from openfold_opt.train.errors import PhaseConditionError, SetupError
from openfold_opt.train.global_batch import check_phase_ranks
from openfold_opt.train.observer import NullObserver, RunObserver, RunSummary, join_summaries
from openfold_opt.train.phase_goal import CONDITION_FAILED, PHASE_COMPLETE
from openfold_opt.train.phase_runner import PhaseRunner, RunParts, setup_errors
from openfold_opt.train.phase_start import check_requested_phase, find_phase_start
from openfold_opt.train.phases import Phase, find_phase, phases_of
from openfold_opt.train.precision import matmul_precision
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.process_memory import keep_freed_memory
from openfold_opt.train.run_facts import run_facts


class Trainer:
    """A run. Every rank calls `run` once.

    It resumes from the newest complete checkpoint of the same run in the output directory, if any.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        data: DataSource,
        paths: RunPaths,
        seed: int,
        observer: RunObserver | None = None,
        launch: LaunchInfo | None = None,
        stop_request: StopRequest | None = None,
        facts: Mapping[str, str] | None = None,
        phase: str | None = None,
    ) -> None:
        """observer: used on the first rank only. stop_request: any rank may receive one.

        facts: further facts by name that must be equal on all ranks, in addition to data,
        configuration, seed, versions and the code of this package. phase: name, or number from 1,
        of the only phase to train in this process; None: all that are not complete.
        """
        self._config = config
        self._data = data
        self._paths = paths
        self._seed = seed
        self._launch = launch if launch is not None else LaunchInfo()
        self._stop_request = stop_request if stop_request is not None else StopRequest()
        self._facts = dict(facts or {})
        self._observer: RunObserver = NullObserver()
        if observer is not None and self._launch.rank == 0:
            self._observer = observer
        self._phase = phase
        self._heartbeat = SilentHeartbeat()
        self._context: ParallelContext | None = None
        self._timeout = timedelta(seconds=config.parallel.timeout_seconds)
        self._has_ended = False
        """Whether the run ended, rather than only a phase."""
        self._failure_lock = Lock()
        self._has_failed = False

    def run(self) -> RunSummary | None:
        """Train all phases, or the given one, until the run ends or its steps are used up.

        Returns the summary of this process, or None on a rank that only evaluates in the last
        phase. The observer receives every exception. A rank that hangs in a collective because
        another rank was lost exits with LOST_RANK_EXIT_CODE.

        Raises:
            SetupError: the run cannot start, for a reason that the user can fix.
            NonFiniteError: a loss, a gradient or a score is not finite.
            PhaseConditionError: a phase did not reach its required score.
            PreemptedError: the run stopped on request.
            LostRankError: another rank was lost.
        """
        try:
            self._observer.init_start(self._config, seed=self._seed)
            with setup_errors():
                phases = phases_of(self._config)
                requested = find_phase(self._config, self._phase) if self._phase else None
            device = resolve_device(self._config.device, local_rank=self._launch.local_rank)
            if self._config.torch_threads is not None:
                torch.set_num_threads(self._config.torch_threads)
            if device.type == "cpu":
                keep_freed_memory()
            store = self._connect_ranks(device)
            summary = self._run_phases(phases, requested, store=store, device=device)
            self._heartbeat.close()
        except BaseException as error:
            cause = self._find_cause(error)
            self._fail(cause)
            if cause is error:
                raise
            raise cause from error
        finally:
            if self._context is not None:
                self._context.close()
            # Last, because the heartbeat ends a rank that hangs in context.close().
            self._heartbeat.close()
        if summary is not None:
            self._observer.run_end(summary)
        return summary

    def _run_phases(
        self,
        phases: Sequence[Phase],
        requested: Phase | None,
        *,
        store: Store | None,
        device: torch.device,
    ) -> RunSummary | None:
        """Run the phases from the one of the newest checkpoint on, up to the requested one."""
        summaries: list[RunSummary] = []
        runner: PhaseRunner | None = None
        checkpoints = CheckpointStore(self._paths.checkpoint_dir, self._config.checkpoint)
        for number in itertools.count():
            # A later phase reads its checkpoint in the same way as a new process does.
            start = find_phase_start(
                phases,
                checkpoints,
                config_hash=config_hash(self._config),
                launch=self._launch,
                store=store,
                number=number,
                timeout=self._timeout,
                warn=self._observer.warning,
            )
            if requested is not None:
                check_requested_phase(requested, start)
            remaining = phases[start.phase.index :] if requested is None else (requested,)
            if number == 0 and len(phases) > 1:
                with setup_errors():
                    check_phase_ranks(remaining, self._launch.world_size)
            # A request that an evaluation rank passed on too late counts for this phase.
            self._stop_request.is_acknowledged = False
            is_last = requested is not None or start.phase.is_last
            context = self._connect_phase(start.phase, number, store, device)
            if number == 0:
                _check_plans(remaining[1:], device)
            runner = PhaseRunner(
                self._parts(device),
                start.phase,
                is_last_of_process=is_last,
                started=None if runner is None else runner.started,
                resumed_from_step=summaries[0].resumed_from_step if summaries else None,
            )
            with matmul_precision(start.phase.config.precision):
                summary = self._run_phase(runner, context, checkpoints, start.newest)
            if summary is not None:
                summaries.append(summary)
            if is_last or self._has_ended:
                break
            if any(gather_objects(self._stop_request.is_raised, context.world)):
                raise PreemptedError(
                    f"stopped on request at the end of {start.phase.title}; its last checkpoint is "
                    "complete, and the same command continues the run"
                )
            context.close()
        return join_summaries(summaries) if summary is not None else None

    def _run_phase(
        self,
        runner: PhaseRunner,
        context: ParallelContext,
        checkpoints: CheckpointStore,
        newest: FoundCheckpoint | None,
    ) -> RunSummary | None:
        """Run a phase. Return its summary on training ranks.

        Raises PreemptedError and PhaseConditionError on all ranks.
        """
        preempted: PreemptedError | None = None
        summary: RunSummary | None = None
        try:
            summary = runner.run(context, checkpoints, newest)
        except PreemptedError as error:
            preempted = error
        # The first rank always trains. A rank that evaluates does not know the outcome.
        status = None if summary is None else summary.status
        status, failed_condition = broadcast_object(
            (status, runner.failed_condition), context.world
        )
        # No rank exits before all are done, especially not the one that hosts the store.
        barrier(context.world)
        if preempted is not None:
            raise preempted
        if status == CONDITION_FAILED:
            raise PhaseConditionError(failed_condition)
        self._has_ended = status != PHASE_COMPLETE
        return summary

    def _connect_phase(
        self, phase: Phase, number: int, store: Store | None, device: torch.device
    ) -> ParallelContext:
        """Build the process groups of a phase. The first call also starts the heartbeat.

        number: of phases that this process trained before.
        """
        self._context = build_parallel_context(
            phase.config.parallel,
            self._launch,
            device=device,
            # Keys of one phase must not be read in the next, even if a phase is repeated.
            store=None if store is None else PrefixStore(f"phase {number}", store),
        )
        if not isinstance(self._heartbeat, Heartbeat):
            self._heartbeat = self._start_heartbeat(self._context)
        for line in describe_ranks(self._context, device):
            self._observer.preparing(line)
        return self._context

    def _parts(self, device: torch.device) -> RunParts:
        return RunParts(
            config=self._config,
            data=self._data,
            paths=self._paths,
            seed=self._seed,
            observer=self._observer,
            launch=self._launch,
            stop_request=self._stop_request,
            heartbeat=self._heartbeat,
            device=device,
        )

    def _connect_ranks(self, device: torch.device) -> Store | None:
        """Wait for all ranks and compare their facts. Return the store; None for a single rank.

        Raises SetupError on every rank if facts differ or a rank has a problem.
        """
        is_single = self._launch.world_size == 1
        checksum, problem = None, None
        try:
            prepare_to_start_workers(self._config.loader)
            if not is_single:
                checksum = self._data.checksum()
        except (ValueError, OSError) as error:
            # require_same_facts reports the problem to all ranks.
            problem = str(error)
        with setup_errors():
            if is_single:
                if problem is not None:
                    raise ValueError(problem)
                return None
            timeout = self._timeout
            store = open_store(self._launch, timeout=timeout)
            facts = run_facts(self._config, data_checksum=checksum, seed=self._seed, device=device)
            require_same_facts(
                self._facts | facts, store, self._launch, timeout=timeout, problem=problem
            )
        return store

    def _start_heartbeat(self, context: ParallelContext) -> SilentHeartbeat:
        config = self._config.parallel
        if context.world.size == 1 or config.heartbeat_seconds == 0.0:
            return SilentHeartbeat()
        return Heartbeat(
            context,
            lost_seconds=config.heartbeat_seconds,
            stuck_seconds=config.timeout_seconds,
            on_failure_report=lambda report: self._fail(LostRankError(report)),
        )

    def _find_cause(self, error: BaseException) -> BaseException:
        """Return the loss of another rank if it caused the exception, else the exception.

        In the second case, report this rank's failure to the other ranks.
        """
        if isinstance(error, PreemptedError):
            # Nothing failed, and every rank raises this.
            return error
        if is_lost_connection(error):
            return self._heartbeat.explain() or error
        self._heartbeat.report_failure(error)
        return error

    def _fail(self, error: BaseException) -> None:
        """Send run_failed once, from this thread or that of the heartbeat."""
        with self._failure_lock:
            if not self._has_failed:
                self._has_failed = True
                self._observer.run_failed(error)


def _check_plans(phases: Sequence[Phase], device: torch.device) -> None:
    """Raise SetupError if a later phase could not start on this rank."""
    for phase in phases:
        try:
            check_plan(phase.config, device)
        except ValueError as error:
            raise SetupError(f"{phase.title} could not start later: {error}") from error
