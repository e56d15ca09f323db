"""Run a configuration: connect the ranks, set up, train or evaluate, and clean up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock

import torch
from torch.distributed import Store

from openfold_opt.kernels.select import describe_tuning, uses_triton
from openfold_opt.loader.supervisor import prepare_to_start_workers
from openfold_opt.parallel.broadcast import barrier
from openfold_opt.parallel.context import TRAIN, ParallelContext, build_parallel_context
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
from openfold_opt.train.build_run import (
    PreparedRun,
    RunPaths,
    agree_on_kernels,
    describe_device,
    prepare_run,
    resolve_device,
    run_identity,
)
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointStore
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import DataSource
from openfold_opt.train.dataset_split import name_chains
from openfold_opt.train.errors import SetupError
from openfold_opt.train.evaluation.evaluation_worker import EvaluationWorker
from openfold_opt.train.global_batch import keep_global_batch
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.observer import NullObserver, RunInfo, RunObserver, RunSummary
from openfold_opt.train.precision import matmul_precision
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.process_memory import keep_freed_memory, paused_garbage_collection
from openfold_opt.train.resolved import count_recomputed_blocks, resolve_config
from openfold_opt.train.run_facts import run_facts
from openfold_opt.train.step import TrainStep
from openfold_opt.train.training_loop import TrainingLoop
from openfold_opt.train.warm_up import release, warm_up, warm_up_evaluation


@contextmanager
def _setup_errors() -> Iterator[None]:
    """Raise each ValueError as a SetupError."""
    try:
        yield
    except ValueError as error:
        raise SetupError(str(error)) from error


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
    ) -> None:
        """observer: used on the first rank only. stop_request: any rank may receive one.

        facts: further facts by name that must be equal on all ranks, in addition to data,
        configuration, seed, versions and the code of this package.
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
        self._heartbeat = SilentHeartbeat()
        self._failure_lock = Lock()
        self._has_failed = False

    def run(self) -> RunSummary | None:
        """Train until the target is reached ("success") or the steps are used up ("aborted").

        Returns the summary, or None on a rank that only evaluates. The observer receives every
        exception. A rank that hangs in a collective because another rank was lost exits with
        LOST_RANK_EXIT_CODE.

        Raises:
            SetupError: the run cannot start, for a reason that the user can fix.
            NonFiniteError: a loss, a gradient or a score is not finite.
            PreemptedError: the run stopped on request.
            LostRankError: another rank was lost.
        """
        context: ParallelContext | None = None
        try:
            self._observer.init_start(self._config, seed=self._seed)
            device = resolve_device(self._config.device, local_rank=self._launch.local_rank)
            if self._config.torch_threads is not None:
                torch.set_num_threads(self._config.torch_threads)
            if device.type == "cpu":
                keep_freed_memory()
            store = self._connect_ranks(device)
            context = build_parallel_context(
                self._config.parallel, self._launch, device=device, store=store
            )
            self._heartbeat = self._start_heartbeat(context)
            for line in describe_ranks(context, device):
                self._observer.preparing(line)
            preempted: PreemptedError | None = None
            summary: RunSummary | None = None
            with matmul_precision(self._config.precision):
                try:
                    if context.role == TRAIN:
                        summary = self._train(context, device)
                    else:
                        self._evaluate(context, device)
                except PreemptedError as error:
                    preempted = error
            # No rank exits before all are done, especially not the one that hosts the store.
            barrier(context.world)
            self._heartbeat.close()
            if preempted is not None:
                raise preempted
        except BaseException as error:
            cause = self._find_cause(error)
            self._fail(cause)
            if cause is error:
                raise
            raise cause from error
        finally:
            if context is not None:
                context.close()
            # Last, because the heartbeat ends a rank that hangs in context.close().
            self._heartbeat.close()
        if summary is not None:
            self._observer.run_end(summary)
        return summary

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
        with _setup_errors():
            if is_single:
                if problem is not None:
                    raise ValueError(problem)
                return None
            timeout = timedelta(seconds=self._config.parallel.timeout_seconds)
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

    def _note(self, what: str) -> None:
        """Report a finished part of the set-up."""
        self._heartbeat.set_status(activity=what)
        self._observer.preparing(what)

    def _train(self, context: ParallelContext, device: torch.device) -> RunSummary:
        with _setup_errors():
            store = CheckpointStore(self._paths.checkpoint_dir, self._config.checkpoint)
            config = keep_global_batch(
                self._config, context, store, report=self._observer.preparing
            )
            identity = run_identity(
                config, context, seed=self._seed, data_checksum=self._data.checksum()
            )
            config = agree_on_kernels(config, context, device, warn=self._observer.warning)
            prepared = prepare_run(
                config,
                context,
                device=device,
                paths=self._paths,
                identity=identity,
                store=store,
                warn=self._observer.warning,
                note=self._note,
            )
        runner: TrainStep | StepGraphs = prepared.train_step
        if uses_triton(config.kernels, device):
            self._note(describe_tuning(device))
        if config.warm_up:
            with _setup_errors():
                runner = warm_up(config, prepared.train_step, prepared.evaluator, report=self._note)
        try:
            return self._run_timed(config, context, prepared, runner)
        finally:
            # Also after a failure: its traceback keeps the graphs alive, and NCCL does not shut
            # down while a graph holds its collectives.
            release(runner, prepared.evaluator)

    def _run_timed(
        self,
        config: RunConfig,
        context: ParallelContext,
        prepared: PreparedRun,
        runner: TrainStep | StepGraphs,
    ) -> RunSummary:
        """Run the timed part, from init_stop on."""
        info = self._describe(config, prepared)
        barrier(context.world)
        self._observer.init_stop(info)
        self._observer.run_start(info)
        started = time.perf_counter()
        # No rank reads data before the first rank has sent run_start.
        barrier(context.world)
        with _setup_errors():
            data = self._data.open(config, context, seed=self._seed)
        try:
            self._observer.data_ready(
                train_samples=data.train_samples,
                eval_samples=data.eval_samples,
                held_out=data.held_out,
            )
            held_out = set(data.held_out)
            dropped = [c for c in config.selection.train_chain_ids or () if c in held_out]
            if dropped:
                self._observer.warning(
                    "chains of selection.train_chain_ids that are not trained on, because their "
                    f"cluster is held out for validation: {name_chains(dropped)}"
                )
            loop = TrainingLoop(
                config,
                prepared,
                context,
                runner=runner,
                data=data,
                observer=self._observer,
                heartbeat=self._heartbeat,
                stop_request=self._stop_request,
            )
            with paused_garbage_collection():
                return loop.run(started=started)
        finally:
            data.close()

    def _evaluate(self, context: ParallelContext, device: torch.device) -> None:
        """Run a rank that only evaluates. It opens the data after run_start."""
        with _setup_errors():
            worker = EvaluationWorker(
                self._config,
                context,
                device=device,
                note=self._heartbeat.set_status,
                stop_request=self._stop_request,
            )
            graphs = None
            if self._config.warm_up:
                graphs = warm_up_evaluation(self._config, worker.evaluator, report=self._note)
        try:
            # The two barriers of _run_timed: at the first, all ranks are ready; after the second,
            # run_start was sent.
            barrier(context.world)
            barrier(context.world)
            with _setup_errors():
                data = self._data.open(self._config, context, seed=self._seed)
            try:
                with paused_garbage_collection(), self._stop_request.watched():
                    worker.run(data)
            finally:
                data.close()
        finally:
            if graphs is not None:
                worker.evaluator.release_graphs()

    def _describe(self, config: RunConfig, prepared: PreparedRun) -> RunInfo:
        buffer, launch = prepared.train_step.buffer, self._launch
        device = buffer.values.device
        return RunInfo(
            config=resolve_config(config, device),
            seed=self._seed,
            number_of_ranks=launch.world_size,
            number_of_nodes=launch.number_of_nodes,
            ranks_per_node=launch.ranks_per_node,
            device=describe_device(device),
            global_batch_size=prepared.identity.global_batch_size,
            num_parameters=buffer.num_parameters,
            num_tensors=len(buffer.names),
            init_checkpoint_sha256=prepared.init_checkpoint_sha256,
            resumed_from_step=prepared.progress.step,
            resumed_from=prepared.resumed_from,
            data_checksum=prepared.identity.data_checksum,
            recomputed_blocks=count_recomputed_blocks(config, prepared.num_recomputed_blocks),
        )
