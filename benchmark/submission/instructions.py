"""The files of a system's folder in a submission: how its result is set up, run and repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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

EMBEDDED_DATASETS = """echo "preset {preset}: its embedded data is made by run_and_time.sh, before the clock starts"
"""

RUN = """exec "$code/run_and_time.sh" {preset}"$@"
"""

README = """# OpenFold on {system_name}

{submitter}, {division} division of MLPerf HPC 3.0: {nodes} nodes with {accelerators} each, {framework}.

| file | what |
| --- | --- |
| `../{implementation}/` | the code of the commit in the folder's name, without files whose names begin with a dot; start at its README.md |
| `setup.sh` | installs pinned versions into the code's folder |
| `init_datasets.sh{data_argument}` | {data_text} |
| `run_and_time.sh` | one timed run: {run_text} |
| `{record_name}` | {record_text} |
{extra_rows}
    ./setup.sh
    ./init_datasets.sh{data_argument}
    ./run_and_time.sh {arguments}

Ten runs, each with a seed drawn from the clock, made the logs in `results/{system}/`.
"""


def write_instructions(
    folder: Path,
    *,
    system: str,
    implementation: str,
    description: Mapping[str, Any],
    record: Mapping[str, Any] | None,
    extra_names: Sequence[str] = (),
) -> None:
    """README.md, setup.sh, init_datasets.sh, run_and_time.sh and <system>_<implementation>.json, as MLCommons asks for.

    record: config.json of one of the runs; without it the preset has to be named by hand. extra_names: further
    files of the folder, for the README to list.
    """
    preset = str(record["preset"]) if record and "preset" in record else ""
    is_embedded = preset == "demo" or preset.startswith("demo_")
    record_name = f"{system}_{implementation}.json"
    told = (
        _without_host(record)
        if record
        else {"note": "the runs came without a record of their configuration"}
    )
    (folder / record_name).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    find_code = FIND_CODE.format(implementation=implementation)
    datasets = EMBEDDED_DATASETS.format(preset=preset) if is_embedded else find_code + DATASETS
    timed_run = find_code + RUN.format(preset=f"--preset {preset} " if preset else "")
    scripts = {
        "setup.sh": ("Installs what the runs need.", find_code + SETUP),
        "init_datasets.sh": ("Makes the data set ready, before any clock starts.", datasets),
        "run_and_time.sh": ("One timed run; flags are passed on.", timed_run),
    }
    for name, (purpose, body) in scripts.items():
        script = folder / name
        script.write_text(SCRIPT_START.format(purpose=purpose) + body, encoding="utf-8")
        script.chmod(0o755)
    arguments = "" if preset else "--preset PRESET "
    arguments += (
        ""
        if is_embedded
        else "--data-dir DIR/shards --init-checkpoint DIR/mlperf_hpc_openfold_resumable_checkpoint.pt "
    )
    accelerators = description["accelerators_per_node"]
    text = README.format(
        system=system,
        system_name=description["system_name"],
        submitter=description["submitter"],
        division=description["division"],
        nodes=description["number_of_nodes"],
        accelerators=f"{accelerators} {description['accelerator_model_name']}"
        if accelerators != "0"
        else "no accelerators",
        framework=description["framework"],
        implementation=implementation,
        data_argument="" if is_embedded else " DIR",
        data_text="the data is embedded: nothing to do"
        if is_embedded
        else "fetches the data set and the initial checkpoint, makes shards",
        run_text=f"preset `{preset}`" if preset else "name the preset with `--preset`",
        record_name=record_name,
        record_text="configuration, versions and machine, as one of the runs recorded them"
        if record
        else "no record came with the runs",
        extra_rows="".join(f"| `{name}` | the site's own |\n" for name in extra_names),
        arguments=f"{arguments}--output-dir RUN_1",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _without_host(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run without the name of its node, which is nobody's business but the site's."""
    machine = {key: value for key, value in (record.get("machine") or {}).items() if key != "host"}
    return {**record, "machine": machine}
