"""Collect the keys of a system description from a node; unknown keys stay empty."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmark.machine import describe_machine, describe_versions
from benchmark.submission.description import MEANINGS

GPU_QUERY = (
    "name",
    "memory.total",
    "driver_version",
    "clocks.max.sm",
    "pcie.link.gen.max",
    "pcie.link.width.max",
)
"""Fields to query from nvidia-smi; memory in MiB, clocks in MHz."""
CACHES = ("L1d cache", "L1i cache", "L2 cache", "L3 cache")


def collect_description() -> dict[str, object]:
    """Return every key of a system description, from this node and this Python environment."""
    content: dict[str, object] = dict.fromkeys(MEANINGS, "")
    machine = describe_machine()
    content |= processor_keys(_output_of("env", "LC_ALL=C", "lscpu", "-J"))
    content["host_processor_model_name"] = content["host_processor_model_name"] or str(
        machine["processor"]
    )
    content["host_memory_capacity"] = f"{round(int(machine['memory_bytes']) / 2**30)} GiB"
    gpus = _output_of(
        "nvidia-smi", f"--query-gpu={','.join(GPU_QUERY)}", "--format=csv,noheader,nounits"
    )
    content |= accelerator_keys(gpus)
    content["framework"] = f"PyTorch {torch.__version__}"
    content["operating_system"] = _operating_system()
    content["other_software_stack"] = _software(gpus)
    return content


def processor_keys(lscpu_json: str) -> dict[str, str]:
    """Return the processor keys from the output of `lscpu -J`, flat or nested; empty if unknown."""
    fields = _fields(json.loads(lscpu_json)["lscpu"]) if lscpu_json else {}
    frequency = fields.get("CPU max MHz", "").partition(".")[0]
    return {
        "host_processors_per_node": fields.get("Socket(s)", ""),
        "host_processor_model_name": fields.get("Model name", ""),
        "host_processor_core_count": fields.get("Core(s) per socket", ""),
        "host_processor_frequency": f"{frequency} MHz" if frequency else "",
        "host_processor_caches": ", ".join(
            f"{name.removesuffix(' cache')} {fields[name]}" for name in CACHES if fields.get(name)
        ),
    }


def _fields(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return field -> data; newer versions of lscpu nest the fields."""
    fields: dict[str, str] = {}
    for entry in entries:
        fields |= {entry["field"].rstrip(":"): entry.get("data") or ""}
        fields |= _fields(entry.get("children", []))
    return fields


def accelerator_keys(nvidia_smi_csv: str) -> dict[str, str]:
    """Return the accelerator keys from a CSV line of GPU_QUERY for each GPU."""
    rows = _gpu_rows(nvidia_smi_csv)
    if not rows:
        return {"accelerators_per_node": "0"}
    first = rows[0]
    generation, width = first["pcie.link.gen.max"], first["pcie.link.width.max"]
    return {
        "accelerators_per_node": str(len(rows)),
        # List all models of a node with different GPUs.
        "accelerator_model_name": " + ".join(dict.fromkeys(row["name"] for row in rows)),
        "accelerator_memory_capacity": f"{round(int(first['memory.total']) / 1024)} GiB"
        if first["memory.total"].isdigit()
        else "",
        "accelerator_frequency": f"{first['clocks.max.sm']} MHz"
        if first["clocks.max.sm"].isdigit()
        else "",
        "accelerator_host_interconnect": f"PCIe {generation} x{width}"
        if generation.isdigit() and width.isdigit()
        else "",
    }


def _gpu_rows(text: str) -> list[dict[str, str]]:
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [dict(zip(GPU_QUERY, row, strict=True)) for row in rows if len(row) == len(GPU_QUERY)]


def _software(nvidia_smi_csv: str) -> dict[str, str]:
    """Return the versions of Python, libraries, CUDA as used by PyTorch, driver and kernel."""
    rows = _gpu_rows(nvidia_smi_csv)
    versions = {
        f"{name}_version": version
        for name, version in describe_versions().items()
        if version != "not installed"
    }
    versions.pop("commit_version")
    versions["cudnn_version"] = str(torch.backends.cudnn.version() or "none")
    if torch.cuda.is_available():
        versions["nccl_version"] = ".".join(map(str, torch.cuda.nccl.version()))
    if rows:
        versions["nvidia_kernel_driver"] = rows[0]["driver_version"]
    return versions | {"kernel_version": f"{platform.system()} {platform.release()}"}


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return platform.system()


def _output_of(*command: str) -> str:
    """Return the output of a program, or an empty string if it is missing or fails."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout if process.returncode == 0 else ""
