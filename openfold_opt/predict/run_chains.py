"""Predict many chains, one after another, so that one that fails does not stop the others.

Every rank of a group that shares chains (DAP) calls `run_chains` with the same jobs. The first rank
of the group prepares features, and writes files and records.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from openfold_opt.loader.worker import Failure
from openfold_opt.parallel.broadcast import broadcast_object
from openfold_opt.parallel.heartbeat import SilentHeartbeat, is_lost_connection
from openfold_opt.predict.chain_record import ChainFailure, ChainRecord, write_record
from openfold_opt.predict.chain_results import chain_result, write_result
from openfold_opt.predict.feature_workers import FeatureJob, FeatureQueue, FeatureTask
from openfold_opt.predict.file_names import DISTOGRAM, PAE, PAIR, SINGLE
from openfold_opt.predict.forward import RowSinks
from openfold_opt.predict.models import (
    ChainJob,
    ChainOptions,
    ChainPlan,
    Models,
    TimedPrediction,
)
from openfold_opt.predict.output_files import ChainFiles, is_full_disk
from openfold_opt.predict.picture_file import write_picture
from openfold_opt.predict.progress import ChainProgress
from openfold_opt.predict.scores import line_of, model_scores, rank_predictions, short_name

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import FeatureSettings, PreparedChain

GIBIBYTE = 2**30


class GroupError(RuntimeError):
    """One rank of a group that shares a chain failed, so the group cannot continue."""


class FeatureError(ValueError):
    """The features of a chain could not be prepared."""


class PlanError(ValueError):
    """A chain does not fit into the memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Prediction of a chain with one set of weights, and what it was made from."""

    prepared: PreparedChain
    """Without features."""
    timed: TimedPrediction
    plan: ChainPlan


class ChainRunner:
    """Predicts the chains of one group of ranks."""

    def __init__(
        self,
        jobs: Sequence[ChainJob],
        *,
        models: Models,
        folder: Path,
        options: ChainOptions,
        progress: ChainProgress,
        heartbeat: SilentHeartbeat,
        on_record: Callable[[], None],
    ) -> None:
        """Prepare the run.

        Args:
            jobs: the chains of this group, the longest first; the same on every rank of it.
            models: weights, plans and forward.
            folder: the output directory.
            options: what is written.
            progress: receives a line per chain on the first rank.
            heartbeat: shows the progress to other ranks.
            on_record: called on the first rank of the group after each record was written.
        """
        self._jobs, self._models = list(jobs), models
        self._folder, self._options = folder, options
        self._progress, self._heartbeat, self._on_record = progress, heartbeat, on_record
        self._is_writer = models.dap.rank == 0
        self._write_lock = threading.Lock()
        self._positions: dict[tuple[int, FeatureSettings], int] = {}
        self.current: ChainJob | None = None
        """The chain that is predicted now."""

    def run(self) -> None:
        """Predict all chains.

        Raises:
            OSError: the disk is full; finished chains stay.
            GroupError: this rank failed while other ranks share the chain.
        """
        with FeatureQueue(self._feature_task(), num_workers=self._num_workers()) as queue:
            for number, job in enumerate(self._jobs):
                self.current = job
                self._run_job(number, job, queue)
        self.current = None

    def record_failure(self, kind: str, message: str) -> None:
        """Write the record of the current chain, if this rank writes and there is such a chain."""
        if self.current is not None and self._is_writer:
            self._write(self._failed(self.current, ChainFailure(kind=kind, message=message)))

    def _run_job(self, number: int, job: ChainJob, queue: FeatureQueue) -> None:
        files = ChainFiles(self._folder, job.stem, self._models.names)
        self._heartbeat.set_status(activity=f"chain {job.chain.name}", step=number)
        try:
            record = self._predict(number, job, files, queue)
        except (FloatingPointError, FeatureError, PlanError) as error:
            # Every rank of the group has the same error.
            record = self._failed(job, ChainFailure(kind=_kind(error), message=str(error)))
        except Exception as error:
            if is_full_disk(error):
                raise
            failure = self._describe(job, error)
            if self._models.dap.size > 1:
                self.record_failure(failure.kind, failure.message)
                raise GroupError(f"{job.chain.name}: {failure.message}") from error
            record = self._failed(job, failure)
        finally:
            files.discard()
        if record.status == "failed":
            self._free_memory()
        if self._is_writer:
            self._write(record)
            self._progress.finished(line_of(record), has_result=record.status == "finished")

    def _predict(
        self, number: int, job: ChainJob, files: ChainFiles, queue: FeatureQueue
    ) -> ChainRecord:
        self._check_plans(job)
        outcomes: dict[str, Outcome] = {}
        feature_seconds, position, prepared, batch = 0.0, None, None, None
        for index, name in enumerate(self._models.names):
            needed = self._positions[number, self._models.feature_settings(index)]
            if needed != position:
                started = time.perf_counter()
                # Free the previous features first: those of a deep alignment take gigabytes.
                batch = None
                prepared, position = self._prepared(queue, needed), needed
                # The forward copies blocks of the features to the device, as the plan assumes.
                batch = prepared.features()
                prepared = replace(prepared, wire={})
                if self._is_writer and index == 0:
                    self._progress.warned(short_name(job.chain.name), prepared.warnings)
                feature_seconds += time.perf_counter() - started
            plan = self._plans_of(job)[index]
            timed = self._models.predict_features(
                batch,
                index,
                plan=plan,
                sinks=self._sinks(files, index, job),
                on_pass=self._report_passes(job, index),
            )
            outcomes[name] = Outcome(prepared=prepared, timed=timed, plan=plan)
        record = self._finish(job, files, outcomes)
        return replace(record, feature_seconds=round(feature_seconds, 3))

    def _check_plans(self, job: ChainJob) -> None:
        num_residues, num_ranks = len(job.chain.sequence), self._models.dap.size
        if num_ranks > num_residues:
            raise PlanError(
                f"{num_residues} residues cannot be shared between {num_ranks} ranks; start at "
                f"most {num_residues} ranks per chain (--dap)"
            )
        for plan in self._plans_of(job):
            if not plan.fits:
                raise PlanError(plan.refusal())

    def _finish(
        self, job: ChainJob, files: ChainFiles, outcomes: Mapping[str, Outcome]
    ) -> ChainRecord:
        """Write the files of a chain on the first rank, and return its record."""
        predictions = {name: outcome.timed for name, outcome in outcomes.items()}
        ranking = rank_predictions(predictions, by=self._options.rank_by)
        warnings: list[str] = []
        names: list[dict[str, str]] = [{} for _ in ranking]
        if self._is_writer:
            warnings = self._write_files(job, files, outcomes, best=ranking[0])
            names = files.finish(ranking)
        prepared = [outcome.prepared for outcome in outcomes.values()]
        first = self._record(job, "finished")
        return replace(
            first,
            warnings=_merged(first.warnings, *(x.warnings for x in prepared), warnings),
            num_alignment_rows=prepared[0].num_alignment_rows,
            alignment_depth=prepared[0].alignment_depth,
            templates=_merged(*(x.templates for x in prepared)),
            input_hash=prepared[0].input_hash,
            structure=files.best_structure,
            models=tuple(
                model_scores(
                    name,
                    predictions[name],
                    rank=rank,
                    planned_peak_bytes=outcomes[name].plan.peak_bytes,
                    files=kinds,
                )
                for rank, (name, kinds) in enumerate(zip(ranking, names), start=1)
            ),
            file_bytes=files.sizes,
        )

    def _write_files(
        self, job: ChainJob, files: ChainFiles, outcomes: Mapping[str, Outcome], *, best: str
    ) -> list[str]:
        """Write the files of all sets of weights under temporary names, and return warnings."""
        warnings: list[str] = []
        for weights in self._models.weights_facts():
            outcome = outcomes[weights.name]
            result = chain_result(
                job.chain,
                outcome.timed.prediction,
                weights=weights,
                seed=self._options.seed,
                prepared=outcome.prepared,
            )
            warnings += write_result(files, result, pae_json=self._options.pae_json)
            if self._options.pictures and weights.name == best:
                warnings += write_picture(files, result)
        warnings = list(_merged(warnings))
        self._progress.warned(short_name(job.chain.name), warnings)
        return warnings

    def _prepared(self, queue: FeatureQueue, position: int) -> PreparedChain:
        """Return the features of a job in compact form, on every rank of the group."""
        prepared = queue.get(position) if self._is_writer else None
        prepared = broadcast_object(prepared, self._models.dap)
        if isinstance(prepared, Failure):
            raise FeatureError(prepared.reason.splitlines()[0])
        return prepared

    def _sinks(self, files: ChainFiles, index: int, job: ChainJob) -> RowSinks:
        """Return where the matrices go that are requested.

        All ranks of the group need sinks, because they send their rows to the first rank.
        """
        options = self._options
        is_requested = {
            PAE: options.save_pae and self._models.has_pae(index),
            DISTOGRAM: options.save_distogram,
            SINGLE: options.save_embeddings,
            PAIR: options.save_embeddings,
        }
        sinks = {}
        for kind in (kind for kind, requested in is_requested.items() if requested):
            sinks[kind] = _ignore_rows
            if self._is_writer:
                sinks[kind] = files.row_file(
                    self._models.names[index],
                    kind,
                    num_rows=len(job.chain.sequence),
                    is_square=kind != SINGLE,
                )
        return RowSinks(**sinks)

    def _report_passes(self, job: ChainJob, index: int) -> Callable[[int, float | None], None]:
        """Return a function that reports the passes of a chain with one set of weights."""

        def report(pass_index: int, _: float | None) -> None:
            done = pass_index + 1
            self._heartbeat.set_status(activity=f"chain {job.chain.name}, {done} passes done")
            if self._is_writer:
                self._progress.passed(job.chain.name, done, self._models.num_passes(index))

        return report

    def _plans_of(self, job: ChainJob) -> list[ChainPlan]:
        return [self._models.plan(job.chain, index) for index in range(len(self._models.names))]

    def _feature_task(self) -> FeatureTask:
        """List the features to prepare: one job per chain and different settings.

        Chains that do not fit get none. They are the first ones, because the longest is first.
        """
        jobs: list[FeatureJob] = []
        has_fitted = False
        for number, job in enumerate(self._jobs):
            has_fitted = has_fitted or all(plan.fits for plan in self._plans_of(job))
            if not has_fitted:
                continue
            for index in range(len(self._models.names)):
                settings = self._models.feature_settings(index)
                if (number, settings) not in self._positions:
                    self._positions[number, settings] = len(jobs)
                    jobs.append(FeatureJob(chain=job.chain, settings=settings))
        return FeatureTask(jobs=tuple(jobs), prepare=self._models.prepare)

    def _num_workers(self) -> int:
        """Return 0 if there is nothing to prepare ahead, or if this rank prepares nothing."""
        is_useful = self._is_writer and len(self._positions) > 1
        return self._options.num_workers if is_useful else 0

    def _failed(self, job: ChainJob, failure: ChainFailure) -> ChainRecord:
        return replace(self._record(job, "failed"), error=failure)

    def _record(self, job: ChainJob, status: str) -> ChainRecord:
        """Return the record of a chain without its results."""
        return ChainRecord(
            name=job.chain.name,
            stem=job.stem,
            sequence=job.chain.sequence,
            run_id=self._options.run_id,
            seed=self._options.seed,
            status=status,
            warnings=tuple(job.chain.warnings),
            plan=self._plans_of(job)[0].as_json(),
        )

    def _describe(self, job: ChainJob, error: Exception) -> ChainFailure:
        if is_lost_connection(error):
            # Gloo continues with advice on its own bugs.
            reason = str(error).splitlines()[0].partition(" This is typically")[0]
            return ChainFailure(kind="lost rank", message=f"another rank was lost: {reason}")
        if not is_out_of_memory(error):
            return ChainFailure(kind="other", message=f"{type(error).__name__}: {error}")
        peak = max(plan.peak_bytes for plan in self._plans_of(job)) / GIBIBYTE
        return ChainFailure(
            kind="out of memory",
            message=f"out of memory: the plan expected a peak of {peak:.2f} GiB "
            f"({str(error).splitlines()[0]}); end other programs that use this memory, or share "
            "the chain between more GPUs (torchrun --nproc-per-node P, --dap P)",
        )

    def _write(self, record: ChainRecord) -> None:
        # The thread that learns of a lost rank writes records too.
        with self._write_lock:
            write_record(self._folder, record)
            self._on_record()

    def _free_memory(self) -> None:
        gc.collect()
        if self._models.device.type == "cuda":
            torch.cuda.empty_cache()


def _merged(*texts: Iterable[str]) -> tuple[str, ...]:
    """Return all texts in their order, each once."""
    return tuple(dict.fromkeys(text for group in texts for text in group))


def _ignore_rows(start: int, rows: np.ndarray) -> None:
    """The sink of a rank that writes no files."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception is a failed allocation on a GPU or a CPU."""
    is_allocator = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or is_allocator


def _kind(error: Exception) -> str:
    if isinstance(error, FloatingPointError):
        return "not finite"
    return "features" if isinstance(error, FeatureError) else "does not fit"
