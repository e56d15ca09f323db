"""Write the files of a system's folder in a submission: README, scripts and configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Parts of the scripts. `code` is the folder of the code. {{ and }} are braces of the shell where
# str.format fills in fields.
SCRIPT_START = """#!/usr/bin/env bash
# {purpose}
set -euo pipefail

"""

FIND_CODE = """code="$(CDPATH='' cd "$(dirname "${{BASH_SOURCE[0]}}")/../{implementation}" && pwd)"
"""

SETUP = """exec "$code/run_tests.sh" --setup-only
"""

DATASETS = """if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
mkdir -p "$1"
data="$(CDPATH='' cd "$1" && pwd)"
cd "$code"
# shellcheck source=/dev/null
. "$code/tools/environment.sh"
prepare_environment run
"$PYTHON" -m data_prep download --out "$data"
"$PYTHON" -m data_prep convert-mlperf --pdb-mmcif-processed "$data/pdb_mmcif/processed" \\
    --alignments "$data/open_protein_set/processed" --out "$data/shards"
"""

SYNTHETIC_DATASETS = """echo "preset {preset}: run_and_time.sh creates its data before the run"
"""

RUN = """exec "$code/run_and_time.sh" {preset}"$@"
"""

CHECKPOINT = "mlperf_hpc_openfold_resumable_checkpoint.pt"

README = """# OpenFold on {system_name}

{submitter}, {division} division of MLPerf HPC 3.0.
{nodes} nodes with {accelerators} each, {framework}.

| file | content |
| --- | --- |
| `../{implementation}/` | code of the commit in its name, without hidden files; see its README.md |
| `setup.sh` | installs pinned versions into the code's folder |
| `init_datasets.sh{data_argument}` | {data_text} |
| `run_and_time.sh` | makes one timed run: {run_text} |
| `{record_name}` | {record_text} |
{extra_rows}
    ./setup.sh
    ./init_datasets.sh{data_argument}
    ./run_and_time.sh {arguments}

The logs in `results/{system}/` are of ten runs, each with a seed drawn from the clock.
"""


def write_instructions(
    folder: Path,
    *,
    system: str,
    implementation: str,
    description: Mapping[str, object],
    record: Mapping[str, Any] | None,
    extra_names: Sequence[str] = (),
) -> None:
    """Write README.md, the scripts and <system>_<implementation>.json, as MLCommons requires.

    Args:
        folder: The system's folder.
        system: Name of the system.
        implementation: Name of the code's folder.
        description: The system description.
        record: config.json of one of the runs. Without it, users have to name the preset.
        extra_names: Further files of the folder, for the README to list.
    """
    preset = str(record["preset"]) if record and "preset" in record else ""
    is_synthetic = preset == "demo" or preset.startswith("demo_")
    content = (
        _without_host(record)
        if record
        else {"note": "the runs came without a record of their configuration"}
    )
    record_file = folder / f"{system}_{implementation}.json"
    record_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    _write_scripts(folder, implementation=implementation, preset=preset, is_synthetic=is_synthetic)
    text = README.format(
        system=system,
        implementation=implementation,
        record_name=record_file.name,
        record_text="configuration, versions and machine, as recorded by one of the runs"
        if record
        else "the runs have no record",
        extra_rows="".join(f"| `{name}` | added by the site |\n" for name in extra_names),
        **_system_fields(description),
        **_data_fields(preset, is_synthetic=is_synthetic),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _write_scripts(folder: Path, *, implementation: str, preset: str, is_synthetic: bool) -> None:
    find_code = FIND_CODE.format(implementation=implementation)
    datasets = SYNTHETIC_DATASETS.format(preset=preset) if is_synthetic else find_code + DATASETS
    timed_run = find_code + RUN.format(preset=f"--preset {preset} " if preset else "")
    scripts = {
        "setup.sh": ("Install the software of the runs.", find_code + SETUP),
        "init_datasets.sh": ("Prepare the data set before the timed runs.", datasets),
        "run_and_time.sh": ("Make one timed run. Flags are passed on.", timed_run),
    }
    for name, (purpose, body) in scripts.items():
        script = folder / name
        script.write_text(SCRIPT_START.format(purpose=purpose) + body, encoding="utf-8")
        script.chmod(0o755)


def _system_fields(description: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of README that depend on the system description."""
    accelerators = description["accelerators_per_node"]
    return {
        "system_name": description["system_name"],
        "submitter": description["submitter"],
        "division": description["division"],
        "nodes": description["number_of_nodes"],
        "accelerators": f"{accelerators} {description['accelerator_model_name']}"
        if accelerators != "0"
        else "no accelerators",
        "framework": description["framework"],
    }


def _data_fields(preset: str, *, is_synthetic: bool) -> dict[str, str]:
    """Return the fields of README that depend on the preset and its data."""
    arguments = "" if preset else "--preset PRESET "
    if not is_synthetic:
        arguments += f"--data-dir DIR/shards --init-checkpoint DIR/{CHECKPOINT} "
    return {
        "data_argument": "" if is_synthetic else " DIR",
        "data_text": "does nothing: `run_and_time.sh` creates synthetic data"
        if is_synthetic
        else "downloads the data set and the initial checkpoint, and makes shards",
        "run_text": f"preset `{preset}`" if preset else "give the preset with `--preset`",
        "arguments": f"{arguments}--output-dir RUN_1",
    }


def _without_host(record: Mapping[str, Any]) -> dict[str, object]:
    """Return the record of a run without the name of its node, which is private."""
    machine = {key: value for key, value in (record.get("machine") or {}).items() if key != "host"}
    return {**record, "machine": machine}
