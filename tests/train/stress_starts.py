"""Start and end tiny runs of two and four ranks again and again, under load, and check how every
rank ends.

Every rank is forked from this process, which has imported everything and has one thread. A rank
makes a real run (gloo, heartbeat, staging thread, checkpoint writer, sometimes an evaluation rank)
and then leaves through the end of the interpreter, where a thread that is still inside a library
would abort the process. Most runs succeed; some are pre-empted, interrupted, fail, or lose a rank.
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
from openfold_opt.loader.batch import LoadedBatch
from openfold_opt.parallel.heartbeat import LOST_RANK_EXIT_CODE, LostRankError
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.train.build_run import RunPaths
from openfold_opt.train.preemption import PreemptedError, StopRequest
from openfold_opt.train.trainer import Trainer
from openfold_opt.train.training_interval import NonFiniteError
from tests.parallel.gloo_ranks import free_port
from tests.train.synthetic import MemoryData, MemorySource, tiny_config

FAILED, PREEMPTED, INTERRUPTED = 1, 75, 130
ENDS = {"success": 0.75, "preempted": 0.08, "failed": 0.07, "interrupted": 0.06, "lost": 0.04}
"""How runs end, with the share of each."""
EXPECTED = {"success": 0, "preempted": PREEMPTED, "failed": FAILED, "lost": LOST_RANK_EXIT_CODE}
LAYOUTS = (
    (2, {}),
    (2, {"dap_size": 2}),
    (2, {"num_evaluation_ranks": 1}),
    (4, {}),
    (4, {"dap_size": 2}),
    (4, {"num_evaluation_ranks": 2, "evaluation_groups": 2}),
)
"""Numbers of ranks and fields of ParallelConfig."""
FATAL_WORDS = ("terminate called", "Fatal Python error", "THREADS LEFT", "pure virtual method")
LIMIT_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One start of a run."""

    number: int
    num_ranks: int
    parallel: dict[str, int]
    end: str
    """One of ENDS."""
    victim: int
    """The rank that is asked to stop, or is lost."""
    max_steps: int
    planted: bool
    """Whether each rank leaves a thread behind that computes: the program must find it."""

    def expected(self, rank: int) -> set[int]:
        """Exit codes that are right for a rank, negative for a signal."""
        if self.end == "lost" and rank == self.victim:
            return {-signal.SIGKILL}
        if self.end == "interrupted":
            # a rank may hear of the end of another before it comes to its own interrupt; those that evaluate have none
            return {INTERRUPTED, LOST_RANK_EXIT_CODE}
        return {EXPECTED[self.end]}


class StagedData(MemoryData):
    """Samples that a thread makes ahead; at its second batch a rank may be interrupted or lost."""

    def __init__(self, case: Case, rank: int, *args, **options) -> None:
        super().__init__(*args, **options)
        self._case, self._rank = case, rank
        self._queue: BackgroundQueue | None = None

    def training_batches(self, **options) -> Iterator[LoadedBatch]:
        self._queue = BackgroundQueue(super().training_batches(**options), depth=2, name="staging")
        return self._delivered()

    def _delivered(self) -> Iterator[LoadedBatch]:
        for number in range(1_000_000):
            if number == 1 and self._case.end == "interrupted":
                signal.raise_stop_flag(signal.SIGINT)
            if number == 1 and self._case.end == "lost" and self._rank == self._case.victim:
                os.kill(os.getpid(), signal.SIGKILL)
            yield self._queue.get()

    def close(self) -> None:
        if self._queue is not None:
            self._queue.close()


class StagedSource(MemorySource):
    """Implements DataSource."""

    def __init__(self, case: Case, rank: int) -> None:
        # every layout uses the second sample within two steps
        super().__init__(broken_at=1 if case.end == "failed" else None)
        self._case, self._rank = case, rank

    def open(self, config, context, *, seed: int) -> StagedData:
        return StagedData(self._case, self._rank, config, context, broken_at=self._broken_at)


def draw_case(rng: random.Random, number: int, *, only: str | None, planted: bool) -> Case:
    """A case; training ranks alone are asked to stop or lost."""
    num_ranks, parallel = LAYOUTS[number % len(LAYOUTS)]
    return Case(
        number=number,
        num_ranks=num_ranks,
        parallel=parallel,
        end=only or rng.choices(list(ENDS), weights=list(ENDS.values()))[0],
        victim=rng.randrange(num_ranks - parallel.get("num_evaluation_ranks", 0)),
        max_steps=rng.choice((2, 3)),
        planted=planted,
    )


