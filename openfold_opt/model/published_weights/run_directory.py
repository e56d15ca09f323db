"""Read the weights of a run from its output directory: sizes, samples, and one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights.checkpoint_folder import (
    DESCRIPTION,
    CheckpointRecord,
    Snapshot,
    read_checkpoint,
    read_record,
)
from openfold_opt.model.published_weights.model_sizes import read_json_object, run_model_config
from openfold_opt.model.weights import WeightsError, list_names

CONFIG = "config.json"
CHECKPOINT_FOLDER = "checkpoints"
"""Folder of the checkpoints in the output directory of a run."""
BEST, LAST = "best", "last"
"""The checkpoint with the highest lDDT-Ca, and the newest one."""
TENSOR_OF = {"average": "average", "trained": "values"}
"""Names of the averaged and of the trained weights in Snapshot.tensors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunDirectory:
    """What the output directory of a run says about its weights."""

    path: Path
    config: ModelConfig
    samples: Mapping[str, object]
    """The part of the run's configuration that describes samples."""


def is_run_directory(path: Path) -> bool:
    """Return whether a directory is the output directory of a run."""
    return (path / CONFIG).is_file() and (path / CHECKPOINT_FOLDER).is_dir()


def read_run_directory(path: Path) -> RunDirectory:
    """Read the configuration of a run.

    Raises WeightsError if it cannot be read, or if this version has other sizes.
    """
    content = read_json_object(path / CONFIG)
    try:
        config = run_model_config(content)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path / CONFIG}: {error}") from error
    run_config = content["config"]
    samples = run_config.get("data", {}) if isinstance(run_config, Mapping) else {}
    return RunDirectory(path=path, config=config, samples=samples)


def read_run_checkpoint(path: Path, *, checkpoint: str | None) -> tuple[Snapshot, Path]:
    """Read a checkpoint of a run, and return its content and its folder.

    Args:
        path: output directory of the run.
        checkpoint: BEST, LAST, the name of a folder such as step_00000040, or its step. None: LAST.

    Raises WeightsError if there is no such checkpoint, or if it is damaged.
    """
    folders = sorted((path / CHECKPOINT_FOLDER).glob(f"step_{'[0-9]' * 8}"))
    records = {folder.name: read_record(folder) for folder in folders}
    if not records:
        raise WeightsError(
            f"{path / CHECKPOINT_FOLDER} has no checkpoint; expected the output directory of a run "
            "that saved one"
        )
    folder = path / CHECKPOINT_FOLDER / _choose(records, checkpoint or LAST, path=path)
    return read_checkpoint(folder), folder


def _choose(records: Mapping[str, CheckpointRecord], checkpoint: str, *, path: Path) -> str:
    """Return the name of the chosen folder."""
    if checkpoint == LAST:
        return max(records)
    if checkpoint == BEST:
        scores = {
            name: (record.lddt_ca, record.step)
            for name, record in records.items()
            if record.lddt_ca is not None
        }
        if not scores:
            raise WeightsError(
                f"no checkpoint of {path} has a score, because none was saved at an evaluation; "
                f"choose one of {list_names(records)}, or {LAST}"
            )
        return max(scores, key=lambda name: scores[name])
    name = f"step_{int(checkpoint):08d}" if checkpoint.isdecimal() else checkpoint
    if name not in records:
        raise WeightsError(
            f"{path} has no checkpoint {checkpoint}; it has {list_names(records)}: choose one of "
            f"these, {BEST} or {LAST}"
        )
    return name


def describe_other_directory(path: Path) -> str:
    """Return what a directory lacks to be the output directory of a run."""
    if (path / DESCRIPTION).is_file():
        return (
            f"{path} is one checkpoint of a run; name the output directory of the run, and choose "
            "the checkpoint by its name"
        )
    missing = [name for name in (CONFIG, f"{CHECKPOINT_FOLDER}/") if not (path / name).exists()]
    return (
        f"{path} is not the output directory of a run: it has no {' and no '.join(missing)}; name "
        "such a directory, or a file of weights"
    )
