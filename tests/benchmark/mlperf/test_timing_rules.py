"""Compare the table of docs/timing_rules.md, what is inside the clock, with a run on shards.

Observers receive an event after its line is in the log, in the thread that then continues. File
events of the kernel that have arrived by then therefore occurred before the event.
"""

import dataclasses
import itertools
import pathlib
import re

import pytest

from benchmark.__main__ import main
from benchmark.mlperf.check import check_log
from benchmark.mlperf.run_log import RunLog
from benchmark.run import command as run_command
from benchmark.run import request as run_request
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.train.dataset_split import DataSelectionConfig
from openfold_opt.train.observer import NullObserver
from tests.support.file_watch import FileWatch
from tests.support.synthetic_samples import tiny_config
from tests.support.synthetic_shards import write_synthetic_shards

DOCUMENT = pathlib.Path(__file__).resolve().parents[3] / "docs" / "timing_rules.md"
CLOCK = ("before", "starts", "inside", "stops", "after")
LONG_BEFORE = {"set-up"}
"""Actions of other processes, which end before the run starts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table."""

    keys: tuple[str, ...]
    """Keys of the log; empty for another action."""
    is_range: bool
    """Whether the row includes the lines between the two keys."""
    text: str
    clock: str


def read_table() -> list[Row]:
    text = DOCUMENT.read_text(encoding="utf-8").partition("## The clock")[2].partition("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")][
        2:
    ]
    return [
        Row(
            keys=tuple(re.findall(r"`(\w+)`", first)),
            is_range="` to `" in first,
            text=first.strip(),
            clock=clock.strip(),
        )
        for first, clock, *_ in lines
    ]


def tiny_on_shards():
    """Return a preset of two steps, a checkpoint, two steps, and an evaluation at the target."""
    config = tiny_config(
        selection=DataSelectionConfig(
            validation_rule="release_dates",
            validation_min_date="2021-11-20",
            validation_max_date="2021-12-11",
        ),
        loader=LoaderConfig(num_workers=1),
    )
    return dataclasses.replace(
        config, evaluation=dataclasses.replace(config.evaluation, target_lddt_ca=1e-6)
    )


class Timeline(NullObserver):
    """The events of a run and the file events of the kernel, as a list of (source, event)."""

    def __init__(self, watch: FileWatch) -> None:
        self.events: list[tuple[str, str]] = []
        self._watch = watch

    def hear(self, what: str) -> None:
        self.events += [(event.name, event.action) for event in self._watch.drain()]
        self.events.append(("run", what))

    def init_start(self, config, *, seed):
        self.hear("init_start")

    def preparing(self, what):
        self.hear(what.partition(":")[0])

    def init_stop(self, info):
        self.hear("init_stop")

    def run_start(self, info):
        self.hear("run_start")

    def data_ready(self, *, train_samples, eval_samples, held_out=()):
        self.hear("data_ready")

    def checkpoint_saved(self, path, *, step):
        self.events.append(("run", f"checkpoint {step}"))

    def run_stop(self, *, status, samples):
        self.hear("run_stop")

    def run_end(self, summary):
        self.hear("run_end")

    def between(self, first: str, last: str) -> list[tuple[str, str]]:
        """Return the events between two events of the run; "" is the beginning."""
        start = self.events.index(("run", first)) + 1 if first else 0
        return self.events[start : self.events.index(("run", last))]

    def phase(self, *wanted: tuple[str, str]) -> str:
        """Return the words of CLOCK for the times of some events, joined by commas."""
        phases = {
            "before": self.between("", "run_start"),
            "inside": self.between("run_start", "run_stop"),
            "after": self.between("run_stop", "run_end"),
        }
        return ", ".join(name for name, events in phases.items() if set(wanted) & set(events))


