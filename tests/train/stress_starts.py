"""Start and end many tiny runs of two and four ranks under load, and check how each rank ends.

Every rank is forked from this process, which has imported everything and has one thread. A rank
makes a real run (gloo, heartbeat, prefetch thread, checkpoint writer, sometimes an evaluation rank)
and then exits through the shutdown of the interpreter, where a thread that is still inside a
library would abort the process. Most runs succeed; some are preempted, interrupted, fail, or lose
a rank.
"""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from openfold_opt.loader.background_queue import BackgroundQueue
from openfold_opt.loader.batch import LoadedBatch, ModelFeatures
from openfold_opt.parallel.heartbeat import LOST_RANK_EXIT_CODE, LostRankError
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.train.build_run import RunPaths
from openfold_opt.train.errors import NonFiniteError
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.trainer import Trainer
from tests.support.gloo_ranks import free_port
from tests.support.synthetic_samples import MemoryData, MemorySource, tiny_config

FAILED, PREEMPTED, INTERRUPTED = 1, 75, 130
OUTCOMES = {"success": 0.75, "preempted": 0.08, "failed": 0.07, "interrupted": 0.06, "lost": 0.04}
"""How runs end, with the share of each outcome."""
EXPECTED = {"success": 0, "preempted": PREEMPTED, "failed": FAILED, "lost": LOST_RANK_EXIT_CODE}
LAYOUTS = (
    (2, {}),
    (2, {"dap_size": 2}),
    (2, {"num_evaluation_ranks": 1}),
    (4, {}),
    (4, {"dap_size": 2}),
    (4, {"num_evaluation_ranks": 2, "evaluation_groups": 2}),
)
"""Number of ranks and fields of ParallelConfig."""
FATAL_WORDS = ("terminate called", "Fatal Python error", "THREADS LEFT", "pure virtual method")
LIMIT_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run."""

    number: int
    num_ranks: int
    parallel: dict[str, int]
    outcome: str
    """One of OUTCOMES."""
    victim: int
    """The rank that gets the stop request, or is lost."""
    max_steps: int
    has_planted_fault: bool
    """Whether each rank leaves a running thread behind, which the program must detect."""

    def expected(self, rank: int) -> set[int]:
        """Return the correct exit codes of a rank, negative for a signal."""
        if self.outcome == "lost" and rank == self.victim:
            return {-signal.SIGKILL}
        if self.outcome == "interrupted":
            # A rank may see the end of another rank before its own interrupt, and evaluation
            # ranks are not interrupted.
            return {INTERRUPTED, LOST_RANK_EXIT_CODE}
        num_training = self.num_ranks - self.parallel.get("num_evaluation_ranks", 0)
        if self.outcome == "failed" and rank >= num_training:
            # An evaluation rank does not see the loss. It ends because of the failure report.
            return {LOST_RANK_EXIT_CODE}
        return {EXPECTED[self.outcome]}


class PrefetchedData(MemoryData):
    """Samples from a prefetch thread. A rank may be interrupted or lost at its second batch."""

    def __init__(self, case: Case, rank: int, *args, **options) -> None:
        super().__init__(*args, **options)
        self._case, self._rank = case, rank
        self._queue: BackgroundQueue | None = None

    def training_batches(self, **options) -> Iterator[LoadedBatch[ModelFeatures]]:
        self._queue = BackgroundQueue(super().training_batches(**options), depth=2, name="prefetch")
        return self._batches()

    def _batches(self) -> Iterator[LoadedBatch[ModelFeatures]]:
        for number in range(1_000_000):
            if number == 1 and self._case.outcome == "interrupted":
                signal.raise_signal(signal.SIGINT)
            if number == 1 and self._case.outcome == "lost" and self._rank == self._case.victim:
                os.kill(os.getpid(), signal.SIGKILL)
            yield self._queue.get()

    def close(self) -> None:
        if self._queue is not None:
            self._queue.close()


class PrefetchedSource(MemorySource):
    """Implements DataSource."""

    def __init__(self, case: Case, rank: int) -> None:
        # Every layout uses the second sample within two steps.
        super().__init__(broken_at=1 if case.outcome == "failed" else None)
        self._case, self._rank = case, rank

    def open(self, config, context, *, seed: int) -> PrefetchedData:
        return PrefetchedData(self._case, self._rank, config, context, broken_at=self._broken_at)


def draw_case(
    rng: random.Random, number: int, *, only: str | None, has_planted_fault: bool
) -> Case:
    """Draw a case. Only training ranks get stop requests or are lost."""
    num_ranks, parallel = LAYOUTS[number % len(LAYOUTS)]
    return Case(
        number=number,
        num_ranks=num_ranks,
        parallel=parallel,
        outcome=only or rng.choices(list(OUTCOMES), weights=list(OUTCOMES.values()))[0],
        victim=rng.randrange(num_ranks - parallel.get("num_evaluation_ranks", 0)),
        max_steps=rng.choice((2, 3)),
        has_planted_fault=has_planted_fault,
    )


def rank_main(case: Case, rank: int, port: int, folder: Path) -> int:
    """Run one rank, and return its exit code."""
    config = tiny_config(max_steps=case.max_steps, warm_up=False)
    config = dataclasses.replace(
        config,
        parallel=dataclasses.replace(
            config.parallel, timeout_seconds=120, heartbeat_seconds=6.0, **case.parallel
        ),
        evaluation=dataclasses.replace(config.evaluation, every_steps=2),
        checkpoint=dataclasses.replace(config.checkpoint, every_steps=1),
    )
    stop_request = StopRequest()
    stop_request.is_raised = case.outcome == "preempted" and rank == case.victim
    launch = LaunchInfo(
        rank=rank,
        world_size=case.num_ranks,
        local_rank=rank,
        ranks_per_node=case.num_ranks,
        master_port=port,
    )
    trainer = Trainer(
        config,
        data=PrefetchedSource(case, rank),
        paths=RunPaths(output_dir=folder),
        seed=case.number,
        launch=launch,
        stop_request=stop_request,
    )
    try:
        trainer.run()
    except PreemptedError:
        return PREEMPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except LostRankError as error:
        print(error, file=sys.stderr)
        return LOST_RANK_EXIT_CODE
    except NonFiniteError:
        return FAILED
    return 0


def as_rank(case: Case, rank: int, port: int, folder: Path) -> int:
    """Run a forked rank with its output in a file, and return its exit code."""
    with (folder / f"rank{rank}.txt").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable()
    code = rank_main(case, rank, port, folder / "run")
    left = [
        thread.name for thread in threading.enumerate() if thread is not threading.main_thread()
    ]
    if left:
        print(f"THREADS LEFT {left}", file=sys.stderr, flush=True)
    if case.has_planted_fault:
        x = torch.ones(200, 200)
        threading.Thread(target=lambda: [x @ x for _ in range(1_000_000)], daemon=True).start()
        time.sleep(0.05)
    return code


class ForkedRank(Exception):
    """Takes a forked rank out of the loop of its parent, to the shutdown of the interpreter."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def prepare_to_fork() -> None:
    """Run one rank, so that all modules are imported before the forks.

    Raises RuntimeError if the run fails or leaves a thread.
    """
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="stress"))
    single = Case(
        number=0,
        num_ranks=1,
        parallel={},
        outcome="success",
        victim=0,
        max_steps=2,
        has_planted_fault=False,
    )
    if rank_main(single, 0, 0, folder) != 0:
        raise RuntimeError("the run of one rank failed")
    shutil.rmtree(folder)
    gc.freeze()
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise RuntimeError(
            f"{len(threads)} threads before the first fork; expected one: {threading.enumerate()}"
        )


