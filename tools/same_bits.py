#!/usr/bin/env python3
"""Check that two versions of the project compute the same bits.

    tools/same_bits.py BEFORE AFTER

BEFORE and AFTER are git revisions or directories with a checkout. Each version runs the cases of
CASES through its own commands. Losses, gradient norms and scores are compared as exact numbers. The
weights, the running average and Adam's moments after the last step are compared bit by bit, and so
are the errors that `benchmark parity` finds in outputs, losses, gradients and updates. Names may
differ between the versions; the order and the values may not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMING_WORDS = ("seconds", "queue_depth", "reorder_distance")
"""Parts of the names of numbers that describe the timing of a run, not its result."""

Values = dict[str, list[str]]
"""Kind of result -> all values in the order of their file."""


class CaseFailedError(Exception):
    """A command of a version failed."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A checkout and the interpreter that runs it."""

    name: str
    checkout: Path
    python: str
    shared: Path
    data: Path
    """Folder with the shards `demo` and `real`, which both versions use."""

    def run(self, *arguments: str, num_ranks: int = 1, accepted: tuple[int, ...] = (0,)) -> None:
        """Run a module of the checkout. Raises CaseFailedError with the end of its output."""
        launcher = [self.python, "-m"]
        if num_ranks > 1:
            torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
            launcher += [*torchrun, "-m"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.checkout)}
        result = subprocess.run(
            [*launcher, *arguments],
            cwd=self.checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode not in accepted:
            end = "\n".join(result.stdout.splitlines()[-20:])
            raise CaseFailedError(
                f"{self.name}: {' '.join(arguments)} ended with exit code "
                f"{result.returncode}, expected {accepted}:\n{end}"
            )


def train(
    version: Version, folder: Path, *, preset: str, data: str, steps: int, dap: int = 1
) -> Values:
    """Train `steps` steps, evaluate once, and return all numbers of the run."""
    run_dir, weights = folder / "run", folder / "weights.pt"
    settings = [f"max_steps={steps}", f"evaluation.every_steps={steps}", "device=cpu"]
    if dap > 1:
        settings.append(f"parallel.dap_size={dap}")
    command = ["benchmark", "run", "--preset", preset, "--data-dir", str(version.data / data)]
    command += ["--output-dir", str(run_dir), "--seed", "1"]
    for setting in settings:
        command += ["--set", setting]
    # The exit code is 1 because these few steps do not reach the target.
    version.run(*command, num_ranks=dap, accepted=(0, 1))
    version.run("benchmark", "export", str(run_dir), str(weights))
    values = {
        "steps": numbers_of_lines(run_dir / "steps.jsonl"),
        "evaluations": numbers_of_lines(run_dir / "evaluations.jsonl"),
        "weights and moments": tensor_digests(weights),
    }
    empty = [name for name, numbers in values.items() if not numbers]
    if empty:
        raise CaseFailedError(f"{version.name}: the run wrote no {', '.join(empty)} in {run_dir}")
    return values


def golden(version: Version, folder: Path, *, name: str) -> Values:
    """Compare with a golden directory, and return the exact errors."""
    record = folder / "parity.json"
    directory = str(version.shared / "golden" / name)
    version.run("benchmark", "parity", directory, "--json", str(record))
    return {"errors": _numbers(json.loads(record.read_text(encoding="utf-8")))}


CASES: dict[str, Callable[[Version, Path], Values]] = {
    "demo": lambda v, f: train(v, f, preset="demo", data="demo", steps=30),
    "real_smoke": lambda v, f: train(v, f, preset="real_smoke", data="real", steps=30),
    "dap2": lambda v, f: train(v, f, preset="demo_dap2", data="demo", steps=10, dap=2),
    "dap4": lambda v, f: train(v, f, preset="demo_dap2", data="demo", steps=10, dap=4),
    "model_tiny": lambda v, f: golden(v, f, name="model_tiny"),
    "model_quirks": lambda v, f: golden(v, f, name="model_quirks"),
    "model_full": lambda v, f: golden(v, f, name="model_full"),
}


def numbers_of_lines(path: Path) -> list[str]:
    """Return all numbers of a file of JSON lines, except those of TIMING_WORDS."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [number for line in lines for number in _numbers(json.loads(line))]


def _numbers(value: Any) -> list[str]:
    if isinstance(value, dict):
        kept = [x for key, x in value.items() if not any(word in key for word in TIMING_WORDS)]
        return [number for x in kept for number in _numbers(x)]
    if isinstance(value, list):
        return [number for x in value for number in _numbers(x)]
    # repr of a float is exact.
    return [repr(value)] if isinstance(value, int | float) else []


def tensor_digests(path: Path) -> list[str]:
    """Return a hash of each tensor in a file of torch.save, in the order of the file."""
    import torch

    def digests(value: Any) -> Iterator[str]:
        if isinstance(value, torch.Tensor):
            data = value.detach().contiguous().view(-1).view(torch.uint8).numpy()
            yield f"{tuple(value.shape)} {hashlib.sha256(data).hexdigest()[:16]}"
        elif isinstance(value, dict):
            for x in value.values():
                yield from digests(x)
        elif isinstance(value, list | tuple):
            for x in value:
                yield from digests(x)

    return list(digests(torch.load(path, map_location="cpu", weights_only=True)))


def differences(before: Values, after: Values) -> list[str]:
    """Return a line for each kind of result that differs."""
    lines = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name, []), after.get(name, [])
        if len(old) != len(new):
            lines.append(f"{name}: {len(old)} values before, {len(new)} after")
        elif old != new:
            positions = [i for i, pair in enumerate(zip(old, new)) if pair[0] != pair[1]]
            first = positions[0]
            lines.append(
                f"{name}: {len(positions)} of {len(old)} values differ; the first, number {first}: "
                f"{old[first]} before, {new[first]} after"
            )
    return lines


@contextlib.contextmanager
def checkout_of(revision: str, work: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the checkout of a revision and its commit; a directory is used directly."""
    if Path(revision).is_dir():
        yield Path(revision).resolve(), None
        return
    commit = _git("rev-parse", "--verify", f"{revision}^{{commit}}")
    path = work / f"checkout-{commit[:12]}"
    _git("worktree", "add", "--quiet", "--force", "--detach", str(path), commit)
    try:
        yield path, commit
    finally:
        _git("worktree", "remove", "--force", str(path))


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        raise CaseFailedError(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()


def make_data(version: Version) -> None:
    """Convert the embedded data and the real files of the shared folder, unless they exist."""
    raw = version.data / "raw"
    real = version.shared / "data" / "real"
    if not (version.data / "demo" / "index.h5").exists():
        version.run("data_prep", "synthesize", "--out", str(raw))
        _convert(version, raw, "demo")
    if not (version.data / "real" / "index.h5").exists():
        _convert(version, real, "real")


def _convert(version: Version, raw: Path, name: str) -> None:
    command = ["data_prep", "convert", "--pdb-mmcif", str(raw / "pdb_mmcif")]
    command += ["--open-protein-set", str(raw / "open_protein_set")]
    version.run(*command, "--out", str(version.data / name), accepted=(0, 3))


def results_of(
    version: Version, cases: list[str], *, commit: str | None, cache: Path
) -> dict[str, Values]:
    """Return the results of all cases. Those of a commit are cached, as they cannot change."""
    results = {}
    for case in cases:
        kept = cache / f"{commit}-{case}.json" if commit else None
        if kept is not None and kept.exists():
            results[case] = json.loads(kept.read_text(encoding="utf-8"))
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="same-bits-") as folder:
            results[case] = CASES[case](version, Path(folder))
        print(f"{version.name}: {case} in {time.monotonic() - start:.0f} s", flush=True)
        if kept is not None:
            kept.write_text(json.dumps(results[case]), encoding="utf-8")
    return results


def main() -> int:
    """Run both versions; exit code 0 if all bits are the same, 1 if not, 2 if a command failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", metavar="BEFORE", help="git revision or directory")
    parser.add_argument("after", metavar="AFTER", help="git revision or directory")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=CASES,
        metavar="CASE",
        help=f"cases to run, of {', '.join(CASES)}",
    )
    parser.add_argument(
        "--shared",
        type=Path,
        default=os.environ.get("OPENFOLD_SHARED"),
        help="folder with golden results and real files (default: OPENFOLD_SHARED)",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "data" / "same_bits",
        help="folder for shards and results of commits (default: data/same_bits)",
    )
    args = parser.parse_args()
    if args.shared is None:
        parser.error(
            "--shared, or the variable OPENFOLD_SHARED, must name the folder with golden results"
        )
    args.cache.mkdir(parents=True, exist_ok=True)
    cases = args.only or list(CASES)
    results = []
    try:
        with tempfile.TemporaryDirectory(prefix="same-bits-") as work:
            for name, revision in (("before", args.before), ("after", args.after)):
                with checkout_of(revision, Path(work)) as (checkout, commit):
                    version = Version(
                        name=name,
                        checkout=checkout,
                        python=sys.executable,
                        shared=args.shared.resolve(),
                        data=args.cache.resolve() / "shards",
                    )
                    make_data(version)
                    results.append(results_of(version, cases, commit=commit, cache=args.cache))
    except CaseFailedError as error:
        print(f"same_bits: {error}", file=sys.stderr)
        return 2
    before, after = results
    has_differences = False
    for case in cases:
        lines = differences(before[case], after[case])
        num_values = sum(len(values) for values in before[case].values())
        print(f"{case}: " + ("DIFFERENT" if lines else f"same ({num_values:,} values)"))
        for line in lines:
            print(f"  {line}")
        has_differences |= bool(lines)
    return 1 if has_differences else 0


if __name__ == "__main__":
    sys.exit(main())
