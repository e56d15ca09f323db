"""The run itself: set up, start the clock, train and evaluate in turn, stop, close."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from openfold_opt.kernels.select import describe_tuning
from openfold_opt.loader.sampler import num_recycling_passes
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import barrier, broadcast_object, gather_objects
from openfold_opt.parallel.context import ParallelContext, build_parallel_context
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.train.block import BlockRunner, NonFiniteError
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import DataSource, OpenData
from openfold_opt.train.evaluation import mean_score
from openfold_opt.train.garbage import frozen_garbage
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.observer import EvaluationReport, NullObserver, RunInfo, RunObserver, RunSummary
from openfold_opt.train.precision import matmul_precision
from openfold_opt.train.run_state import Progress, checkpoint_content
from openfold_opt.train.schedule import learning_rate
from openfold_opt.train.setup import (
    PreparedRun,
    RunPaths,
    describe_device,
    peak_memory_bytes,
    prepare_run,
    resolve_device,
    run_identity,
)

from openfold_opt.train.step import TrainStep
from openfold_opt.train.warm_up import release, warm_up

SUCCESS, ABORTED = "success", "aborted"


class SetupError(ValueError):
    """The run cannot begin as it was asked for; raised alike on every rank."""


@contextmanager
def _mistakes_as_setup_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise SetupError(str(error)) from error


class Trainer:
    """One run from a configuration; `run` is called once, alike on every rank.

    If the output directory holds checkpoints of the same run, it goes on from the newest whole one.
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
    ) -> None:
        self._config = config
        self._data = data
        self._paths = paths
        self._seed = seed
        self._launch = launch if launch is not None else LaunchInfo()
        self._observer: RunObserver = NullObserver()
        if observer is not None and self._launch.rank == 0:
            self._observer = observer

    def run(self) -> RunSummary:
        """Train until the target is reached ("success") or the steps are used up ("aborted").

        Raises SetupError for what a user can mend before training begins, NonFiniteError when a loss or gradient stops being a
        number; the observer hears of every exception.
        """
        context: ParallelContext | None = None
        try:
            self._observer.init_start(self._config, seed=self._seed)
            device = resolve_device(self._config.device, local_rank=self._launch.local_rank)
            if self._config.torch_threads is not None:
                torch.set_num_threads(self._config.torch_threads)
            context = build_parallel_context(self._config.parallel, self._launch, device=device)
            with matmul_precision(self._config.precision):
                summary = self._run(context, device)
        except BaseException as error:
            self._observer.run_failed(error)
            raise
        finally:
            if context is not None:
                context.close()
        self._observer.run_end(summary)
        return summary

    def _run(self, context: ParallelContext, device: torch.device) -> RunSummary:
        with _mistakes_as_setup_errors():
            identity = run_identity(self._config, context, seed=self._seed, data_checksum=self._data.checksum())
            prepared = prepare_run(
                self._config, context, device=device, paths=self._paths, identity=identity, warn=self._observer.warning
            )
        runner = prepared.train_step
        if self._config.kernels.uses_triton(device):
            self._observer.preparing(describe_tuning(device))
        if self._config.warm_up:
            runner = warm_up(self._config, prepared.train_step, prepared.evaluator, report=self._observer.preparing)
        try:
            return self._timed(context, prepared, runner)
        finally:
            # also on a failure, whose traceback keeps everything alive: NCCL does not end while a graph holds its collectives
            release(runner, prepared.evaluator)

    def _timed(self, context: ParallelContext, prepared: PreparedRun, runner: TrainStep | StepGraphs) -> RunSummary:
        """From init_stop on."""
        info = self._describe(prepared, prepared.train_step.buffer.values.device)
        barrier(context.peers)
        self._observer.init_stop(info)
        self._observer.run_start(info)
        started = time.perf_counter()
        with _mistakes_as_setup_errors():
            data = self._data.open(data_axis=context.data, dap_axis=context.dap, peers=context.peers, seed=self._seed)
        try:
            self._observer.data_ready(train_samples=data.train_samples, eval_samples=data.eval_samples)
            course = Course(self._config, prepared, runner=runner, data=data, peers=context.peers, observer=self._observer)
            with frozen_garbage():
                return course.run(started=started)
        finally:
            data.close()

    def _describe(self, prepared: PreparedRun, device: torch.device) -> RunInfo:
        buffer, launch = prepared.train_step.buffer, self._launch
        return RunInfo(
            config=self._config,
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
        )