def start_ranks(case: Case, folder: Path) -> list[int]:
    """Fork the ranks and return their process ids. Raises ForkedRank in each rank."""
    port, processes = free_port(), []
    for rank in range(case.num_ranks):
        process = os.fork()
        if process == 0:
            raise ForkedRank(as_rank(case, rank, port, folder))
        processes.append(process)
    return processes


def wait_for_ranks(processes: list[int]) -> list[int | None]:
    """Return the exit codes in rank order.

    A rank that still runs after LIMIT_SECONDS is killed, and its code is None.
    """
    codes: dict[int, int] = {}
    deadline = time.monotonic() + LIMIT_SECONDS
    while len(codes) < len(processes) and time.monotonic() < deadline:
        for process in processes:
            if process not in codes:
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    codes[process] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    for process in processes:
        if process not in codes:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    return [codes.get(process) for process in processes]


def find_faults(case: Case, codes: list[int | None], folder: Path) -> list[str]:
    """Return a message for each rank of a case that did not end as expected."""
    faults = []
    for rank, code in enumerate(codes):
        text = (folder / f"rank{rank}.txt").read_text(errors="replace")
        words = [word for word in FATAL_WORDS if word in text]
        if code not in case.expected(rank) or words:
            faults.append(
                f"{case}: rank {rank} ended with {code}, expected {case.expected(rank)} {words}\n"
                f"{text[-6000:]}"
            )
    return faults


def start_busy_processes(number: int) -> list[int]:
    """Start processes that compute until they are killed."""
    processes = []
    for _ in range(number):
        process = os.fork()
        if process == 0:
            while True:
                sum(range(10_000))
        processes.append(process)
    return processes


def main() -> int:
    """Run all cases, and print faults and a summary. Return 1 if there were faults."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.train.stress_starts", description=__doc__
    )
    parser.add_argument("--starts", type=int, default=500, help="number of runs (default: 500)")
    parser.add_argument(
        "--busy", type=int, default=2, help="processes that create load (default: 2)"
    )
    parser.add_argument("--only", choices=list(OUTCOMES), help="use only this outcome")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases (default: 0)")
    parser.add_argument(
        "--plant",
        action="store_true",
        help="leave a running thread in every rank, which must be reported as a fault",
    )
    args = parser.parse_args()
    prepare_to_fork()
    rng, counts, started = random.Random(args.seed), Counter(), time.monotonic()
    busy = start_busy_processes(args.busy)
    num_faults = 0
    # No context manager here: a forked rank leaves through these frames.
    for number in range(args.starts):
        case = draw_case(rng, number, only=args.only, has_planted_fault=args.plant)
        folder = Path(tempfile.mkdtemp(prefix="stress"))
        faults = find_faults(case, wait_for_ranks(start_ranks(case, folder)), folder)
        shutil.rmtree(folder)
        counts[f"{case.num_ranks} ranks, {case.outcome}"] += 1
        num_faults += len(faults)
        for fault in faults:
            print(f"FAULT {fault}", flush=True)
        if number % 20 == 19:
            print(
                f"{number + 1} starts, {num_faults} faults, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    for process in busy:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print(f"{args.starts} starts and ends, {num_faults} faults, {time.monotonic() - started:.0f} s")
    return 1 if num_faults else 0


if __name__ == "__main__":
    try:
        CODE = main()
    except ForkedRank as end:
        CODE = end.code
    sys.exit(CODE)
