"""Initial weights of a new run: a file of torch.save, or the checkpoint of another run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from openfold_opt.model.weights import RESUMABLE_KEY, check_weights
from openfold_opt.protein.shard_format import sha256_of_file
from openfold_opt.train.checkpoint.checkpoint_store import (
    DESCRIPTION,
    CheckpointConfig,
    CheckpointStore,
    load_file,
)
from openfold_opt.train.errors import CheckpointError
from openfold_opt.train.step import TrainStep

CHECKPOINT_FOLDER = "checkpoints"
"""Folder of the checkpoints in the output directory of a run."""
INIT_WEIGHTS = ("average", "trained")
"""Weights in the checkpoint of a run: the running average, or the trained weights."""
_TENSOR_OF = {"average": "average", "trained": "values"}
"""Names of these weights in Snapshot.tensors."""


def initialize(
    train_step: TrainStep,
    path: Path,
    *,
    which: str = INIT_WEIGHTS[0],
    expected_sha256: str | None,
    note: Callable[[str], None],
) -> str:
    """Load initial weights from a file of torch.save, or from the output directory of a run.

    which: one of INIT_WEIGHTS, for the directory of a run. note: receives a line that describes the
    loaded weights. Returns the SHA-256 of the file, or of the checkpoint's description, which
    contains the SHA-256 of each file.

    Raises CheckpointError if there are no such weights, if they do not fit the model, or if they
    are not the weights that the configuration requires.
    """
    if path.is_dir():
        return _initialize_from_run(
            train_step, path, which=which, expected_sha256=expected_sha256, note=note
        )
    sha256 = initialize_from_file(train_step, path, expected_sha256=expected_sha256)
    has_moments = bool(float(train_step.optimizer.num_steps))
    adam = "with Adam's moments and step count" if has_moments else "Adam starts from zero"
    note(f"initial weights: {_describe_size(train_step)} of {path}; {adam}")
    return sha256


def _initialize_from_run(
    train_step: TrainStep,
    run_dir: Path,
    *,
    which: str,
    expected_sha256: str | None,
    note: Callable[[str], None],
) -> str:
    """Load one set of weights from the newest complete checkpoint. Adam starts from zero."""
    if expected_sha256 is not None:
        raise CheckpointError(
            f"initial checkpoint {run_dir} is the directory of a run, but this preset starts from "
            f"the file with the SHA-256 {expected_sha256}; pass that file with --init-checkpoint"
        )
    store = CheckpointStore(run_dir / CHECKPOINT_FOLDER, CheckpointConfig())
    try:
        newest = store.load_newest(warn=note)
    except CheckpointError as error:
        # The original message suggests removing the run, which is wrong for another run.
        raise CheckpointError(
            f"initial checkpoint {run_dir}: none of its checkpoints is complete (the reasons are "
            "above); choose another run, or a file of weights"
        ) from error
    if newest is None:
        raise CheckpointError(
            f"{store.folder} has no checkpoint; expected the output directory of a run with one"
        )
    snapshot, path = newest
    tensors = snapshot.views(_TENSOR_OF[which])
    if which == "average" and not snapshot.facts["num_updates"]:
        raise CheckpointError(
            f"{path} has no averaged weights yet; use the trained ones with --init-weights trained"
        )
    _restore_weights(train_step, {RESUMABLE_KEY: tensors}, path=path)
    score = "" if snapshot.lddt_ca is None else f", lDDT-Ca {snapshot.lddt_ca:.4f}"
    name = "averaged" if which == "average" else which
    note(
        f"initial weights: {_describe_size(train_step)}, the {name} ones of {path} "
        f"(step {snapshot.step}{score}); Adam, learning rate schedule and running average start "
        "from the beginning"
    )
    return sha256_of_file(path / DESCRIPTION)


def _describe_size(train_step: TrainStep) -> str:
    buffer = train_step.buffer
    return f"{buffer.num_parameters:,} parameters in {len(buffer.names)} tensors"


def initialize_from_file(train_step: TrainStep, path: Path, *, expected_sha256: str | None) -> str:
    """Load a file of weights into a new run, and return the SHA-256 of the file.

    The file holds a state dict of the model, or a dict with the state dict at RESUMABLE_KEY. From
    the latter, Adam's moments and step count are also restored if it has them. The running average
    starts empty.

    Raises CheckpointError if the SHA-256 differs from the expected one, if the file is not a
    checkpoint, or if tensors are missing, unexpected or have other shapes.
    """
    if not path.is_file():
        raise CheckpointError(
            f"initial checkpoint {path} does not exist; expected a file written by torch.save"
        )
    sha256 = sha256_of_file(path)
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
    """Load the weights at RESUMABLE_KEY and, if there is one, the state of Adam."""
    tensors = content[RESUMABLE_KEY]
    if not isinstance(tensors, Mapping):
        raise CheckpointError(
            f"{path}: {RESUMABLE_KEY} is a {type(tensors).__name__}, expected names with tensors"
        )
    invalid = [
        name
        for name, tensor in tensors.items()
        if not (isinstance(tensor, Tensor) and tensor.is_floating_point())
    ]
    if invalid:
        raise CheckpointError(
            f"{path}: {invalid[0]!r} and {len(invalid) - 1} more are not floating-point tensors; "
            "expected a state dict"
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
                f"{path}: optimizer_state_dict is not Adam's for this model "
                f"({type(error).__name__}: {error}); expected param_groups, and a state with step, "
                "exp_avg and exp_avg_sq for each parameter"
            ) from error