@pytest.fixture(scope="module")
def timed_run(tmp_path_factory):
    """Return (timeline of a run, events of its log, names of its shards)."""
    folder = tmp_path_factory.mktemp("timed")
    raw, shards, output = folder / "raw", folder / "shards", folder / "out"
    write_synthetic_shards(raw, shards)
    output.mkdir()
    try:
        watch = FileWatch(shards, output)
    except OSError as error:
        pytest.skip(f"files cannot be watched: {error}")
    timeline = Timeline(watch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_request, "build_preset", lambda name: tiny_on_shards())
        patch.setattr(run_command, "ConsoleObserver", lambda **keywords: timeline)
        arguments = [
            "run",
            "--preset",
            "tiny",
            "--data-dir",
            str(shards),
            "--output-dir",
            str(output),
            "--seed",
            "3",
        ]
        assert main(arguments) == 0
    watch.close()
    log = output / "mlperf.log"
    assert check_log(log, below_target=True).passed
    return timeline, RunLog.read(log).events, sorted(path.name for path in shards.glob("*-*.h5"))


def test_lines_of_the_log_are_on_the_side_of_the_clock_of_the_table(timed_run):
    _, events, _ = timed_run
    keys = [event.key for event in events]
    start, stop = keys.index("run_start"), keys.index("run_stop")
    sides = (
        ["before"] * start
        + ["starts"]
        + ["inside"] * (stop - start - 1)
        + ["stops"]
        + ["after"] * (len(keys) - stop - 1)
    )
    found = {(key, side) for key, side in zip(keys, sides, strict=True)}
    rows = [row for row in read_table() if row.keys]
    promised = {(key, row.clock) for row in rows for key in row.keys}
    first, last = next(row.keys for row in rows if row.is_range)
    fixed_before = {(key, "before") for key in keys[keys.index(first) : keys.index(last)]}
    assert found == promised | fixed_before
    assert [event.time_ms for event in events] == sorted(event.time_ms for event in events)


def test_lines_of_the_log_come_in_the_order_of_the_table(timed_run):
    _, events, _ = timed_run
    rows = [row for row in read_table() if row.keys]
    first, last = next(row.keys for row in rows if row.is_range)
    promised = [key for row in rows for key in row.keys]
    keys = [event.key for event in events]
    within = range(keys.index(first) + 1, keys.index(last))
    found = [
        key
        for key, _ in itertools.groupby(
            key for index, key in enumerate(keys) if index not in within
        )
    ]
    assert found == promised


def test_rows_are_in_the_order_of_the_clock():
    rows = read_table()
    assert len(rows) > 15
    assert [row.clock for row in rows] == sorted((row.clock for row in rows), key=CLOCK.index)


def test_actions_are_on_the_side_of_the_clock_of_the_table(timed_run):
    timeline, _, shards = timed_run
    measured = {
        "pages dropped": "before"
        if (shards[0], "opened") in timeline.between("", "init_start")
        else "not seen",
        "warm-up": timeline.phase(("run", "warm-up")),
        "chains selected": "inside"
        if ("index.h5", "read") in timeline.between("run_start", "data_ready")
        else "not seen",
        "shards read": timeline.phase(*((name, "read") for name in shards)),
        "checkpoint on the way": timeline.phase(("run", "checkpoint 2")),
        "last checkpoint": timeline.phase(("run", "checkpoint 4")),
        "summary": timeline.phase(
            ("summary.txt", "renamed to"), ("evaluation_curve.png", "created")
        ),
    }
    promised = {row.text: row.clock for row in read_table() if not row.keys}
    assert measured | dict.fromkeys(LONG_BEFORE, "before") == promised


def test_shards_are_only_opened_before_the_clock_to_drop_their_pages(timed_run):
    timeline, _, shards = timed_run
    early = [
        (name, action) for name, action in timeline.between("", "init_start") if name in shards
    ]
    assert sorted(set(early)) == [(name, "opened") for name in shards]
    late = timeline.between("init_start", "run_start")
    assert [event for event in late if event[0] in shards] == []
    assert ("run", "warm-up") in late
    assert {(name, "opened") for name in shards} <= set(timeline.between("run_start", "run_stop"))


def test_no_sample_is_read_before_the_chains_are_counted(timed_run):
    timeline, _, shards = timed_run
    assert [
        event for event in timeline.between("run_start", "data_ready") if event[0] in shards
    ] == []
