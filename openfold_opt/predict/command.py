"""The command: from checked options to structures in an output directory, on one rank or many."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.parallel.broadcast import broadcast_object
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.parallel.heartbeat import (
    LOST_RANK_EXIT_CODE,
    SilentHeartbeat,
    is_lost_connection,
)
from openfold_opt.parallel.launch import read_launch_info
from openfold_opt.parallel.process_exit import SIGNAL_EXIT_CODES
from openfold_opt.predict.chain_record import remove_chain, write_record
from openfold_opt.predict.comparison.run_scores import remove_scores, score_run
from openfold_opt.predict.comparison.structure_files import PathError, TrueStructures
from openfold_opt.predict.file_names import chain_stems
from openfold_opt.predict.models import ChainJob, ChainOptions, Models
from openfold_opt.predict.option_parser import USAGE_EXIT_CODE
from openfold_opt.predict.options import OptionError, PredictOptions
from openfold_opt.predict.output_files import is_full_disk
from openfold_opt.predict.output_folder import OutputFolder
from openfold_opt.predict.progress import ChainProgress, print_line
from openfold_opt.predict.ranks import (
    connect,
    deal_out,
    split_of_ranks,
    start_heartbeat,
    wait_for_end,
)
from openfold_opt.predict.report import write_report
from openfold_opt.predict.run_chains import ChainRunner, GroupError
from openfold_opt.predict.run_settings import RunFacts, RunSetting
from openfold_opt.predict.scores import describe_failure, unusable_record
from openfold_opt.predict.start_report import describe_start
from openfold_opt.predict.summary import SummaryWriter, read_identity

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import ChainFailure, ChainInput

FAILED_EXIT_CODE = 1
MAX_SHOWN = 10
"""Maximum number of chains that a message names."""
RESTART = "finished chains stay, and the same command predicts the others"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The functions that the command puts together."""

    read_inputs: Callable[[PredictOptions], tuple[list[ChainInput], list[ChainFailure]]]
    """Return the chains, and those that cannot be predicted. Raises ValueError or OSError."""
    load_models: Callable[[PredictOptions, torch.device, AxisGroup], Models]
    """Read and check all weights. Raises ValueError or OSError."""
    hash_inputs: Callable[[ChainInput], str]
    """Return a hash of the alignments of a chain. Raises ValueError if they cannot be read."""
    print_plan: Callable[[PredictOptions], int]
    """Print the memory plan of --plan-only, and return the exit code."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What rank 0 has found and decided before the first prediction, for all ranks."""

    refusal: str | None = None
    options: PredictOptions | None = None
    run_id: str = ""
    jobs: tuple[ChainJob, ...] = ()
    """The chains to predict, in the order of the input."""


@dataclass(kw_only=True, eq=False)
class Run:
    """State of a run on one rank."""

    options: PredictOptions
    parts: Parts
    context: ParallelContext
    device: torch.device
    heartbeat: SilentHeartbeat = field(default_factory=SilentHeartbeat)
    folder: OutputFolder | None = None
    """Only on rank 0."""
    summary: SummaryWriter | None = None
    """Only on rank 0."""
    truths: TrueStructures | None = None
    """Only on rank 0, and only with --truth."""
    models: Models | None = None
    runner: ChainRunner | None = None


def run_command(options: PredictOptions, *, prog: str, parts: Parts) -> int:
    """Predict, or plan, and return the exit code of the process.

    Args:
        options: the checked command line.
        prog: name of the program in messages.
        parts: functions that read inputs and weights.
    """
    try:
        if options.plan_only:
            return parts.print_plan(options)
        launch = read_launch_info()
        dap, _ = split_of_ranks(launch, dap=options.dap, replicas=options.replicas)
        device = choose_device(str(options.value("device")), local_rank=launch.local_rank)
        context = connect(launch, dap=dap, device=device)
    except (ValueError, OSError) as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        return USAGE_EXIT_CODE
    run = Run(options=options, parts=parts, context=context, device=device)
    try:
        with exiting_by_signal(prog):
            return _run(run, prog)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted; {RESTART}", file=sys.stderr)
        return SIGNAL_EXIT_CODES + signal.SIGINT
    finally:
        run.heartbeat.close()
        if run.folder is not None:
            run.folder.close()
        context.close()


