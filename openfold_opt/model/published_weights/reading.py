"""Read weights of every published form into our names and shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights.alphafold_arrays import (
    Shape,
    array_shapes,
    from_arrays,
    parameter_arrays,
)
from openfold_opt.model.published_weights.checkpoint_folder import DESCRIPTION
from openfold_opt.model.published_weights.model_sizes import (
    model_config_from_json,
    read_model_config,
)
from openfold_opt.model.published_weights.name_forms import (
    NameForm,
    recognize_form,
    with_parts_of,
)
from openfold_opt.model.published_weights.openfold_names import current_names, openfold_name
from openfold_opt.model.published_weights.run_directory import (
    TENSOR_OF,
    describe_other_directory,
    is_run_directory,
    read_run_checkpoint,
    read_run_directory,
)
from openfold_opt.model.published_weights.safetensors_file import MODEL_CONFIG_KEY
from openfold_opt.model.published_weights.stored_tensors import (
    StoredTensors,
    Which,
    read_stored_tensors,
)
from openfold_opt.model.published_weights.weight_settings import (
    Origin,
    Setting,
    default_settings,
    run_settings,
)
from openfold_opt.model.weights import WeightsError, describe_mismatch, list_names
from openfold_opt.protein.shard_format import sha256_of_file

_KINDS: Mapping[NameForm, str] = {
    "ours": "MLCommons checkpoint",
    "openfold": "OpenFold checkpoint",
    "alphafold": "AlphaFold parameters",
}
_DEEPSPEED_POINTER, _DEEPSPEED_FILE = "latest", "mp_rank_00_model_states.pt"
"""A directory of DeepSpeed names its newest folder in a file; the folder has a file of weights."""

_OF_ALPHAFOLD2 = Setting(value="of AlphaFold2", origin="default")
_REMEDIES: Mapping[Origin, str] = {
    "default": "if this is a model of other sizes, give them with --model-config FILE "
    "(the config.json of its run)",
    "option": "name the file with the sizes of this model with --model-config FILE",
    "run": "choose weights of this model",
    "weights": "the file is not complete, so fetch it again",
}
"""What to do if shapes do not fit, by the origin of the sizes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedWeights:
    """Weights of a model as read from a file or a run directory."""

    path: Path
    kind: str
    """"run directory", "MLCommons checkpoint", "OpenFold checkpoint", "AlphaFold parameters" or
    "safetensors"."""
    which: str
    """The set of weights that was taken, if there are several; else empty."""
    sha256: str
    """Of the file that was read; of the description of the checkpoint if it is a run."""
    config: ModelConfig
    """Sizes of the model. Templates and the TM-score head follow from the keys."""
    state: dict[str, Tensor]
    """Parameters by our names in the order of our model: float32 on the CPU."""
    settings: dict[str, Setting]
    """Sizes of samples and other values, each with its origin."""
    optimizer_state: object = None
    """State of Adam, if the file has it next to these weights."""


def read_weights(
    path: Path,
    *,
    model_config: Path | None = None,
    checkpoint: str | None = None,
    which: Which = "average",
) -> PublishedWeights:
    """Read weights. Their kind is recognized from keys and shapes, not from the file name.

    Args:
        path: a file, the output directory of a run, or a directory of DeepSpeed.
        model_config: file with the sizes of the model, for files whose sizes are not those of
            AlphaFold2; see `read_model_config`.
        checkpoint: of a run; see `read_run_checkpoint`.
        which: the averaged or the trained weights, where there are both.

    Raises:
        WeightsError: the weights cannot be read, or do not fit the model; says why.
    """
    if path.is_dir() and is_run_directory(path):
        if model_config is not None:
            raise WeightsError(
                f"{path} is the output directory of a run and has its own sizes; leave out "
                f"--model-config {model_config}"
            )
        return _read_run(path, checkpoint=checkpoint, which=which)
    if checkpoint is not None:
        raise WeightsError(
            f"checkpoint {checkpoint} is requested, but {path} is not the output directory of a "
            "run; leave it out"
        )
    if model_config is None:
        return read_weights_file(path, which=which)
    sizes = read_model_config(model_config)
    named = Setting(value=f"of {model_config}", origin="option")
    return read_weights_file(path, sizes=sizes, sizes_from=named, which=which)


