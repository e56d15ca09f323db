"""Short runs on the CPUs of this machine, and what they measure."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.machine import CHECKOUT
from benchmark.plan.explain import QUIET_SHARE
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.sample import make_training_sample
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.reader import ShardReader
from openfold_opt.train.config import RunConfig

NUM_RANKS = 2
_FIRST_STEPS = 5
"""Steps of a phase that are not counted: memory is allocated, and the loader starts."""
_PREPARED_BATCHES = 10
_PRESET = '''"""{base} with a few steps in each phase, without evaluations in between."""

import dataclasses

from benchmark.presets import {base}


def build():
    config = {base}.build()
    phases = tuple(dataclasses.replace(phase, steps={steps}) for phase in config.phases)
    evaluation = dataclasses.replace(config.evaluation, every_steps={total})
    return dataclasses.replace(
        config, phases=phases, max_steps={total}, evaluation=evaluation, log_every_steps={total}
    )
'''


@dataclass(frozen=True, kw_only=True)
class PhaseSeconds:
    """Measured steps of a phase in one run."""

    quiet: float
    """Seconds of the step at the end of the quietest tenth."""
    median: float
    data_wait: float
    """Median."""


def run_ranks(arguments: Sequence[str], *, what: str) -> None:
    """Run a command of `benchmark` on NUM_RANKS processes with one thread each.

    They stay in the session of this process, and thereby at its priority.

    Raises:
        BenchmarkError: A process failed; with the end of its output.
    """
    common = [f"{name}={NUM_RANKS}" for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")]
    common += ["MASTER_ADDR=127.0.0.1", f"MASTER_PORT={_free_port()}", "OMP_NUM_THREADS=1"]
    with tempfile.TemporaryDirectory(prefix="plan-local-") as folder:
        outputs = [Path(folder, f"rank_{rank}.txt") for rank in range(NUM_RANKS)]
        processes = []
        for rank, output in enumerate(outputs):
            variables = [*common, f"RANK={rank}", f"LOCAL_RANK={rank}"]
            command = [sys.executable, "-m", "benchmark", *arguments]
            with output.open("wb") as file:
                process = subprocess.Popen(
                    ["env", *variables, *command],
                    cwd=CHECKOUT,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            processes.append(process)
        try:
            codes = [process.wait() for process in processes]
        finally:
            # After Ctrl-C, some may still run.
            for process in processes:
                process.kill()
        texts = [output.read_text(encoding="utf-8", errors="replace") for output in outputs]
    for code, text in zip(codes, texts, strict=True):
        # A run that uses up its steps below the target ends with 1.
        if code not in (0, 1):
            raise BenchmarkError(f"{what} ended with {code}:\n{text[-2000:]}")


def _free_port() -> int:
    """Return a port that is free, as is the one after it, which a run uses too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def measure_run(
    base: str, phases: Sequence[str], *, steps: int, data_dir: Path, folder: Path
) -> dict[str, PhaseSeconds]:
    """Train each phase of a preset for a few steps, and return their times.

    Args:
        base: name of the preset.
        phases: names of its phases, in order.
        steps: of each phase.
        data_dir: shards.
        folder: for the preset and the output; must not exist.

    Raises:
        BenchmarkError: The run failed, or has too few steps.
    """
    folder.mkdir(parents=True)
    preset, output = folder / f"short_{base}.py", folder / "run"
    preset.write_text(
        _PRESET.format(base=base, steps=steps, total=steps * len(phases)), encoding="utf-8"
    )
    options = ["--preset", str(preset), "--data-dir", str(data_dir), "--output-dir", str(output)]
    run_ranks(["run", *options, "--seed", "1"], what=f"a short run of {base}")
    lines = (output / "steps.jsonl").read_text(encoding="utf-8").splitlines()
    return phase_seconds([json.loads(line) for line in lines], phases, steps=steps)


def phase_seconds(
    rows: Sequence[Mapping[str, float]], phases: Sequence[str], *, steps: int
) -> dict[str, PhaseSeconds]:
    """Return the times of each phase from the lines of steps.jsonl."""
    found = {}
    for index, name in enumerate(phases):
        first = index * steps + _FIRST_STEPS
        chosen = [row for row in rows if first < row["step"] <= (index + 1) * steps]
        if len(chosen) < steps // 2:
            raise BenchmarkError(f"phase {name} has {len(chosen)} steps; expected about {steps}")
        seconds = sorted(row["step_time_seconds"] for row in chosen)
        found[name] = PhaseSeconds(
            quiet=seconds[int(QUIET_SHARE * len(seconds))],
            median=statistics.median(seconds),
            data_wait=statistics.median(row["data_wait_seconds"] for row in chosen),
        )
    return found


def sample_seconds(config: RunConfig, data_dir: Path) -> float:
    """Return the seconds of a core to prepare and decode a micro-batch of a configuration.

    Ranks of a DAP group share one preparation, and decode it each.
    """
    reader, chains = ShardReader(data_dir), list(ShardIndex.load(data_dir).by_id)
    size, times = config.local_batch_size, []
    for number in range(_PREPARED_BATCHES):
        batch = [chains[(number * size + index) % len(chains)] for index in range(size)]
        started = time.process_time()
        samples = stack_samples(
            [
                make_training_sample(reader, chain, seed=number, config=config.data)
                for chain in batch
            ]
        )
        middle = time.process_time()
        decode_batch(samples)
        decoded = time.process_time()
        times.append((middle - started) / config.parallel.dap_size + decoded - middle)
    return statistics.median(times)
