"""Start run_and_time.sh with a preset of tests.support.tiny_benchmark in place of `demo`."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_and_time(folder: Path, *, preset: str, ranks: int = 1) -> tuple[list[str], dict[str, str]]:
    """Return the command of a run into folder/out, and the environment variables that it needs.

    preset: name of a preset of tests.support.tiny_benchmark.
    ranks: number of processes that the script starts.
    """
    replace = (
        "import os, sys\n"
        "if sys.orig_argv[1:4] == ['-m', 'benchmark', 'run']:\n"
        f"    rest = [word.replace('demo', {preset!r}) for word in sys.orig_argv[4:]]\n"
        "    command = [sys.executable, '-m', 'tests.support.tiny_benchmark', 'run', *rest]\n"
        "    os.execv(sys.executable, command)\n"
    )
    (folder / "sitecustomize.py").write_text(replace)
    command = [str(ROOT / "run_and_time.sh"), "--preset", "demo", "--data-dir", "unused"]
    command += ["--output-dir", str(folder / "out"), "--ranks", str(ranks)]
    return command, {"PYTHONPATH": str(folder)}
