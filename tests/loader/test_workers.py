"""Worker processes: order, backpressure, errors, deaths, stalls, shutdown and start methods."""

import dataclasses
import errno
import multiprocessing
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter

import numpy as np
import pytest
import torch

from openfold_opt.loader.array_transfer import channel_pair, receive_arrays, send_arrays
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.reorder_window import StreamState
from openfold_opt.loader.retry_policy import LoaderError
from openfold_opt.loader.worker import Worker
from openfold_opt.loader.workers import WorkerStream


@dataclasses.dataclass(frozen=True)
class SquareTask:
    """Squares positions.

    The first `times` attempts at the positions `at` trigger `event`. Attempts are counted by files
    in the folder `log`.
    """

    at: tuple[int, ...] = ()
    event: str = ""
    log: str = ""
    times: int = 1_000
    seconds: float = 0.002

    def __call__(self, position):
        attempt = self.count_attempt(position) if self.log else 1
        if position in self.at and attempt <= self.times:
            self.trigger_event()
        time.sleep(self.seconds * (position % 3))
        return position, {
            "square": np.array([position**2]),
            "threads": np.array(torch.get_num_threads()),
        }

    def count_attempt(self, position):
        number = len(list(pathlib.Path(self.log).glob(f"{position}-*"))) + 1
        pathlib.Path(self.log, f"{position}-{number}").touch()
        return number

    def trigger_event(self):
        if self.event == "raise":
            raise KeyError("no such chain")
        if self.event == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.event == "exit":
            os._exit(3)
        time.sleep(0.5 if self.event == "slow" else 60)

    def describe(self, position):
        return f"sample {position}"


def config(**changes):
    return LoaderConfig(**{"num_workers": 2, "timeout_seconds": 20.0, "max_attempts": 1} | changes)


def stream(task=SquareTask(), *, end=None, report=None, **changes):
    return WorkerStream(
        task, config=config(**changes), end=end, report=report or (lambda line: None)
    )


def children():
    return multiprocessing.active_children()


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_results_are_delivered_in_order(num_workers):
    with WorkerStream(
        SquareTask(),
        config=config(num_workers=num_workers),
        start=StreamState(low=5, above=(7,)),
        end=25,
    ) as deliveries:
        results = [
            (delivery.position, delivery.description, int(delivery.arrays["square"][0]))
            for delivery in deliveries
        ]
    assert results == [(position, position, position**2) for position in (5, 6, *range(8, 25))]
    assert not children()


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_other_start_methods(start_method):
    with stream(start_method=start_method, end=6) as deliveries:
        assert [delivery.position for delivery in deliveries] == list(range(6))
    assert not children()


def test_other_batches_overtake_a_slow_batch_within_the_window():
    with stream(
        SquareTask(at=(2,), event="slow", seconds=0.0), window=5, prefetch_per_worker=8, end=40
    ) as deliveries:
        results = list(deliveries)
    order = [delivery.position for delivery in results]
    assert sorted(order) == list(range(40))
    assert order[7] == 2 and sorted(order[:7]) == [0, 1, 3, 4, 5, 6, 7]
    assert results[6].reorder_distance == 5 and results[7].reorder_distance == 0
    assert max(delivery.reorder_distance for delivery in results) <= 5
    assert results[7].preparation_seconds > 0.4


def test_closing_an_endless_stream_leaves_no_process_and_no_thread():
    threads = threading.active_count()
    deliveries = stream()
    assert [next(deliveries).position for _ in range(4)] == [0, 1, 2, 3]
    deliveries.close()
    deliveries.close()
    assert not children() and threading.active_count() == threads
    with pytest.raises(LoaderError, match="closed"):
        next(deliveries)


def test_workers_do_not_exceed_their_capacity(tmp_path):
    with stream(SquareTask(log=str(tmp_path)), prefetch_per_worker=3) as deliveries:
        next(deliveries)
        time.sleep(1.0)
        assert len(list(tmp_path.iterdir())) == 2 * 3 + 1
        assert next(deliveries).queue_depth == 5


def test_workers_use_one_thread():
    with stream(num_workers=1, end=1) as deliveries:
        assert next(deliveries).arrays["threads"] == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_error_names_the_sample_and_the_cause(num_workers):
    with stream(SquareTask(at=(5,), event="raise"), num_workers=num_workers) as deliveries:
        assert [next(deliveries).position for _ in range(5)] == [0, 1, 2, 3, 4]
        for _ in range(2 if num_workers else 1):
            with pytest.raises(
                LoaderError,
                match=r"preparing sample 5 failed, attempt 1(.|\n)*no such chain(.|\n)*budget is 0",
            ):
                next(deliveries)
    assert not children()