def read_weights_file(
    path: Path,
    *,
    sizes: ModelConfig | None = None,
    sizes_from: Setting = _OF_ALPHAFOLD2,
    which: Which = "average",
) -> PublishedWeights:
    """Read a file of weights, or a directory of DeepSpeed.

    Args:
        path: the file.
        sizes: sizes of the model; None: those in the file, else those of AlphaFold2. The file
            decides about templates and the TM-score head.
        sizes_from: the name of the given sizes, and their origin.
        which: the averaged or the trained weights, where there are both.

    Raises:
        WeightsError: see `read_weights`.
    """
    file = _file_of(path)
    stored = read_stored_tensors(file, which=which)
    form = recognize_form(stored.tensors, source=str(path))
    if sizes is None and MODEL_CONFIG_KEY in stored.metadata:
        sizes, sizes_from = _sizes_in_file(path, stored), Setting(value="of it", origin="weights")
    config = with_parts_of(sizes or ModelConfig(), stored.tensors)
    state = _translate(path, stored, form, config, sizes=sizes_from)
    _refuse_non_finite(path, state)
    return PublishedWeights(
        path=path,
        kind="safetensors" if stored.container == "safetensors" else _KINDS[form],
        which=stored.which,
        sha256=sha256_of_file(file),
        config=config,
        state=state,
        settings=default_settings(config, sizes=sizes_from),
        optimizer_state=stored.optimizer_state,
    )


def build_model(weights: PublishedWeights) -> AlphaFold:
    """Return the model with the weights, in evaluation mode and float32."""
    with torch.device("meta"):
        model = AlphaFold(weights.config, seed=None)
    model.load_state_dict(weights.state, assign=True)
    return model.requires_grad_(False).eval()


def parameter_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Return the shape of each parameter of a model by name, in the order of the model."""
    with torch.device("meta"):
        model = AlphaFold(config, seed=None)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _file_of(path: Path) -> Path:
    """Return the file with the weights. Raises WeightsError if there is none."""
    if path.is_file():
        return path
    if not path.exists():
        raise WeightsError(f"{path} does not exist; expected a file of weights, or a run directory")
    pointer = path / _DEEPSPEED_POINTER
    if not pointer.is_file():
        raise WeightsError(describe_other_directory(path))
    file = path / pointer.read_text(encoding="utf-8").strip() / _DEEPSPEED_FILE
    if not file.is_file():
        raise WeightsError(
            f"{pointer} names a folder without {_DEEPSPEED_FILE}: {file} does not exist; copy the "
            "whole directory"
        )
    return file


def _sizes_in_file(path: Path, stored: StoredTensors) -> ModelConfig:
    try:
        return model_config_from_json(json.loads(stored.metadata[MODEL_CONFIG_KEY]))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: the sizes in its metadata are not valid: {error}") from error


def _translate(
    path: Path, stored: StoredTensors, form: NameForm, config: ModelConfig, *, sizes: Setting
) -> dict[str, Tensor]:
    """Return the tensors by our names. Every tensor of the file is used, and none is missing."""
    shapes = parameter_shapes(config)
    tensors = stored.tensors
    if form == "alphafold":
        expected = array_shapes(parameter_arrays(shapes, config))
        _check(path, tensors, expected, sizes=sizes)
        state = from_arrays(tensors, shapes, config)
    else:
        rename: Callable[[str], str] = str if form == "ours" else openfold_name
        if form == "openfold":
            renamed = _current_names(path, tensors)
            tensors = {renamed[name]: tensor for name, tensor in tensors.items()}
        _check(path, tensors, {rename(name): x for name, x in shapes.items()}, sizes=sizes)
        state = {name: tensors[rename(name)] for name in shapes}
    return {name: tensor.float().contiguous() for name, tensor in state.items()}


def _current_names(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    try:
        return current_names(tensors)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def _check(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Shape], *, sizes: Setting
) -> None:
    mismatch = describe_mismatch(tensors, expected)
    if mismatch is None:
        return
    raise WeightsError(
        f"{path} does not fit the model with the sizes {sizes.value}; "
        f"{_REMEDIES[sizes.origin]}; {mismatch}"
    )


def _refuse_non_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError(
            f"{path}: {len(broken)} of {len(state)} parameters have values that are not finite: "
            f"{list_names(broken)}; such weights cannot be used, so take an earlier checkpoint"
        )


def _read_run(path: Path, *, checkpoint: str | None, which: Which) -> PublishedWeights:
    run = read_run_directory(path)
    snapshot, folder = read_run_checkpoint(path, checkpoint=checkpoint)
    if which == "average" and not snapshot.facts["num_updates"]:
        raise WeightsError(
            f"{folder} has no averaged weights yet; take the trained weights, or a later checkpoint"
        )
    views = snapshot.views(TENSOR_OF[which])
    config = with_parts_of(run.config, views)
    state = {name: view.clone() for name, view in views.items()}
    _check(path, state, parameter_shapes(config), sizes=Setting(value="of the run", origin="run"))
    _refuse_non_finite(path, state)
    adjective = "averaged" if which == "average" else "trained"
    return PublishedWeights(
        path=path,
        kind="run directory",
        which=f"{adjective} weights of step {snapshot.step}",
        sha256=sha256_of_file(folder / DESCRIPTION),
        config=config,
        state=state,
        settings=run_settings(config, run.samples),
    )
