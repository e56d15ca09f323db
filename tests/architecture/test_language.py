"""Plain modern American English: words and phrases that names, text and documents must not use."""

import pathlib
import re
import subprocess
from collections.abc import Callable, Iterable

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUFFIXES = (".py", ".md", ".sh", ".toml", ".cpp", ".h", ".sub")
NOT_OURS = ("docs/lab_log.md", "results/", "tests/architecture/test_language.py")
"""Records of the past, and the list below."""

BRITISH = (
    "(?:optim|normal|initial|general|summar|recogn|serial|synchron|organ|util|special|minim|maxim)"
    "is(?:e|ed|es|er|ing|ation)|neighbour|colour|behaviour|favour|honour|centre|grey|travell"
    "|labell|catalogue|cancell(?:ed|ing)"
)
OLD_WORDS = (
    r"whoever|nobody|whilst|mend(?:s|ed|ing)?|nudg(?:e|ed|es)|yardstick|obituary|confess(?:es)?"
    r"|accuses?|riders?|made[ _]up|tells? of|(?:is|are|was|were|be) told|by pieces|for a CPU"
    r"|passes without gradient|what (?:lies|stands)|is had|so many|but for|in its turn"
    r"|goes on(?! to)|one (?:\w+ )?as the other"
)
FORBIDDEN = re.compile(rf"\b(?:{OLD_WORDS})\b|{BRITISH}", re.IGNORECASE)


def text_files() -> list[pathlib.Path]:
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in listed.stdout.splitlines() if name.endswith(SUFFIXES)]
    return [ROOT / name for name in names if not name.startswith(NOT_OURS)]


def old_words(text: str) -> list[str]:
    """Return `line: words` for each place that uses a forbidden word."""
    lines = enumerate(text.splitlines(), start=1)
    return [f"{n}: {m.group()}" for n, line in lines for m in FORBIDDEN.finditer(line)]


def places(
    find: Callable[[str], list[str]], paths: Iterable[pathlib.Path]
) -> list[tuple[str, list[str]]]:
    """Return the name and the places of each file in which `find` finds any."""
    found = [
        (str(path.relative_to(ROOT)), find(path.read_text(encoding="utf-8"))) for path in paths
    ]
    return [(name, lines) for name, lines in found if lines]


def test_texts_use_no_old_words():
    assert places(old_words, text_files()) == []


BENCHMARK_WORDS = re.compile(r"mlperf|epoch_num|closed_division|-m benchmark", re.IGNORECASE)


def benchmark_words(text: str) -> list[str]:
    """Return `line: word` for each place that names MLPerf or a command of the benchmark."""
    lines = enumerate(text.splitlines(), start=1)
    return [f"{n}: {m.group()}" for n, line in lines for m in BENCHMARK_WORDS.finditer(line)]


def test_openfold_opt_does_not_know_the_benchmark():
    assert places(benchmark_words, sorted((ROOT / "openfold_opt").rglob("*.py"))) == []


def test_places_are_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    for name, text in (("a.md", "fine"), ("b.md", "fine\nthe colour")):
        (tmp_path / name).write_text(text)
    assert places(old_words, sorted(tmp_path.iterdir())) == [("b.md", ["2: colour"])]


def test_benchmark_words_are_found():
    assert benchmark_words("a\npython -m benchmark run, MLPerf") == ["2: -m benchmark", "2: MLPerf"]


def test_old_words_are_found():
    text = "The rank is told\nof the colour.\nThe model is normalized."
    assert old_words(text) == ["1: is told", "2: colour"]