def rank_main(case: Case, rank: int, port: int, folder: Path) -> int:
    """The run of one rank; returns its exit code."""
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
    stop_request.is_raised = case.end == "preempted" and rank == case.victim
    launch = LaunchInfo(
        rank=rank,
        world_size=case.num_ranks,
        local_rank=rank,
        ranks_per_node=case.num_ranks,
        master_port=port,
    )
    trainer = Trainer(
        config,
        data=StagedSource(case, rank),
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
    """What a forked process does before it leaves."""
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
    if case.planted:
        x = torch.ones(200, 200)
        threading.Thread(target=lambda: [x @ x for _ in range(1_000_000)], daemon=True).start()
        time.sleep(0.05)
    return code


class ForkedRank(Exception):
    """Carries a forked rank out of the loop of its parent, to the end of the interpreter."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def prepare_to_fork() -> None:
    """Import what runs import late, by a run of one rank, so that forked ranks do not have to; no
    thread may be left.
    """
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="stress"))
    alone = Case(
        number=0, num_ranks=1, parallel={}, end="success", victim=0, max_steps=2, planted=False
    )
    if rank_main(alone, 0, 0, folder) != 0:
        raise RuntimeError("the run of one rank failed")
    shutil.rmtree(folder)
    gc.freeze()
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise RuntimeError(
            f"{len(threads)} threads before the first fork; expected one: {threading.enumerate()}"
        )


def start_ranks(case: Case, folder: Path) -> list[int]:
    """Process ids of the ranks. Raises ForkedRank in each of them."""
    port, processes = free_port(), []
    for rank in range(case.num_ranks):
        process = os.fork()
        if process == 0:
            raise ForkedRank(as_rank(case, rank, port, folder))
        processes.append(process)
    return processes


def wait_for_ranks(processes: list[int]) -> list[int | None]:
    """Exit codes in rank order; None for a rank that was still there after LIMIT_SECONDS, which is
    then killed.
    """
    codes: dict[int, int] = {}
    deadline = time.monotonic() + LIMIT_SECONDS
    while len(codes) < len(processes) and time.monotonic() < deadline:
        for process in processes:
            if process not in codes:
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    codes[process] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    for process in processes:
        if process not in codes:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
    return [codes.get(process) for process in processes]


def find_faults(case: Case, codes: list[int | None], folder: Path) -> list[str]:
    """What is wrong with the ends of a case, one line each."""
    faults = []
    for rank, code in enumerate(codes):
        text = (folder / f"rank{rank}.txt").read_text(errors="replace")
        words = [word for word in FATAL_WORDS if word in text]
        if code not in case.expected(rank) or words:
            faults.append(
                f"{case}: rank {rank} ended with {code}, expected {case.expected(rank)} {words}\n{text[-6000:]}"
            )
    return faults


def start_busy_processes(number: int) -> list[int]:
    """Processes that compute until they are killed."""
    processes = []
    for _ in range(number):
        process = os.fork()
        if process == 0:
            while True:
                sum(range(10_000))
        processes.append(process)
    return processes


def main() -> int:
    """Make the starts, print what went wrong and a summary; returns 1 if anything did."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.train.stress_starts", description=__doc__
    )
    parser.add_argument(
        "--starts", type=int, default=500, help="runs to start and end (default: 500)"
    )
    parser.add_argument(
        "--busy", type=int, default=2, help="processes that compute meanwhile (default: 2)"
    )
    parser.add_argument("--only", choices=list(ENDS), help="let all runs end this way")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of the cases (default: 0)")
    parser.add_argument(
        "--plant",
        action="store_true",
        help="leave a computing thread in every rank: ends must be found faulty",
    )
    args = parser.parse_args()
    prepare_to_fork()
    rng, counts, started = random.Random(args.seed), Counter(), time.monotonic()
    busy = start_busy_processes(args.busy)
    num_faults = 0
    # no context manager here: a forked rank leaves through these frames
    for number in range(args.starts):
        case = draw_case(rng, number, only=args.only, planted=args.plant)
        folder = Path(tempfile.mkdtemp(prefix="stress"))
        faults = find_faults(case, wait_for_ranks(start_ranks(case, folder)), folder)
        shutil.rmtree(folder)
        counts[f"{case.num_ranks} ranks, {case.end}"] += 1
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
