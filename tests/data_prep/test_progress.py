"""The progress display."""

from __future__ import annotations

import io
import sys

from data_prep import progress as progress_module
from data_prep.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch):
    clock = {"now": 100.0}
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock["now"])

    def work(stream: io.StringIO) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(1200, what="structures", unit="unit") as progress:
            for _ in range(4):
                clock["now"] += 10.0
                progress.update(200)
        return stream.getvalue()

    assert work(io.StringIO()).splitlines() == [
        "structures: 400 of 1,200 units (33%) after 20.0 s, about 40.0 s left",
        "structures: 800 of 1,200 units (67%) after 40.0 s, about 20.0 s left",
    ]
    assert "\r" in work(Terminal()) and "structures" in work(Terminal())


def test_progress_of_an_unknown_total_and_of_bytes(monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(None, what="download", unit="B") as progress:
        clock["now"] = 600.0
        progress.update(3 << 20)
    assert sys.stderr.getvalue() == "download: 3.0 MiB after 10 min\n"


def test_tracked_items_are_counted_and_shown_as_lines_in_a_log(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "_SECONDS_BETWEEN_LINES", 0.0)
    assert list(progress_module.tracked("ab", what="tune", unit="kernel")) == ["a", "b"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" after")[0] for line in lines] == [
        "tune: 1 of 2 kernels (50%)",
        "tune: 2 of 2 kernels (100%)",
    ]
    assert list(progress_module.tracked(iter("ab"), what="tune", unit="kernel")) == ["a", "b"]
    assert capsys.readouterr().err.startswith("tune: 1 kernels after")
