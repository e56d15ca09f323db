"""The description of a system, <system>.json: its keys, what must be in them, and what is wrong with one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.errors import BenchmarkError
from benchmark.submission.finding import FAIL, NOTE, Finding

MEANINGS = {
    "submitter": "organization, as the folder of the submission is called",
    "division": "closed or open",
    "status": "onprem, cloud, available, preview or research",
    "system_name": "name of the system in the table of results",
    "number_of_nodes": "nodes that the measurement took",
    "host_processors_per_node": "sockets",
    "host_processor_model_name": "as lscpu says it",
    "host_processor_core_count": "cores of one processor",
    "host_processor_vcpu_count": "virtual cores of a cloud machine, where cores are not known",
    "host_processor_frequency": "highest clock, MHz",
    "host_processor_caches": "L1, L2 and L3",
    "host_processor_interconnect": "between sockets",
    "host_memory_capacity": "of a node",
    "host_storage_type": "where the data lay: kind of file system and medium",
    "host_storage_capacity": "of that storage",
    "host_networking": "number and kind of network cards of a node",
    "host_networking_topology": "how nodes are connected",
    "host_memory_configuration": "number and kind of memory modules",
    "accelerators_per_node": "0 without",
    "accelerator_model_name": "as nvidia-smi says it",
    "accelerator_host_interconnect": "PCIe generation and width",
    "accelerator_frequency": "highest clock, MHz",
    "accelerator_on-chip_memories": "caches and shared memory",
    "accelerator_memory_configuration": "kind of memory, such as HBM3",
    "accelerator_memory_capacity": "of one accelerator",
    "accelerator_interconnect": "between accelerators of a node",
    "accelerator_interconnect_topology": "how they are connected",
    "cooling": "air or liquid",
    "hw_notes": "anything else about the hardware",
    "framework": "name and version",
    "other_software_stack": "versions of the libraries that matter: a table",
    "operating_system": "name and version",
    "sw_notes": "anything else about the software",
}
"""The keys that mlperf-logging's system_desc_checker looks for, and what belongs into each."""

DEMANDED = (
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
"""Must say something: the submission rules of MLCommons ask for it, and every system of HPC v3.0 says it."""

DEMANDED_OF_ACCELERATORS = ("accelerator_model_name", "accelerator_memory_capacity")

ASKED_FOR = (
    "host_storage_type",
    "host_storage_capacity",
    "host_networking_topology",
    "host_memory_configuration",
    "cooling",
)
"""The rules ask for an answer, though systems of HPC v3.0 were published without."""

ASKED_OF_ACCELERATORS = (
    "accelerator_host_interconnect",
    "accelerator_memory_configuration",
    "accelerator_interconnect",
)

WHOLE_NUMBERS = ("number_of_nodes", "host_processors_per_node", "accelerators_per_node")
"""mlperf-logging's summarizer multiplies them."""

CHOICES = {
    "division": ("closed", "open"),
    "status": ("onprem", "cloud", "available", "preview", "research"),
}
FOLDER_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+.-]*")
"""What the repository checker lets pass as a folder: no blank, no leading dot."""


def read_description(path: Path) -> dict[str, Any]:
    """A description from its file; BenchmarkError names everything that keeps it from being submitted."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(
            f"{path} cannot be read ({error.strerror}); `describe-system --out {path}` makes it"
        ) from error
    except ValueError as error:
        raise BenchmarkError(
            f"{path} is not JSON ({error}); `describe-system --out` makes a system description"
        ) from error
    if not isinstance(content, dict):
        raise BenchmarkError(f"{path} is not a table of keys; expected a system description")
    if not FOLDER_NAME.fullmatch(path.stem):
        raise BenchmarkError(
            f"{path.name}: the file's name is that of a folder in the submission; use letters, digits, _ + . - only"
        )
    wrong = [finding for finding in judge_description(content) if finding.state == FAIL]
    if wrong:
        lines = [f"    {finding.text}" for finding in wrong]
        raise BenchmarkError(
            "\n".join(
                [
                    f"{path} is not complete:",
                    *lines,
                    "  complete the site file and describe the system again",
                ]
            )
        )
    return content


def judge_description(content: Mapping[str, Any]) -> list[Finding]:
    """What is missing or wrong (FAIL), and what the rules ask for but nobody insisted on (NOTE)."""
    demanded, asked_for = DEMANDED, ASKED_FOR
    if str(content.get("accelerators_per_node", "")).strip() not in ("", "0"):
        demanded, asked_for = demanded + DEMANDED_OF_ACCELERATORS, asked_for + ASKED_OF_ACCELERATORS
    wrong = [f"{key}: is missing ({MEANINGS[key]})" for key in MEANINGS if key not in content]
    wrong += [
        f"{key}: is empty ({MEANINGS[key]})"
        for key in demanded
        if key in content and not content[key]
    ]
    if not content.get("host_processor_core_count") and not content.get(
        "host_processor_vcpu_count"
    ):
        wrong.append(
            "host_processor_core_count: is empty, and host_processor_vcpu_count too; one of them must be there"
        )
    wrong += _wrong_values(content)
    empty = [f"{key} ({MEANINGS[key]})" for key in asked_for if key in content and not content[key]]
    findings = [Finding(state=FAIL, subject="system description", text=text) for text in wrong]
    if empty:
        text = "\n".join(
            ["the rules ask for what is empty here, though systems were published without:", *empty]
        )
        findings.append(
            Finding(
                state=NOTE,
                subject="system description",
                text=text,
                remedy="complete the site's file",
            )
        )
    return findings


def _wrong_values(content: Mapping[str, Any]) -> list[str]:
    wrong = []
    for key in MEANINGS.keys() & content.keys():
        # the checker of mlperf-logging joins texts and dies of a number
        if key != "other_software_stack" and not isinstance(content[key], str):
            wrong.append(f"{key}: is {content[key]!r}; expected a text in quotes")
    for key, choices in CHOICES.items():
        if content.get(key) and content[key] not in choices:
            wrong.append(f"{key}: is {content[key]!r}; expected one of {', '.join(choices)}")
    for key in WHOLE_NUMBERS:
        value = content.get(key)
        if isinstance(value, str) and value and not re.fullmatch("[0-9]+", value):
            wrong.append(f"{key}: is {value!r}; expected a whole number in quotes")
    submitter = content.get("submitter")
    if isinstance(submitter, str) and submitter and not FOLDER_NAME.fullmatch(submitter):
        wrong.append(
            f"submitter: is {submitter!r}; it names a folder: letters, digits, _ + . - only, no blanks"
        )
    return sorted(wrong)
