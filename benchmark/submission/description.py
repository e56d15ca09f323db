"""System descriptions (<system>.json): their keys, and checks of their values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.finding import FAIL, NOTE, Finding

MEANINGS = {
    "submitter": "organization; also the name of the submission's folder",
    "division": "closed or open",
    "status": "onprem, cloud, available, preview or research",
    "system_name": "name of the system in the table of results",
    "number_of_nodes": "nodes that the measurement used",
    "host_processors_per_node": "sockets",
    "host_processor_model_name": "as printed by lscpu",
    "host_processor_core_count": "cores of one processor",
    "host_processor_vcpu_count": "virtual cores of a cloud machine, if its cores are unknown",
    "host_processor_frequency": "highest clock, MHz",
    "host_processor_caches": "L1, L2 and L3",
    "host_processor_interconnect": "between sockets",
    "host_memory_capacity": "memory of a node",
    "host_storage_type": "file system and medium of the data",
    "host_storage_capacity": "capacity of that storage",
    "host_networking": "number and type of network cards of a node",
    "host_networking_topology": "how nodes are connected",
    "host_memory_configuration": "number and type of memory modules",
    "accelerators_per_node": "0 if there are none",
    "accelerator_model_name": "as printed by nvidia-smi",
    "accelerator_host_interconnect": "PCIe generation and width",
    "accelerator_frequency": "highest clock, MHz",
    "accelerator_on-chip_memories": "caches and shared memory",
    "accelerator_memory_configuration": "type of memory, such as HBM3",
    "accelerator_memory_capacity": "memory of one accelerator",
    "accelerator_interconnect": "between accelerators of a node",
    "accelerator_interconnect_topology": "how they are connected",
    "cooling": "air or liquid",
    "hw_notes": "anything else about the hardware",
    "framework": "name and version",
    "other_software_stack": "versions of relevant libraries, a table",
    "operating_system": "name and version",
    "sw_notes": "anything else about the software",
}
"""The keys that mlperf-logging's system_desc_checker expects, and what each contains."""

REQUIRED = (
    "submitter",
    "division",
    "status",
    "system_name",
    "number_of_nodes",
    "host_processors_per_node",
    "host_processor_model_name",
    "host_memory_capacity",
    "host_networking",
    "accelerators_per_node",
    "framework",
    "other_software_stack",
    "operating_system",
)
"""Keys that must not be empty.

MLCommons' rules require them, and all systems of HPC v3.0 have them.
"""

REQUIRED_OF_ACCELERATORS = ("accelerator_model_name", "accelerator_memory_capacity")

RECOMMENDED = (
    "host_storage_type",
    "host_storage_capacity",
    "host_networking_topology",
    "host_memory_configuration",
    "cooling",
)
"""Keys that the rules require, but that are empty in some published results of HPC v3.0."""

RECOMMENDED_OF_ACCELERATORS = (
    "accelerator_host_interconnect",
    "accelerator_memory_configuration",
    "accelerator_interconnect",
)

WHOLE_NUMBERS = ("number_of_nodes", "host_processors_per_node", "accelerators_per_node")
"""Keys whose values must be integers, because mlperf-logging's summarizer multiplies them."""

CHOICES = {
    "division": ("closed", "open"),
    "status": ("onprem", "cloud", "available", "preview", "research"),
}
FOLDER_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]*")
"""Folder names that the repository checker accepts: no spaces, no leading dot."""


def read_description(path: Path) -> Mapping[str, object]:
    """Read a description from its file.

    Raises:
        BenchmarkError: The file cannot be read, or the description cannot be submitted; the message
        lists every error.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(
            f"{path} cannot be read ({error.strerror}); `describe-system --out {path}` makes it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(
            f"{path} is not JSON ({error}); `describe-system --out` makes a system description"
        ) from error
    if not isinstance(content, dict):
        raise BenchmarkError(f"{path} is not a JSON object; expected a system description")
    if not FOLDER_NAME.fullmatch(path.stem):
        raise BenchmarkError(
            f"{path.name}: the name of the file becomes the name of a folder; use only letters, "
            "digits, _ + . -"
        )
    errors = [finding for finding in check_description(content) if finding.state == FAIL]
    if errors:
        lines = [f"    {finding.text}" for finding in errors]
        raise BenchmarkError(
            "\n".join(
                [
                    f"{path} is not complete:",
                    *lines,
                    "  complete the site file and run describe-system again",
                ]
            )
        )
    return content


def check_description(content: Mapping[str, object]) -> list[Finding]:
    """Return missing and invalid values (FAIL), and empty values that are tolerated (NOTE)."""
    required: tuple[str, ...] = REQUIRED
    recommended: tuple[str, ...] = RECOMMENDED
    if str(content.get("accelerators_per_node", "")).strip() not in ("", "0"):
        required += REQUIRED_OF_ACCELERATORS
        recommended += RECOMMENDED_OF_ACCELERATORS
    errors = [f"{key}: is missing ({MEANINGS[key]})" for key in MEANINGS if key not in content]
    errors += [
        f"{key}: is empty ({MEANINGS[key]})"
        for key in required
        if key in content and not content[key]
    ]
    if not content.get("host_processor_core_count") and not content.get(
        "host_processor_vcpu_count"
    ):
        errors.append(
            "host_processor_core_count: is empty, and host_processor_vcpu_count too; one of them "
            "is required"
        )
    errors += _invalid_values(content)
    empty = [
        f"{key} ({MEANINGS[key]})" for key in recommended if key in content and not content[key]
    ]
    findings = [Finding(state=FAIL, subject="system description", text=text) for text in errors]
    if empty:
        text = "\n".join(
            [
                "these keys are empty; the rules require them, but published results lack some:",
                *empty,
            ]
        )
        findings.append(
            Finding(
                state=NOTE,
                subject="system description",
                text=text,
                remedy="complete the site file",
            )
        )
    return findings


def _invalid_values(content: Mapping[str, object]) -> list[str]:
    errors = []
    for key in MEANINGS.keys() & content.keys():
        # mlperf-logging's checker joins strings and crashes on a number.
        if key != "other_software_stack" and not isinstance(content[key], str):
            errors.append(f"{key}: is {content[key]!r}; expected a string")
    for key, choices in CHOICES.items():
        if content.get(key) and content[key] not in choices:
            errors.append(f"{key}: is {content[key]!r}; expected one of {', '.join(choices)}")
    for key in WHOLE_NUMBERS:
        value = content.get(key)
        if isinstance(value, str) and value and not re.fullmatch("[0-9]+", value):
            errors.append(f"{key}: is {value!r}; expected an integer in quotes")
    submitter = content.get("submitter")
    if isinstance(submitter, str) and submitter and not FOLDER_NAME.fullmatch(submitter):
        errors.append(
            f"submitter: is {submitter!r}; it becomes the name of a folder: use only letters, "
            "digits, _ + . -"
        )
    return sorted(errors)
