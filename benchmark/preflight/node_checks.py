"""Checks that run on every node."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.finding import FAIL, PASS, Finding
from benchmark.machine import describe_versions
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train.config import RunConfig

MIN_FREE_SHARE = 0.95
"""Required free share of the memory of a GPU before a run."""


@dataclass(frozen=True, kw_only=True)
class Accelerators:
    """GPUs of a node."""

    names: tuple[str, ...] = ()
    memory_bytes: tuple[int, ...] = ()
    free_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ExpectedAccelerators:
    """Requirements on the GPUs of a node, from the options of `preflight`."""

    count: int
    name: str = ""
    """Part of each GPU's name."""
    memory_gib: float = 0.0


def find_accelerators() -> Accelerators:
    """Return the GPUs that are visible to this process."""
    if not torch.cuda.is_available():
        return Accelerators()
    numbers = range(torch.cuda.device_count())
    free = tuple(torch.cuda.mem_get_info(number)[0] for number in numbers)
    properties = [torch.cuda.get_device_properties(number) for number in numbers]
    return Accelerators(
        names=tuple(found.name for found in properties),
        memory_bytes=tuple(found.total_memory for found in properties),
        free_bytes=free,
    )


def check_accelerators(
    found: Accelerators, expected: ExpectedAccelerators, *, device: str
) -> Finding:
    """Check number, names and memory of the GPUs, and that no other process uses them."""
    if expected.count == 0 and device != "cuda":
        return Finding(state=PASS, subject="GPUs", text=f"none expected (device {device!r})")
    expectation = (
        f"expected {expected.count} of {expected.name or 'any'} with at least "
        f"{expected.memory_gib:g} GiB"
    )
    names = (
        ", ".join(f"{found.names.count(name)} {name}" for name in dict.fromkeys(found.names))
        or "none"
    )
    remedy = (
        "check nvidia-smi and dmesg on this node, drain it and use another, or correct the "
        "configuration"
    )

    def failed(what: str) -> Finding:
        return Finding(state=FAIL, subject="GPUs", text=f"found {what}, {expectation}; {remedy}")

    if len(found.names) != expected.count or expected.count == 0:
        return failed(names)
    if any(expected.name not in name for name in found.names):
        return failed(names)
    least = min(found.memory_bytes) / 2**30
    if least < expected.memory_gib:
        return failed(f"{names}, one with {least:.1f} GiB")
    busy = [
        number
        for number, (free, whole) in enumerate(zip(found.free_bytes, found.memory_bytes))
        if free < MIN_FREE_SHARE * whole
    ]
    if busy:
        return failed(f"memory of GPUs {busy} in use by other processes")
    return Finding(state=PASS, subject="GPUs", text=f"{names}, {least:.0f} GiB each, all free")


def check_environment(config: RunConfig) -> Finding:
    """Check the versions of imported libraries. All nodes must have the same text."""
    versions = describe_versions()
    required = ["torch", "numpy", "h5py", "numba", "mlperf-logging"]
    if "triton" in config.kernels.implementations.values():
        required.append("triton")
    missing = [
        name
        for name in required
        if versions[name] == "not installed"
        and importlib.util.find_spec(name.replace("-", "_")) is None
    ]
    if missing:
        text = (
            f"{', '.join(missing)} not installed; set up the environment (./run_tests.sh "
            "--setup-only) or use another image"
        )
        return Finding(state=FAIL, subject="environment", text=text)
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("python", *required, "cuda", "commit")
    )
    return Finding(state=PASS, subject="environment", text=named)


def check_shards(data_dir: Path, *, subject: str = "shards") -> Finding:
    """Check that this node has every shard of its index with the right size.

    The contents are not read. All nodes must have the same text.
    """
    try:
        index = ShardIndex.load(data_dir)
    except ValueError as error:
        return Finding(state=FAIL, subject=subject, text=str(error))
    for shard in index.shards:
        path = data_dir / shard.name
        size = path.stat().st_size if path.is_file() else None
        if size != shard.size_bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            text = (
                f"{path} {found}, expected {shard.size_bytes} bytes; mount the file system, or run "
                "`data_prep convert` again"
            )
            return Finding(state=FAIL, subject=subject, text=text)
    return Finding(
        state=PASS,
        subject=subject,
        text=f"all {len(index.shards)} exist with the right sizes (index {index.checksum[:12]})",
    )


def check_output(output_dir: Path) -> Finding:
    """Check that this node can write to the directory of the runs."""
    try:
        with tempfile.TemporaryFile(dir=output_dir) as file:
            file.write(b"written by preflight")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        text = (
            f"cannot write into {output_dir}: {error.strerror or error}; --output-dir (LOGDIR of a "
            "job) must be on a file system that all nodes share"
        )
        return Finding(state=FAIL, subject="output", text=text)
    return Finding(state=PASS, subject="output", text=f"{output_dir} can be written")
