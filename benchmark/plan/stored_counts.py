"""The counts that ship: what is counted, and how the file is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.perf.tools.perf_record import to_json
from benchmark.plan.step_counts import (
    NVIDIA,
    PROJECT,
    REFERENCE,
    CountTable,
    StepCounts,
    read_table,
)
from benchmark.replace_file import replace_text


@dataclass(frozen=True, kw_only=True)
class CountRequest:
    """Steps that one command counts."""

    preset: str
    code: str
    dap_sizes: Sequence[int]

    def command(self) -> str:
        """Return the command line that counts these steps."""
        sizes = " ".join(map(str, self.dap_sizes))
        return (
            f"python -m benchmark plan counts --preset {self.preset} --code {self.code} "
            f"--dap {sizes}"
        )


SHIPPED = (
    CountRequest(preset="mlperf_reference", code=PROJECT, dap_sizes=(1, 2, 4, 8)),
    CountRequest(preset="mlperf_reference", code=REFERENCE, dap_sizes=(1, 2, 4, 8)),
    CountRequest(preset="mlperf_reference", code=NVIDIA, dap_sizes=(1, 2, 4, 8)),
    CountRequest(preset="finetuning", code=PROJECT, dap_sizes=(1, 2, 4, 8)),
    CountRequest(preset="finetuning", code=REFERENCE, dap_sizes=(1,)),
    CountRequest(preset="finetuning", code=NVIDIA, dap_sizes=(1, 4)),
)
"""Every step of step_counts.json; `plan counts --stored` counts them all."""


def add_counts(path: Path, step: StepCounts) -> None:
    """Write a step to a file of counts, in place of the counts of the same step if it has them."""
    table = read_table(path) if path.exists() else CountTable(steps=[])
    kept = [each for each in table.steps if each.name != step.name]
    _write(path, sorted([*kept, step], key=lambda each: each.name))
    read_table.cache_clear()


def _write(path: Path, steps: Sequence[StepCounts]) -> None:
    """Write a line for each group, so that the file stays small and differences readable."""
    lines = []
    for step in steps:
        value = to_json(step)
        lists = {name: value.pop(name) for name in ("launches", "collectives")}
        head = json.dumps(value)[:-1]
        body = [
            f'"{name}": [\n' + ",\n".join(json.dumps(item) for item in items) + "\n]"
            for name, items in lists.items()
        ]
        lines.append(", ".join([head, *body]) + "}")
    replace_text(path, '{"steps": [\n' + ",\n".join(lines) + "\n]}\n")
