"""The sizes of a model, from the configuration of a run or of the MLCommons reference."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights.reference_config import reference_model_config
from openfold_opt.model.weights import WeightsError, list_names

Config = TypeVar("Config")

_REFERENCE_KEY = "evoformer_stack_config"
"""A key that only the configuration of the MLCommons reference has."""


def read_model_config(path: Path) -> ModelConfig:
    """Return the sizes in a file: config.json of a run, or the configuration of the reference.

    Raises WeightsError if the file cannot be read or has another form.
    """
    content = read_json_object(path)
    try:
        if _REFERENCE_KEY in content:
            return reference_model_config(content)
        return run_model_config(content)
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: {error}") from error


def run_model_config(content: Mapping[str, object]) -> ModelConfig:
    """Return the sizes in the content of a run's config.json.

    Raises ValueError if it has no sizes, or fields that ModelConfig does not have.
    """
    config = content.get("config")
    sizes = config.get("model") if isinstance(config, Mapping) else None
    if not isinstance(sizes, Mapping):
        raise ValueError(
            "there is no object config.model in it; expected config.json of a run, or the "
            "configuration of the MLCommons reference"
        )
    return model_config_from_json(sizes)


def model_config_from_json(sizes: Mapping[str, object]) -> ModelConfig:
    """Return the sizes for nested objects of their fields. A missing field has its default.

    Raises ValueError for a field that is unknown or has a value of another type.
    """
    return _build(ModelConfig, sizes, path="model")


def model_config_as_json(config: ModelConfig) -> str:
    """Return the sizes as text, which `model_config_from_json` reads after json.loads."""
    return json.dumps(dataclasses.asdict(config))


def _build(kind: type[Config], content: Mapping[str, object], *, path: str) -> Config:
    types = typing.get_type_hints(kind)
    known = [item.name for item in dataclasses.fields(kind)]
    unknown = [f"{path}.{name}" for name in content if name not in known]
    if unknown:
        raise ValueError(
            f"{len(unknown)} unknown fields: {list_names(unknown)}; expected the configuration of "
            "this version"
        )
    values: dict[str, object] = {}
    for name, value in content.items():
        expected = types[name]
        if dataclasses.is_dataclass(expected) and isinstance(value, Mapping):
            values[name] = _build(expected, value, path=f"{path}.{name}")
        elif type(value) is expected or (expected is float and type(value) is int):
            values[name] = value
        else:
            raise ValueError(
                f"{path}.{name} is {value!r}, expected a value of type {expected.__name__}"
            )
    return kind(**values)


def read_json_object(path: Path) -> Mapping[str, object]:
    """Return the content of a JSON file. Raises WeightsError if it is not a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content