@contextmanager
def exiting_by_signal(prog: str) -> Iterator[None]:
    """Let SIGTERM and SIGUSR1 end the process in order, with exit code 143."""

    def end(number: int, frame: object) -> None:
        print(f"{prog}: ended by {signal.Signals(number).name}; {RESTART}", file=sys.stderr)
        raise SystemExit(SIGNAL_EXIT_CODES + signal.SIGTERM)

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    previous = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def choose_device(name: str, *, local_rank: int) -> torch.device:
    """Return the device of this rank for auto, cpu or cuda.

    Raises:
        OptionError: the name is none of these, or a GPU is requested and there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise OptionError(
            f"--device {name}: expected auto, cpu or cuda; names of GPUs are for --plan-only"
        )
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cuda" and not num_gpus:
        raise OptionError(
            "--device cuda: PyTorch finds no GPU; use --device cpu, or a machine with a GPU and a "
            "CUDA build of PyTorch"
        )
    if name == "cpu" or not num_gpus:
        return torch.device("cpu")
    # With srun, a task may see only its own GPU, which then has the index 0.
    return torch.device("cuda", local_rank % num_gpus)


def _run(run: Run, prog: str) -> int:
    try:
        run.heartbeat = start_heartbeat(run.context, on_lost_rank=lambda text: _lost(run, text))
        code = _predict_all(run, prog)
        wait_for_end(run.context)
        # The launcher ends all ranks if one exits with an error, so only rank 0 does.
        return _final_code(run) if run.context.world.rank == 0 and code == 0 else code
    except Exception as error:
        cause = error.__cause__ if isinstance(error, GroupError) else error
        if is_lost_connection(cause) and run.heartbeat.explain() is not None:
            # The thread of the heartbeat has printed and recorded the reason.
            return LOST_RANK_EXIT_CODE
        run.heartbeat.report_failure(error)
        if not isinstance(error, GroupError | OSError):
            raise
        print(f"{prog}: error: {_describe_refusal(error)}; {RESTART}", file=sys.stderr)
        return FAILED_EXIT_CODE


def _describe_refusal(error: Exception) -> str:
    return f"the disk is full: {error}; free space" if is_full_disk(error) else str(error)


def _lost(run: Run, text: str) -> None:
    """Record that the current chain failed because another rank was lost."""
    print(f"lost rank: {text}; {RESTART}", file=sys.stderr, flush=True)
    if run.runner is not None:
        run.runner.record_failure("lost rank", text)


def _predict_all(run: Run, prog: str) -> int:
    """Predict the chains of this rank's replica. Return 2 if rank 0 refused, else 0."""
    decision = None
    if run.context.world.rank == 0:
        try:
            decision = _decide(run)
        except (ValueError, OSError) as error:
            decision = Decision(refusal=_describe_refusal(error))
    decision = broadcast_object(decision, run.context.world)
    if decision.refusal is not None:
        if run.context.world.rank == 0:
            print(f"{prog}: error: {decision.refusal}", file=sys.stderr)
        return USAGE_EXIT_CODE
    run.options = decision.options
    if run.models is None:
        run.models = run.parts.load_models(run.options, run.device, run.context.dap)
    jobs = _own_jobs(run, decision.jobs)
    run.runner = ChainRunner(
        jobs,
        models=run.models,
        folder=run.options.out,
        options=_chain_options(run.options, decision.run_id),
        progress=_progress(run, jobs),
        heartbeat=run.heartbeat,
        on_record=run.summary.update if run.summary is not None else lambda: None,
    )
    run.runner.run()
    return 0


def _decide(run: Run) -> Decision:
    """Read inputs and weights, open the output directory, and print what will be done."""
    if run.options.truths:
        run.truths = _open_truths(run.options)
    # The directory is opened before the input: it may fix the date of the templates.
    run.folder = OutputFolder(run.options.out)
    run.options = _with_earlier_date(run.options)
    chains, unusable = run.parts.read_inputs(run.options)
    if not chains:
        raise OptionError(_describe_unusable(unusable))
    run.models = run.parts.load_models(run.options, run.device, run.context.dap)
    facts = _facts(run)
    run.folder.check_run(facts.identity(), overwrite=run.options.overwrite)
    names = [item.name for item in (*chains, *unusable)]
    stems = chain_stems(names, run.models.names)
    jobs = tuple(ChainJob(chain=chain, stem=stem) for chain, stem in zip(chains, stems))
    remaining = run.folder.remaining(
        jobs,
        run_id=facts.run_id(),
        overwrite=run.options.overwrite,
        hash_inputs=run.parts.hash_inputs,
    )
    failed_stems = stems[len(chains) :]
    if not run.options.overwrite:
        run.folder.check_unusable(
            [(item.name, stem, item.message) for item, stem in zip(unusable, failed_stems)]
        )
    jobs = tuple(job for job in jobs if job.stem in remaining)
    notes = [note for note in remaining.values() if note]
    for line in (*describe_start(facts, run.models, jobs, num_chains=len(chains)), *notes):
        print_line(line)
    for stem in (*remaining, *failed_stems):
        # Before the summary has the identity of this run: no file of another run may stay.
        remove_chain(run.folder.path, stem)
    remove_scores(run.folder.path, (*remaining, *failed_stems))
    seed = int(run.options.value("seed"))
    for failure, stem in zip(unusable, failed_stems):
        print_line(f"FAILED (input): {describe_failure(failure)}")
        record = unusable_record(failure, stem, run_id=facts.run_id(), seed=seed)
        write_record(run.folder.path, record)
    run.summary = SummaryWriter(run.folder.path, facts, chains=list(zip(names, stems)))
    run.summary.write()
    return Decision(options=run.options, run_id=facts.run_id(), jobs=jobs)


