"""The training loop of a phase: training intervals, evaluations and checkpoints."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from dataclasses import replace

from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.loader.sampler import StreamOrigin, num_recycling_iterations
from openfold_opt.model.published_weights.checkpoint_folder import Snapshot
from openfold_opt.parallel.broadcast import broadcast_object, gather_objects
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.parallel.heartbeat import SilentHeartbeat
from openfold_opt.train.build_run import PreparedRun, peak_memory_bytes
from openfold_opt.train.checkpoint.background_writer import BackgroundWriter
from openfold_opt.train.checkpoint.checkpoint_saver import CheckpointSaver
from openfold_opt.train.checkpoint.run_state import Progress, take_snapshot
from openfold_opt.train.data_source import OpenData
from openfold_opt.train.evaluation.inline import EvaluationPoint, Evaluations, InlineEvaluation
from openfold_opt.train.evaluation.remote import RemoteEvaluation
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.observer import EvaluationReport, RunObserver, RunSummary
from openfold_opt.train.phase_goal import (
    ABORTED,
    CONDITION_FAILED,
    PHASE_COMPLETE,
    SUCCESS,
    PhaseGoal,
)
from openfold_opt.train.phases import Phase
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.step import TrainStep
from openfold_opt.train.training_interval import TrainingInterval


class TrainingLoop:
    """Trains on every training rank until the phase ends: by its score, or by its last step."""

    def __init__(
        self,
        phase: Phase,
        prepared: PreparedRun,
        context: ParallelContext,
        *,
        is_last_of_process: bool,
        runner: TrainStep | StepGraphs,
        data: OpenData,
        observer: RunObserver,
        heartbeat: SilentHeartbeat,
        stop_request: StopRequest,
    ) -> None:
        """phase: its configuration has the accumulation and kernels that this run uses.

        is_last_of_process: whether the process ends with this phase, even if it is not the last
        one.
        """
        self._phase = phase
        self._config = phase.config
        self._is_last_of_process = is_last_of_process
        self._step_runner = runner
        self._prepared = prepared
        self._data = data
        self._context = context
        self._observer = observer
        self._stop_request = stop_request
        self._progress = prepared.progress
        self._goal = PhaseGoal(phase, prepared.progress.phase)
        self._reports: list[EvaluationReport] = []
        self._training_seconds = 0.0
        self._status: str | None = None
        """Outcome of the phase. Set on the first rank when it is known, and on all ranks at the
        end of `run`."""
        self._started = self._run_seconds = 0.0
        self._interval_started = (0.0, 0)
        """time.perf_counter() and finished steps at the start of the current interval."""
        self._note = heartbeat.set_status
        self._saver = CheckpointSaver(
            BackgroundWriter(
                prepared.store,
                before_rename=lambda step: observer.checkpoint_written(step=step),
                after_rename=lambda path, step: observer.checkpoint_saved(path, step=step),
            ),
            context.training_ranks,
            take=self._take_snapshot,
            warn=observer.warning,
        )
        self._evaluations = self._choose_evaluations()
        self._interval = self._build_interval(runner)

    def _build_interval(self, runner: TrainStep | StepGraphs) -> TrainingInterval:
        progress, phase = self._prepared.progress, self._phase
        return TrainingInterval(
            train_step=runner,
            batches=self._data.training_batches(
                first_step=progress.step + 1,
                start=self._prepared.stream_state,
                device=self._prepared.train_step.buffer.values.device,
                report=self._observer.warning,
                origin=StreamOrigin(
                    steps_before=progress.phase.steps_before,
                    first_sample=phase.first_sample,
                    # A run without phases may get more steps when it is resumed.
                    num_steps=phase.settings.steps if phase.is_declared else None,
                ),
            ),
            mark_consumed=self._data.mark_consumed,
            accumulation=phase.config.accumulation,
            observer=self._observer,
            note=self._note,
            before_step=self._before_step,
            training_ranks=self._context.training_ranks,
            samples_seen=self._samples_at,
            learning_rate=phase.learning_rate(progress.phase.steps_before),
            num_recycling_iterations=self._num_recycling_iterations,
        )

    def _choose_evaluations(self) -> Evaluations:
        if self._context.bridge is None:
            return InlineEvaluation(
                self._prepared.evaluator,
                self._data,
                self._context.training_ranks,
                observer=self._observer,
                note=self._note,
            )
        return RemoteEvaluation(
            self._prepared.train_step.weight_average,
            self._context,
            queue_size=self._config.parallel.evaluation_queue,
            observer=self._observer,
            note=self._note,
        )

    def run(self, *, started: float) -> RunSummary:
        """Run the loop. started: time.perf_counter() at run_start.

        Returns the summary of the phase; its status is the same on all ranks. Raises
        PreemptedError, after a checkpoint, if the run was asked to stop.
        """
        self._started = started
        try:
            # Also while the last checkpoint is saved, which a signal must not interrupt.
            with self._stop_request.watched():
                return self._run()
        finally:
            self._saver.close()

    def _run(self) -> RunSummary:
        saved_step = self._progress.step
        stop_flags: tuple[str, ...] = ()
        try:
            if self._is_evaluation_missing():
                self._evaluate()
            elif self._progress.lddt_ca is not None and not self._goal.is_condition_met(
                self._progress.step
            ):
                # A resumed run stops again unless the required score was changed.
                self._end(CONDITION_FAILED)
            while (
                not stop_flags
                and not self._is_over()
                and self._progress.step < self._goal.last_step
            ):
                stop_flags = self._train(self._next_due_step())
                if not stop_flags and self._is_evaluation_due(self._progress.step):
                    self._evaluate()
                if not stop_flags and self._is_checkpoint_due() and not self._is_over():
                    self._note_streams()
                    self._saver.begin()
                    saved_step = self._progress.step
            if "asked to stop" in stop_flags and "phase over" not in stop_flags:
                self._stop_early()
            # After the stop flag "phase over", no further evaluation is needed.
            self._handle_reports(self._evaluations.drain() if not stop_flags else ())
            self._agree_on_status()
        finally:
            self._evaluations.close(preempted=self._stop_request.is_acknowledged)
        if self._status == PHASE_COMPLETE:
            # The next phase starts from this checkpoint.
            self._saver.save_now()
        elif saved_step != self._progress.step:
            self._note_streams()
            self._saver.save_last()
        else:
            self._saver.finish_or_warn()
        return self._summary()

    def _agree_on_status(self) -> None:
        """Set the status if it is not known yet, and broadcast it to all ranks."""
        if self._status is None:
            is_reached = self._prepared.progress.is_target_reached
            step = self._progress.step
            self._end(SUCCESS if is_reached else self._goal.outcome_after_steps(step))
        self._status = broadcast_object(self._status, self._context.training_ranks)
        if self._status == PHASE_COMPLETE:
            self._progress = self._progress.at_next_phase()
        else:
            self._progress = replace(self._progress, is_target_reached=self._status == SUCCESS)

    def _end(self, status: str) -> None:
        """Set the status, and send run_stop if the run ends, too."""
        self._status = status
        if status in (SUCCESS, ABORTED) or (status == PHASE_COMPLETE and self._is_last_of_process):
            self._observer.run_stop(status=status, samples=self._progress.samples_seen)
        self._run_seconds = time.perf_counter() - self._started

    def _summary(self) -> RunSummary:
        assert self._status is not None
        return RunSummary(
            status=self._status,
            steps=self._progress.step,
            samples=self._progress.samples_seen,
            resumed_from_step=self._prepared.progress.step,
            resumed_from_samples=self._prepared.progress.samples_seen,
            run_seconds=self._run_seconds,
            training_seconds=self._training_seconds,
            evaluation_seconds=self._evaluations.wait_seconds,
            data_wait_seconds=self._interval.data_wait_seconds,
            evaluations=tuple(self._reports),
            peak_memory_bytes=peak_memory_bytes(self._prepared.train_step.buffer.values.device),
            num_eager_steps=self._step_runner.num_eager_steps
            if isinstance(self._step_runner, StepGraphs)
            else None,
            num_evaluation_waits=self._evaluations.num_waits
            if self._context.bridge is not None
            else None,
        )

    def _before_step(self) -> None:
        self._handle_reports(self._evaluations.finished())
        if self._stop_request.is_raised or self._evaluations.is_stop_requested:
            self._prepared.train_step.raise_stop_flag("asked to stop")
        # Only for remote evaluation: after an inline one, no rank makes another step.
        if self._status is not None:
            self._prepared.train_step.raise_stop_flag("phase over")

    def _handle_reports(self, reports: Iterable[EvaluationReport]) -> None:
        """Send evaluation reports to the observer, up to the first one that ends the phase.

        Later ones are ignored.
        """
        for report in reports:
            if self._status is not None:
                return
            self._reports.append(report)
            outcome = self._goal.add_score(report.lddt_ca, report.step)
            self._progress = replace(
                self._progress,
                lddt_ca=report.lddt_ca if report.step == self._progress.step else None,
                phase=replace(self._progress.phase, best_lddt_ca=self._goal.best_lddt_ca),
            )
            self._observer.evaluation(report)
            self._observer.evaluation_stop(step=report.step, samples_at_end=report.samples_at_end)
            if outcome is not None:
                self._end(outcome)

    @property
    def goal(self) -> PhaseGoal:
        """The end and the condition of the phase, with its best score."""
        return self._goal

    def _samples_at(self, step: int) -> int:
        """Return the number of samples of the run after a step."""
        size = self._prepared.identity.global_batch_size
        return self._progress.samples_at(step, global_batch_size=size)

    def _num_recycling_iterations(self, step: int) -> int:
        return num_recycling_iterations(
            self._prepared.identity.seed,
            step,
            max_recycling_iterations=self._config.data.max_recycling_iterations,
        )

    def _next_due_step(self) -> int:
        """Return the next step after which an evaluation, a checkpoint or the end is due."""
        step, config = self._progress.step, self._config
        due = [_next_multiple(step, config.evaluation.every_steps), self._goal.last_step]
        if config.checkpoint.every_steps:
            due.append(_next_multiple(step, config.checkpoint.every_steps))
        return min(due)

    def _is_checkpoint_due(self) -> bool:
        every, step = self._config.checkpoint.every_steps, self._progress.step
        # The end of a phase has another checkpoint.
        is_boundary = step == self._goal.last_step and not self._phase.is_last
        return bool(every) and step % every == 0 and not is_boundary

    def _is_over(self) -> bool:
        """Return whether the phase is over; the same on every rank.

        With remote evaluation, the first rank may already know that it is. The other ranks learn it
        from the stop flag of the next step.
        """
        if self._prepared.progress.is_target_reached:
            return True
        return self._context.bridge is None and self._status is not None

    def _is_evaluation_due(self, step: int) -> bool:
        """Return whether an evaluation follows this step: every few steps, and the last one."""
        return step % self._config.evaluation.every_steps == 0 or step == self._goal.last_step

    def _is_evaluation_missing(self) -> bool:
        """Return whether the run was interrupted before the result of a due evaluation."""
        step, progress = self._progress.step, self._progress
        is_open = progress.lddt_ca is None and not progress.is_target_reached
        return step > progress.phase.steps_before and self._is_evaluation_due(step) and is_open

    def _samples_at_end(self, step: int) -> int:
        """Return the number of training samples at the end of the interval that contains `step`."""
        every = self._config.evaluation.every_steps
        last = min(-(-step // every) * every, self._goal.last_step)
        # A run that resumes with a smaller max_steps is already beyond the last step.
        return self._samples_at(max(step, last))

    def _train(self, due_step: int) -> tuple[str, ...]:
        """Train up to step `due_step`, or until a stop flag is raised. Return the stop flags."""
        num_finished = self._progress.step
        every = self._config.evaluation.every_steps
        samples_at_end = self._samples_at_end(due_step)
        # An interval starts after an evaluation, and at the first step of this process.
        if self._status is None and (
            num_finished % every == 0 or num_finished == self._prepared.progress.step
        ):
            self._observer.interval_start(step=num_finished, samples_at_end=samples_at_end)
            self._interval_started = (time.perf_counter(), num_finished)
        started = time.perf_counter()
        last, stop_flags = self._interval.run(first_step=num_finished + 1, last_step=due_step)
        self._training_seconds += time.perf_counter() - started
        self._progress = Progress(
            step=last, samples_seen=self._samples_at(last), phase=self._progress.phase
        )
        if self._is_evaluation_due(last) and self._status is None:
            interval_started, num_at_start = self._interval_started
            trained = (last - num_at_start) * self._prepared.identity.global_batch_size
            rate = trained / (time.perf_counter() - interval_started)
            self._observer.interval_stop(
                step=last, samples_at_end=samples_at_end, samples_per_second=rate
            )
        return stop_flags

    def _evaluate(self) -> None:
        step = self._progress.step
        # No evaluation is needed after run_stop. With remote evaluation, the other ranks may not
        # know the status yet, but only the first rank acts on the request.
        if self._status is None:
            self._evaluations.request(
                EvaluationPoint(step=step, samples_at_end=self._samples_at_end(step))
            )
        self._handle_reports(self._evaluations.finished())
        # Automatic collection is disabled during training, so collect between intervals.
        gc.collect()

    def _stop_early(self) -> None:
        # From now on, further requests have no effect.
        self._stop_request.is_acknowledged = True
        self._note_streams()
        self._saver.save_now()
        step = self._progress.step
        raise PreemptedError(
            f"stopped on request after step {step}; the checkpoint "
            f"{self._prepared.store.path(step)} is complete, and the same command continues the run"
        )

    def _note_streams(self) -> None:
        """Add the positions of all sample streams to the progress, before a checkpoint."""
        self._note(activity="saving")
        states = gather_objects(self._data.training_state(), self._context.training_ranks)
        # Consecutive ranks form a DAP group, which uses one stream.
        streams = tuple(states[:: self._context.dap.size])
        num_steps = self._progress.step - self._progress.phase.steps_before
        in_order = StreamState(low=num_steps * self._config.accumulation)
        self._progress = replace(
            self._progress,
            stream_states=streams,
            is_in_order=all(stream is None or stream == in_order for stream in streams),
            accumulation=self._config.accumulation,
        )

    def _take_snapshot(self) -> Snapshot:
        facts = {"init_checkpoint_sha256": self._prepared.init_checkpoint_sha256}
        identity = self._prepared.identity
        if self._progress.phase.index != self._phase.index:
            assert self._phase.next_batch_size is not None
            identity = replace(identity, global_batch_size=self._phase.next_batch_size)
        return take_snapshot(self._prepared.train_step, self._progress, identity, facts=facts)


def _next_multiple(step: int, every: int) -> int:
    return (step // every + 1) * every
