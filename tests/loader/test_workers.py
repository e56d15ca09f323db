"""Worker processes: order, backpressure, errors, deaths, stalls and clean ends, for every way to start them."""

import dataclasses
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.workers import LoaderError, OrderedWorkers


@dataclasses.dataclass(frozen=True)
class SquareTask:
    """Squares positions; at one of them something happens."""

    at: int = -1
    event: str = ""
    log: str = ""

    def __call__(self, position):
        if self.log:
            pathlib.Path(self.log, str(position)).touch()
        if position == self.at:
            self.happen()
        time.sleep(0.002 * (position % 3))
        return position, {"square": np.array([position**2]), "threads": np.array(torch.get_num_threads())}

    def happen(self):
        if self.event == "raise":
            raise KeyError("no such chain")
        if self.event == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.event == "exit":
            os._exit(3)
        time.sleep(60)

    def describe(self, position):
        return f"sample {position}"


def config(**changes):
    return LoaderConfig(**{"num_workers": 2, "timeout_seconds": 20.0} | changes)


def children():
    return multiprocessing.active_children()


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_results_come_in_order(num_workers):
    with OrderedWorkers(SquareTask(), config=config(num_workers=num_workers), first=5, end=25) as workers:
        results = [(position, int(arrays["square"][0])) for position, arrays in workers]
    assert results == [(position, position**2) for position in range(5, 25)]
    assert not children()


def test_an_endless_stream_is_left_without_a_trace():
    workers = OrderedWorkers(SquareTask(), config=config())
    assert [next(workers)[0] for _ in range(4)] == [0, 1, 2, 3]
    workers.close()
    workers.close()
    assert not children()
    with pytest.raises(LoaderError, match="closed"):
        next(workers)


def test_workers_do_not_run_ahead_of_their_credits(tmp_path):
    with OrderedWorkers(SquareTask(log=str(tmp_path)), config=config(prefetch_per_worker=3)) as workers:
        next(workers)
        time.sleep(1.0)
        assert len(list(tmp_path.iterdir())) == 2 * 3 + 1


def test_workers_use_one_thread():
    with OrderedWorkers(SquareTask(), config=config(num_workers=1), end=1) as workers:
        assert next(workers)[1]["threads"] == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_names_the_sample_and_the_cause(num_workers):
    with OrderedWorkers(SquareTask(at=5, event="raise"), config=config(num_workers=num_workers)) as workers:
        assert [next(workers)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(LoaderError, match=r"preparing sample 5 failed(.|\n)*no such chain"):
            next(workers)
    assert not children()


@pytest.mark.parametrize(("event", "code"), [("die", -9), ("exit", 3)])
def test_a_death_names_the_sample(event, code):
    with OrderedWorkers(SquareTask(at=4, event=event), config=config()) as workers:
        assert [next(workers)[0] for _ in range(4)] == [0, 1, 2, 3]
        start = time.monotonic()
        with pytest.raises(LoaderError, match=f"died with exit code {code} .*sample 4"):
            next(workers)
    assert time.monotonic() - start < 10
    assert not children()


def test_a_stall_names_the_sample():
    with OrderedWorkers(SquareTask(at=1, event="stall"), config=config(timeout_seconds=1.0)) as workers:
        next(workers)
        with pytest.raises(LoaderError, match="did not deliver sample 1 within 1.0 s"):
            next(workers)
    assert not children()


@pytest.mark.parametrize("warm_up", [0, 1])
def test_no_orphans_when_the_consumer_is_killed(warm_up):
    script = """
        import multiprocessing, os, signal
        from openfold_opt.loader.config import LoaderConfig
        from openfold_opt.loader.workers import OrderedWorkers
        class Task:
            def __call__(self, position): return position, {}
            def describe(self, position): return str(position)
        workers = OrderedWorkers(Task(), config=LoaderConfig(num_workers=3))
        for _ in range(WARM_UP):
            next(workers)
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    root = pathlib.Path(__file__).parents[2]
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script).replace("WARM_UP", str(warm_up))], cwd=root, stdout=subprocess.PIPE, text=True, check=False, timeout=60
    ).stdout
    pids = [int(pid) for pid in output.split()]
    assert len(pids) == 3
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(is_running(pid) for pid in pids):
        time.sleep(0.2)
    assert not [pid for pid in pids if is_running(pid)]


def is_running(pid):
    try:
        return "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
