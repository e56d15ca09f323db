"""What a node tells of itself, as keys of a system description; what it does not tell stays empty."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
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
"""Of nvidia-smi; memory in MiB, clocks in MHz."""
CACHES = ("L1d cache", "L1i cache", "L2 cache", "L3 cache")


def collect_description() -> dict[str, Any]:
    """Every key of a system description, from this node, its programs and this Python."""
    content: dict[str, Any] = dict.fromkeys(MEANINGS, "")
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
    """Processor keys from the output of `lscpu -J`, flat or nested; empty texts where it says nothing."""
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


def _fields(entries: list[dict[str, Any]]) -> dict[str, str]:
    """field -> data; newer versions of lscpu nest them."""
    found: dict[str, str] = {}
    for entry in entries:
        found |= {entry["field"].rstrip(":"): entry.get("data") or ""}
        found |= _fields(entry.get("children", []))
    return found


def accelerator_keys(nvidia_smi_csv: str) -> dict[str, str]:
    """Accelerator keys from a line of GPU_QUERY for each GPU; "0" per node where there is none."""
    rows = _gpu_rows(nvidia_smi_csv)
    if not rows:
        return {"accelerators_per_node": "0"}
    first = rows[0]
    generation, width = first["pcie.link.gen.max"], first["pcie.link.width.max"]
    return {
        "accelerators_per_node": str(len(rows)),
        # a node with different ones is told as it is
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
    """Versions of Python, CUDA and its libraries as PyTorch uses them, of our libraries, and of kernel and driver."""
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
    """What a program prints; nothing if it is not there or fails."""
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout if shown.returncode == 0 else ""
