"""The weights that a new run starts from: a published file, or the checkpoint of another run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from openfold_opt.model.weights import RESUMABLE_KEY, check_weights, file_sha256
from openfold_opt.train.checkpoint import (
    DESCRIPTION,
    CheckpointConfig,
    CheckpointError,
    CheckpointStore,
    load_file,
)
from openfold_opt.train.step import TrainStep

CHECKPOINT_FOLDER = "checkpoints"
"""Of the output directory of a run."""
INIT_WEIGHTS = ("average", "trained")
"""Weights of a run's checkpoint: the running average, which evaluations use, or the trained ones."""
_TENSOR_OF = {"average": "average", "trained": "values"}


def initialize(
    train_step: TrainStep,
    path: Path,
    *,
    which: str = INIT_WEIGHTS[0],
    expected_sha256: str | None,
    note: Callable[[str], None],
) -> str:
    """Start a new run from a file of torch.save, or from the output directory of a run.

    which: one of INIT_WEIGHTS, for the directory of a run. note: takes a line that says what was
    loaded. Returns the SHA-256 of the file, or of the checkpoint's description, which has those of
    its files.

    Raises CheckpointError if there are no such weights, if they do not fit the model, or if they
    are not those that the configuration asks for.
    """
    if path.is_dir():
        return _initialize_from_run(
            train_step, path, which=which, expected_sha256=expected_sha256, note=note
        )
    sha256 = initialize_from_file(train_step, path, expected_sha256=expected_sha256)
    has_moments = bool(float(train_step.optimizer.num_steps))
    rest = "Adam's moments and step count too" if has_moments else "Adam starts afresh"
    note(f"initial weights: {_count(train_step)} of {path}; {rest}")
    return sha256


def _initialize_from_run(
    train_step: TrainStep,
    run_dir: Path,
    *,
    which: str,
    expected_sha256: str | None,
    note: Callable[[str], None],
) -> str:
    """Take one set of weights of the newest whole checkpoint. Adam starts afresh."""
    if expected_sha256 is not None:
        raise CheckpointError(
            f"initial checkpoint {run_dir} is the directory of a run, and this preset starts from "
            f"the file of SHA-256 {expected_sha256}; give that file with --init-checkpoint"
        )
    store = CheckpointStore(run_dir / CHECKPOINT_FOLDER, CheckpointConfig())
    try:
        found = store.load_newest(warn=note)
    except CheckpointError as error:
        # its advice, to remove that run, is for the run itself
        raise CheckpointError(
            f"initial checkpoint {run_dir}: none of its checkpoints is whole (the reasons are above); "
            "name another run, or a file of weights"
        ) from error
    if found is None:
        raise CheckpointError(
            f"{store.folder} has no checkpoint; expected the output directory of a run that wrote one"
        )
    snapshot, path = found
    tensors = snapshot.views(_TENSOR_OF[which])
    if which == "average" and not snapshot.facts["num_updates"]:
        raise CheckpointError(
            f"{path} has no averaged weights yet; take the trained ones with --init-weights trained"
        )
    _restore_weights(train_step, {RESUMABLE_KEY: tensors}, path=path)
    score = "" if snapshot.lddt_ca is None else f", lDDT-Ca {snapshot.lddt_ca:.4f}"
    name = "averaged" if which == "average" else which
    note(
        f"initial weights: {_count(train_step)}, the {name} ones of {path} (step {snapshot.step}"
        f"{score}); Adam, learning rate and running average start afresh"
    )
    return file_sha256(path / DESCRIPTION)


def _count(train_step: TrainStep) -> str:
    buffer = train_step.buffer
    return f"{buffer.num_parameters:,} parameters in {len(buffer.names)} tensors"


def initialize_from_file(train_step: TrainStep, path: Path, *, expected_sha256: str | None) -> str:
    """Start a fresh run from published weights; returns the file's SHA-256.

    Takes a plain state dict, or the resumable form, of which Adam's moments and step count are restored
    too. The running average starts empty. Raises CheckpointError for another SHA-256 than expected, a
    file that is no checkpoint, or tensors that are missing, extra or misshapen.
    """
    if not path.is_file():
        raise CheckpointError(
            f"initial checkpoint {path} does not exist; expected a file written by torch.save"
        )
    sha256 = file_sha256(path)
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise CheckpointError(
            f"initial checkpoint {path} has SHA-256 {sha256}, expected {expected_sha256}; "
            "download it again (python -m data_prep download)"
        )
    content = load_file(path)
    if RESUMABLE_KEY not in content:
        content = {RESUMABLE_KEY: content}
    _restore_weights(train_step, content, path=path)
    return sha256


def _restore_weights(train_step: TrainStep, content: dict[str, Any], *, path: Path) -> None:
    tensors = content[RESUMABLE_KEY]
    if not isinstance(tensors, Mapping):
        raise CheckpointError(
            f"{path}: {RESUMABLE_KEY} is a {type(tensors).__name__}, expected names with tensors"
        )
    strange = [
        name
        for name, tensor in tensors.items()
        if not (isinstance(tensor, Tensor) and tensor.is_floating_point())
    ]
    if strange:
        raise CheckpointError(
            f"{path}: {strange[0]!r} and {len(strange) - 1} more are no tensors of real numbers; expected a state dict"
        )
    try:
        check_weights(train_step.model, tensors, source=path.name)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    train_step.buffer.load(train_step.buffer.values, tensors)
    train_step.buffer.refresh_compute_copy()
    if "optimizer_state_dict" in content:
        try:
            train_step.optimizer.load_state_dict(content["optimizer_state_dict"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise CheckpointError(
                f"{path}: optimizer_state_dict is not Adam's for this model ({type(error).__name__}: {error}); expected "
                "param_groups, and a state with step, exp_avg and exp_avg_sq for each parameter"
            ) from error