def _open_truths(options: PredictOptions) -> TrueStructures:
    try:
        return TrueStructures(options.truths, on_warning=print_line)
    except PathError as error:
        raise OptionError(f"--truth: {error}") from error


def _describe_unusable(unusable: Sequence[ChainFailure]) -> str:
    """Say why no chain of the input can be predicted."""
    if not unusable:
        return "the input has no chains"
    shown = "; ".join(describe_failure(failure) for failure in unusable[:MAX_SHOWN])
    more = len(unusable) - MAX_SHOWN
    return shown + (f"; and {more} more chains" if more > 0 else "")


def _with_earlier_date(options: PredictOptions) -> PredictOptions:
    """Use the date of the run in the output directory if none is given.

    The default is today. Without this, a run could not be completed on the next day.
    """
    if options.overwrite or options.settings["max_template_date"].origin == "option":
        return options
    earlier = (read_identity(options.out) or {}).get("max_template_date")
    if earlier is None:
        return options
    return options.with_setting("max_template_date", RunSetting(value=earlier, origin="run"))


def _facts(run: Run) -> RunFacts:
    dap, world = run.context.dap.size, run.context.world.size
    ranks = {"dap": dap, "replicas": world // dap}
    given = {"dap": run.options.dap, "replicas": run.options.replicas}
    settings = dict(run.options.settings) | {
        name: RunSetting(value=value, origin="default" if given[name] is None else "option")
        for name, value in ranks.items()
    }
    dtype = RunSetting(value=run.models.dtype, origin=settings["dtype"].origin)
    return RunFacts(
        settings=settings | {"dtype": dtype},
        weights=run.models.weights_facts(),
        device=run.models.device_name,
    )


def _own_jobs(run: Run, jobs: Sequence[ChainJob]) -> list[ChainJob]:
    """Return the chains of this rank's replica, the longest first.

    Memory that was allocated for the longest chain serves all others, and a chain that is too long
    is known at once.
    """
    costs = [run.models.cost(job.chain) for job in jobs]
    replica = run.context.data
    return [jobs[index] for index in deal_out(costs, replica.size)[replica.rank]]


def _chain_options(options: PredictOptions, run_id: str) -> ChainOptions:
    pae_json = options.value("pae_json")
    return ChainOptions(
        run_id=run_id,
        rank_by=str(options.value("rank")),
        save_pae=bool(options.value("save_pae")),
        pae_json=None if pae_json == "auto" else bool(pae_json),
        save_distogram=bool(options.value("save_distogram")),
        save_embeddings=bool(options.value("save_embeddings")),
        seed=int(options.value("seed")),
        pictures=bool(options.value("pictures")),
        num_workers=options.num_workers,
    )


def _progress(run: Run, jobs: Sequence[ChainJob]) -> ChainProgress:
    replica = run.context.data
    return ChainProgress(
        [run.models.cost(job.chain) for job in jobs],
        prefix=f"replica {replica.rank}: " if replica.size > 1 else "",
        write=print_line,
    )


def _final_code(run: Run) -> int:
    """Write the last summary, print the outcome, and return the exit code."""
    failed = run.summary.write()
    if run.truths is not None:
        score_run(
            run.folder.path,
            run.truths,
            with_pictures=bool(run.options.value("pictures")),
            write_line=print_line,
        )
    num_chains = len(run.summary.chains)
    print(
        f"{num_chains - len(failed)} of {num_chains} chains have a structure in {run.folder.path}"
    )
    if failed:
        shown = ", ".join(failed[:MAX_SHOWN]) + (", ..." if len(failed) > MAX_SHOWN else "")
        print(f"{len(failed)} failed: {shown}; the reasons are above and in summary.json")
    if run.options.report:
        _write_report(run.folder.path)
    return FAILED_EXIT_CODE if failed else 0


def _write_report(folder: Path) -> None:
    """Write report.html. The results are complete without it: a failure is only printed."""
    try:
        print(f"report: {write_report(folder)}")
    except Exception as error:
        print(
            f"no report: {type(error).__name__}: {error}; the results are complete, and python -m "
            f"openfold_opt.predict.report {folder} writes the report",
            file=sys.stderr,
        )
