"""Versions of libraries, the machine, and the commit of the code, for the record of a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from benchmark.code_revision import describe_commit

DISTRIBUTIONS = (
    "torch",
    "numpy",
    "h5py",
    "numba",
    "gemmi",
    "kalign-python",
    "mlperf-logging",
    "triton",
    "matplotlib",
)
"""Python packages whose versions are recorded."""
CHECKOUT = Path(__file__).resolve().parent.parent
"""Folder of the code: a git checkout, or the copy in an image."""


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and the libraries, and the commit of the code."""
    versions = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions["cuda"] = torch.version.cuda or "none"
    versions["commit"] = describe_commit(CHECKOUT)
    return versions


def describe_machine() -> dict[str, str | int]:
    """Return host, system, processor, memory and accelerators of this node.

    cpu_count is the number of CPUs that this process may use.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": _processor_name(),
        "cpu_count": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "accelerator_count": num_gpus,
        "accelerator": torch.cuda.get_device_name(0) if num_gpus else "none",
    }


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
