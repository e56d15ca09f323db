"""The lines of the progress."""

from openfold_opt.predict.progress import ChainProgress


def test_time_left_is_weighted_by_cost():
    now, lines = [0.0], []
    progress = ChainProgress([9.0, 1.0, 5.0], write=lines.append, clock=lambda: now[0])
    progress.finished("a FAILED", has_result=False)
    now[0] = 10.0
    progress.finished("b", has_result=True)
    now[0] = 20.0
    progress.finished("c", has_result=True)
    assert lines == ["[1/3] a FAILED", "[2/3] b; about 50.0 s left", "[3/3] c"]


def test_a_long_chain_reports_its_passes():
    now, lines = [0.0], []
    progress = ChainProgress([1.0], prefix="replica 1: ", write=lines.append, clock=lambda: now[0])
    progress.passed("a", 1, 4)
    now[0] = 31.0
    progress.passed("a", 2, 4)
    progress.passed("a", 3, 4)
    assert lines == ["replica 1: a: 2 of 4 passes"]


def test_warnings_about_features_are_limited():
    lines = []
    progress = ChainProgress([1.0], write=lines.append)
    progress.warned("a", ["first"])
    progress.warned("b", [str(number) for number in range(20)])
    assert lines[0] == "warning: a: first" and len(lines) == 11
    assert lines[-1] == "more warnings are in the records of the chains"
