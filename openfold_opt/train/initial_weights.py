"""Initial weights of a new run: a file of a published form, or the checkpoint of another run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from torch import Tensor

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.published_weights.checkpoint_folder import DESCRIPTION
from openfold_opt.model.published_weights.reading import PublishedWeights, read_weights_file
from openfold_opt.model.published_weights.run_directory import CHECKPOINT_FOLDER, TENSOR_OF
from openfold_opt.model.published_weights.weight_settings import Setting
from openfold_opt.model.weights import WeightsError, check_weights
from openfold_opt.protein.shard_format import sha256_of_file
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig, CheckpointStore
from openfold_opt.train.errors import CheckpointError
from openfold_opt.train.step import TrainStep

INIT_WEIGHTS = ("average", "trained")
"""Weights in the checkpoint of a run: the running average, or the trained weights."""
TM_HEAD = "auxiliary_heads.tm."
"""Start of the names of the TM-score head, which weights of initial training do not have."""
_HEAD_NOTE = "; the TM-score head is not in them and starts from the initial values of a new model"
_SIZES = Setting(value="of this run", origin="run")


def initialize(
    train_step: TrainStep,
    path: Path,
    *,
    which: str = INIT_WEIGHTS[0],
    expected_sha256: str | None,
    note: Callable[[str], None],
) -> str:
    """Load initial weights from a file, or from the output directory of a run.

    If the model has a TM-score head and the weights do not, the head keeps the initial values of
    the run's seed, and the line says so.

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
    weights = initialize_from_file(train_step, path, expected_sha256=expected_sha256)
    has_moments = bool(float(train_step.optimizer.num_steps))
    adam = "with Adam's moments and step count" if has_moments else "Adam starts from zero"
    head = _HEAD_NOTE if _missing_head(train_step, weights.state) else ""
    note(
        f"initial weights: {_describe_size(weights.state)} of the {weights.kind} {path}; {adam}"
        f"{head}"
    )
    return weights.sha256


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
    snapshot, path = newest.snapshot, newest.path
    tensors = snapshot.views(TENSOR_OF[which])
    if which == "average" and not snapshot.facts["num_updates"]:
        raise CheckpointError(
            f"{path} has no averaged weights yet; use the trained ones with --init-weights trained"
        )
    _load(train_step, tensors, path=path)
    score = "" if snapshot.lddt_ca is None else f", lDDT-Ca {snapshot.lddt_ca:.4f}"
    name = "averaged" if which == "average" else which
    head = _HEAD_NOTE if _missing_head(train_step, tensors) else ""
    note(
        f"initial weights: {_describe_size(tensors)}, the {name} ones of {path} "
        f"(step {snapshot.step}{score}); Adam, learning rate schedule and running average start "
        f"from the beginning{head}"
    )
    return sha256_of_file(path / DESCRIPTION)


def _describe_size(tensors: Mapping[str, Tensor]) -> str:
    num_parameters = sum(tensor.numel() for tensor in tensors.values())
    return f"{num_parameters:,} parameters in {len(tensors)} tensors"


def initialize_from_file(
    train_step: TrainStep, path: Path, *, expected_sha256: str | None
) -> PublishedWeights:
    """Load a file of weights into a new run, and return its content.

    The file has any of the published forms. If it has the state of Adam next to trained weights,
    the state is also restored. The running average starts empty.

    Raises CheckpointError if the SHA-256 differs from the expected one, if the file has no weights
    that can be read, or if tensors are missing, unexpected or have other shapes. Only the TM-score
    head may be missing; the moments of Adam for it are then zero.
    """
    if not path.is_file():
        raise CheckpointError(
            f"initial checkpoint {path} does not exist; expected a file of weights"
        )
    sha256 = sha256_of_file(path)
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise CheckpointError(
            f"initial checkpoint {path} has SHA-256 {sha256}, expected {expected_sha256}; "
            "download it again (python -m data_prep download)"
        )
    model = train_step.model
    assert isinstance(model, AlphaFold)
    try:
        weights = read_weights_file(path, sizes=model.config, sizes_from=_SIZES, which="trained")
    except WeightsError as error:
        raise CheckpointError(str(error)) from error
    _load(train_step, weights.state, path=path)
    if weights.optimizer_state is not None:
        _restore_adam(
            train_step,
            weights.optimizer_state,
            path=path,
            without=_missing_head(train_step, weights.state),
        )
    return weights


def _load(train_step: TrainStep, tensors: Mapping[str, Tensor], *, path: Path) -> None:
    buffer = train_step.buffer
    head = {name: buffer.view(buffer.values, name) for name in _missing_head(train_step, tensors)}
    _refuse_unused_head(train_step, tensors, path=path)
    tensors = {**tensors, **head}
    try:
        check_weights(train_step.model, tensors, source=path.name)
    except WeightsError as error:
        raise CheckpointError(f"{path}: {error}") from error
    buffer.load(buffer.values, tensors)
    buffer.refresh_compute_copy()


def _missing_head(train_step: TrainStep, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the TM-score head if the model has it and the weights have no part."""
    if any(name.startswith(TM_HEAD) for name in tensors):
        return []
    return [name for name in train_step.buffer.names if name.startswith(TM_HEAD)]


def _refuse_unused_head(
    train_step: TrainStep, tensors: Mapping[str, Tensor], *, path: Path
) -> None:
    """Raise CheckpointError if the weights have a TM-score head and the model does not."""
    extra = [name for name in tensors if name.startswith(TM_HEAD)]
    if extra and not any(name.startswith(TM_HEAD) for name in train_step.buffer.names):
        raise CheckpointError(
            f"{path} has a TM-score head ({', '.join(extra)}), and the model of this preset has "
            "none, so training would lose it; use a preset with the head, such as finetuning_ptm, "
            "or --set model.auxiliary_heads.has_tm_score=true"
        )


def _restore_adam(
    train_step: TrainStep, state: object, *, path: Path, without: Collection[str]
) -> None:
    try:
        if not isinstance(state, dict):
            raise TypeError(f"it is a {type(state).__name__}")
        train_step.optimizer.load_state_dict(state, without=without)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: optimizer_state_dict is not Adam's for this model "
            f"({type(error).__name__}: {error}); expected param_groups, and a state with step, "
            "exp_avg and exp_avg_sq for each parameter"
        ) from error