@pytest.mark.parametrize(("event", "code"), [("die", -9), ("exit", 3)])
def test_death_of_a_worker_names_the_sample(event, code):
    with stream(SquareTask(at=(4,), event=event)) as deliveries:
        assert [next(deliveries).position for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(LoaderError, match=f"sample 4 failed.*died with exit code {code} "):
            next(deliveries)
    assert not children()


def test_error_names_the_limit_of_open_files(monkeypatch):
    """The supervisor thread cannot start a worker; the consumer gets the reason."""
    before = threading.active_count()

    def refuse(*args, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Worker, "start", refuse)
    with stream() as deliveries:
        with pytest.raises(
            LoaderError, match=r"Too many open files; this process may open \d+ files .*ulimit -n"
        ):
            next(deliveries)
    assert threading.active_count() == before


def test_receiving_beyond_the_limit_of_open_files_is_an_error():
    """The kernel drops the descriptor of the memory if the process may open no more files."""
    ours, theirs = channel_pair()
    send_arrays(ours, "message", {})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            receive_arrays(theirs)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stall_names_the_sample():
    with stream(SquareTask(at=(1,), event="stall"), timeout_seconds=2.0) as deliveries:
        next(deliveries)
        with pytest.raises(LoaderError, match="sample 1 failed.*no answer within 2.0 s"):
            next(deliveries)
    assert not children()


@pytest.mark.parametrize("event", ["raise", "die", "stall"])
def test_failed_batch_is_retried_and_worker_replaced(tmp_path, event):
    messages = []
    task = SquareTask(at=(1, 4), event=event, log=str(tmp_path), times=1)
    with stream(
        task, max_attempts=2, timeout_seconds=3.0, end=8, report=messages.append
    ) as deliveries:
        assert [delivery.position for delivery in deliveries] == list(range(8))
    assert len(messages) == (0 if event == "raise" else 2)
    assert all("replaced" in message for message in messages)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_error_budget_limits_skipped_batches(tmp_path, num_workers):
    messages = []
    task = SquareTask(at=(2, 6, 9), event="raise", log=str(tmp_path))
    with stream(
        task, num_workers=num_workers, max_attempts=2, error_budget=2, report=messages.append
    ) as deliveries:
        found = [next(deliveries) for _ in range(7)]
        assert [delivery.position for delivery in found] == [0, 1, 3, 4, 5, 7, 8]
        assert sorted(position for delivery in found for position in delivery.skipped) == [2, 6]
        with pytest.raises(
            LoaderError, match=r"sample 9 failed, attempt 2(.|\n)*error budget is 2"
        ):
            next(deliveries)
    assert "sample 2" in messages[0]
    assert "sample 6" in messages[1] and "number 2 of at most 2" in messages[1]
    assert len(list(tmp_path.glob("2-*"))) == 2


@pytest.mark.parametrize("window", [0, 30])
def test_stream_is_complete_if_workers_are_killed_repeatedly(window):
    """Every batch is delivered once, with the correct content."""
    draw = random.Random(1)
    counts, kills = Counter(), 0
    with stream(
        SquareTask(seconds=0.001),
        num_workers=3,
        window=window,
        max_attempts=3,
        prefetch_per_worker=4,
        end=2000,
    ) as deliveries:
        for delivery in deliveries:
            counts[delivery.position] += 1
            assert delivery.arrays["square"][0] == delivery.position**2
            if sum(counts.values()) % 250 == 100:
                os.kill(draw.choice(children()).pid, signal.SIGKILL)
                kills += 1
    assert kills == 8
    assert counts == dict.fromkeys(range(2000), 1)
    assert not children()


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("moment", ["idle", "preparing"])
def test_killed_consumer_leaves_no_workers_and_no_memory(tmp_path, start_method, moment):
    """This includes workers that prepare a batch that never becomes ready."""
    (tmp_path / "killed_consumer.py").write_text(
        textwrap.dedent(
            """
            import os, signal, sys, time
            import numpy as np
            from openfold_opt.loader.config import LoaderConfig
            from openfold_opt.loader.workers import WorkerStream
            class Task:
                def __call__(self, position):
                    os.write(1, f"{os.getpid()}\\n".encode())
                    if sys.argv[2] == "preparing" and position:
                        time.sleep(600)
                    return position, {"x": np.zeros(1 << 20)}
                def describe(self, position): return str(position)
            if __name__ == "__main__":
                config = LoaderConfig(num_workers=3, start_method=sys.argv[1])
                stream = WorkerStream(Task(), config=config)
                next(stream)
                time.sleep(1.5)
                os.kill(os.getpid(), signal.SIGKILL)
            """
        )
    )
    before = set(os.listdir("/dev/shm"))
    root = pathlib.Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, str(tmp_path / "killed_consumer.py"), start_method, moment],
        env=dict(os.environ, PYTHONPATH=str(root)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == -signal.SIGKILL
    pids = {int(pid) for pid in result.stdout.split()}
    assert len(pids) == 3
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(is_running(pid) for pid in pids):
        time.sleep(0.1)
    assert not [pid for pid in pids if is_running(pid)]
    assert not [
        name for name in set(os.listdir("/dev/shm")) - before if "torch" in name or "psm" in name
    ]


@pytest.mark.parametrize("start_method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("moment", ["starting", "running"])
def test_a_signal_to_the_process_group_leaves_the_workers_alone(tmp_path, start_method, moment):
    """As a launcher sends it. The consumer decides what it means; here it means nothing."""
    (tmp_path / "signaled_consumer.py").write_text(
        textwrap.dedent(
            """
            import os, signal, sys, time
            import numpy as np
            from openfold_opt.loader.config import LoaderConfig
            from openfold_opt.loader.workers import WorkerStream
            class Task:
                def __call__(self, position): return position, {"x": np.zeros(1)}
                def describe(self, position): return str(position)
            if __name__ == "__main__":
                for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
                    signal.signal(number, lambda *_: None)
                config = LoaderConfig(num_workers=2, start_method=sys.argv[1])
                with WorkerStream(Task(), config=config, report=print) as stream:
                    if sys.argv[2] == "running":
                        next(stream)
                    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
                        time.sleep(0.2)
                        os.killpg(0, number)
                    print([next(stream).skipped for _ in range(50)] == [()] * 50)
            """
        )
    )
    root = pathlib.Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, str(tmp_path / "signaled_consumer.py"), start_method, moment],
        env=dict(os.environ, PYTHONPATH=str(root)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
        start_new_session=True,
    )
    assert (result.returncode, result.stdout) == (0, "True\n")


def is_running(pid):
    try:
        return "Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