class Course:
    """Blocks of training, each followed by an evaluation, until the target or the last step."""

    def __init__(
        self,
        config: RunConfig,
        prepared: PreparedRun,
        *,
        runner: TrainStep | StepGraphs,
        data: OpenData,
        peers: AxisGroup,
        observer: RunObserver,
    ) -> None:
        self._config = config
        self._step_runner = runner
        self._prepared = prepared
        self._data = data
        self._peers = peers
        self._observer = observer
        self._progress = prepared.progress
        self._evaluations: list[EvaluationReport] = []
        self._training_seconds = 0.0
        self._evaluation_seconds = 0.0
        self._block_started = (0.0, 0)
        """time.perf_counter() and step at the beginning of the running block."""
        self._device = device = prepared.train_step.buffer.values.device
        self._runner = BlockRunner(
            train_step=runner,
            batches=data.training_batches(
                start_step=prepared.progress.step, start=prepared.stream_state, device=device, report=observer.warning
            ),
            mark_consumed=data.mark_consumed,
            accumulation=config.accumulation,
            observer=observer,
            peers=peers,
            samples_per_step=prepared.identity.global_batch_size,
            recycling=self._recycling_passes,
        )

    def run(self, *, started: float) -> RunSummary:
        """started: time.perf_counter() at run_start."""
        saved_step = self._progress.step
        while not self._is_target_reached() and self._progress.step < self._config.max_steps:
            stop = self._next_stop()
            self._train(stop)
            if stop % self._config.evaluation.every_steps == 0:
                self._evaluate()
            if self._is_checkpoint_due() and not self._is_target_reached():
                self._save()
                saved_step = self._progress.step
        status = SUCCESS if self._is_target_reached() else ABORTED
        self._observer.run_stop(status=status, samples=self._progress.samples_seen)
        run_seconds = time.perf_counter() - started
        if saved_step != self._progress.step:
            self._save_last()
        return RunSummary(
            status=status,
            steps=self._progress.step,
            samples=self._progress.samples_seen,
            resumed_from_step=self._prepared.progress.step,
            run_seconds=run_seconds,
            training_seconds=self._training_seconds,
            evaluation_seconds=self._evaluation_seconds,
            data_wait_seconds=self._runner.data_wait_seconds,
            evaluations=tuple(self._evaluations),
            peak_memory_bytes=peak_memory_bytes(self._prepared.train_step.buffer.values.device),
            num_eager_steps=self._step_runner.num_eager_steps if isinstance(self._step_runner, StepGraphs) else None,
        )

    def _recycling_passes(self, step_index: int) -> int:
        return num_recycling_passes(
            self._prepared.identity.seed, step_index, max_extra_passes=self._config.data.max_extra_passes
        )

    def _next_stop(self) -> int:
        """The next step after which something else than training is due."""
        step, config = self._progress.step, self._config
        stops = [_next_multiple(step, config.evaluation.every_steps), config.max_steps]
        if config.checkpoint.every_steps:
            stops.append(_next_multiple(step, config.checkpoint.every_steps))
        return min(stops)

    def _is_checkpoint_due(self) -> bool:
        every = self._config.checkpoint.every_steps
        return bool(every) and self._progress.step % every == 0

    def _is_target_reached(self) -> bool:
        lddt_ca = self._progress.lddt_ca
        return lddt_ca is not None and lddt_ca >= self._config.evaluation.target_lddt_ca

    def _epoch_num(self, step: int) -> int:
        """Samples seen at the end of the block between two evaluations that `step` is the last of, or in."""
        every = self._config.evaluation.every_steps
        return -(-step // every) * every * self._prepared.identity.global_batch_size

    def _train(self, stop: int) -> None:
        first = self._progress.step
        every = self._config.evaluation.every_steps
        epoch_num = self._epoch_num(stop)
        if first % every == 0 or first == self._prepared.progress.step:
            self._observer.block_start(step=first, epoch_num=epoch_num)
            self._block_started = (time.perf_counter(), first)
        started = time.perf_counter()
        self._runner.run(first_step=first, last_step=stop)
        self._training_seconds += time.perf_counter() - started
        samples = stop * self._prepared.identity.global_batch_size
        self._progress = Progress(step=stop, samples_seen=samples)
        if stop % every == 0:
            begun, begun_step = self._block_started
            trained = (stop - begun_step) * self._prepared.identity.global_batch_size
            rate = trained / (time.perf_counter() - begun)
            self._observer.block_stop(step=stop, epoch_num=epoch_num, samples_per_second=rate)

    def _evaluate(self) -> None:
        step = self._progress.step
        epoch_num = self._epoch_num(step)
        self._observer.evaluation_start(step=step, epoch_num=epoch_num)
        started = time.perf_counter()
        try:
            scores = self._prepared.evaluator.run(self._data.evaluation_chains(device=self._device), self._peers)
        except NonFiniteError as error:
            raise NonFiniteError(f"evaluation after step {step}: {error}") from error
        seconds = time.perf_counter() - started
        report = EvaluationReport(
            step=step, epoch_num=epoch_num, lddt_ca=mean_score(scores), chains=scores, seconds=seconds
        )
        self._evaluation_seconds += seconds
        self._evaluations.append(report)
        self._progress = Progress(step=step, samples_seen=self._progress.samples_seen, lddt_ca=report.lddt_ca)
        self._observer.evaluation(report)
        self._observer.evaluation_stop(step=step, epoch_num=epoch_num)
        # here, and not in the midst of a step
        gc.collect()

    def _save_last(self) -> None:
        """The run is over and its log closed: what cannot be saved now is no failure of it."""
        try:
            self._save()
        except OSError as error:
            self._observer.warning(f"the last checkpoint is missing: {error}")

    def _save(self) -> None:
        """Raises OSError on every rank if the first one cannot write."""
        failure: OSError | None = None
        stream_states = tuple(gather_objects(self._data.training_state(), self._peers))
        if self._peers.rank == 0:
            progress = replace(self._progress, stream_states=stream_states)
            content = checkpoint_content(
                self._prepared.train_step,
                progress,
                self._prepared.identity,
                learning_rate=learning_rate(self._config.schedule, max(progress.step, 1)),
            )
            content["init_checkpoint_sha256"] = self._prepared.init_checkpoint_sha256
            try:
                path: Path = self._prepared.store.save(
                    content, step=progress.step, samples_seen=progress.samples_seen, lddt_ca=progress.lddt_ca
                )
            except OSError as error:
                failure = error
            else:
                self._observer.checkpoint_saved(path, step=progress.step)
        message = broadcast_object(None if failure is None else str(failure), self._peers)
        if message is not None:
            raise OSError(message) from failure


def _next_multiple(step: int, every: int) -> int:
    return (step // every + 1) * every
