"""`--set FIELD=VALUE`: change single fields of the configuration, which makes a run open."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.command_line import BenchmarkError
from benchmark.json_file import not_expected, read_json
from benchmark.presets import build_preset, fit_preset
from openfold_opt.train.config import RunConfig, config_fields
from openfold_opt.train.phases import Phase, phases_of

NONE = "none"
BOOLEANS = {"true": True, "false": False}
_FIELDS_OF_PHASES = {
    "evaluation.every_steps": "evaluate_every_steps",
    "parallel.dap_size": "dap_size",
    "parallel.num_evaluation_ranks": "num_evaluation_ranks",
}
"""Fields of a run that have another name in a phase."""


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--set`, which may be given several times."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="FIELD=VALUE",
        help="change a field of the configuration, such as data.crop_size=128; may be given "
        "several times. It makes the run open, and `submit` refuses it (`rules --list` shows all "
        "fields)",
    )


def read_config(run_dir: Path, *, data_dir: Path | None = None) -> RunConfig:
    """Return the configuration of a run, from the preset and the settings in its config.json.

    data_dir: the data set of the run, for the presets that take sizes of samples from it.

    Raises BenchmarkError if the file or the preset does not exist.
    """
    expected = "the config.json of a run"
    record = run_dir / "config.json"
    if not record.is_file():
        raise BenchmarkError(f"{record} does not exist; expected the output directory of a run")
    recorded = read_json(record, expected=expected)
    try:
        preset, settings = recorded["preset"], recorded.get("settings", [])
        is_list = isinstance(settings, list)
        if not is_list or not all(isinstance(each, str) for each in [preset, *settings]):
            raise TypeError("its preset is no text, or its settings are no list of texts")
    except (KeyError, TypeError, AttributeError) as error:
        raise not_expected(record, error, expected=expected) from error
    config = build_preset(preset)
    if data_dir is not None:
        config = fit_preset(preset, config, data_dir)
    return apply_settings(config, settings)


def apply_settings(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Return the configuration with the fields of all `FIELD=VALUE` replaced.

    All settings are applied together, so fields that depend on each other may have any order.

    Raises BenchmarkError for an unknown field, a field given twice, a value of another type, values
    that the configuration refuses, or a field that a phase of the preset replaces.
    """
    values: dict[str, object] = {}
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise BenchmarkError(f"--set {setting}: expected FIELD=VALUE")
        if path in values:
            raise BenchmarkError(f"--set {path} is given twice; give it once")
        values[path] = _parse(text, _type_of(config, path), path=path)
    try:
        changed = _replaced(config, values)
        changes = {
            path: value for path, value in values.items() if value != _value_at(config, path)
        }
        _refuse_without_effect(changed, changes, values)
    except ValueError as error:
        raise BenchmarkError(f"--set {' '.join(settings)}: {error}") from error
    return changed


def _refuse_without_effect(
    config: RunConfig, changes: Mapping[str, object], given: Collection[str]
) -> None:
    """Raise ValueError if a field keeps another value in a phase, unless that is given, too.

    config: with the changed values. given: paths of all settings.
    """
    for phase in phases_of(config):
        for path, value in changes.items():
            if path.startswith("phases."):
                continue
            name, found = _field_of_phase(phase, path)
            of_phase = f"phases.{phase.index}.{name}"
            if found != value and of_phase not in given:
                raise ValueError(
                    f"{phase.title} has its own value, {found}; also set {of_phase}, or take a "
                    "preset without phases"
                )


def _field_of_phase(phase: Phase, path: str) -> tuple[str, object]:
    """Return the field of a phase that replaces a field of the run, and the value in the phase."""
    if path == "evaluation.target_lddt_ca" and phase.is_last and phase.settings.end_lddt_ca:
        return "end_lddt_ca", phase.settings.end_lddt_ca
    return _FIELDS_OF_PHASES.get(path, path), _value_at(phase.config, path)


def _replaced(config: Any, values: Mapping[str, object]) -> Any:
    """Return a dataclass, or a tuple of dataclasses, with the fields at some paths replaced."""
    changes: dict[str, object] = {}
    inner: dict[str, dict[str, object]] = {}
    for path, value in values.items():
        name, _, rest = path.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = value
        else:
            changes[name] = value
    if isinstance(config, tuple):
        return tuple(
            _replaced(part, inner[str(index)]) if str(index) in inner else part
            for index, part in enumerate(config)
        )
    changes |= {name: _replaced(getattr(config, name), items) for name, items in inner.items()}
    return dataclasses.replace(config, **changes)


def _value_at(config: Any, path: str) -> object:
    """Return the value of a field."""
    for name in path.split("."):
        config = config[int(name)] if isinstance(config, tuple) else getattr(config, name)
    return config


def _type_of(config: RunConfig, path: str) -> Any:
    """Return the annotation of a field."""
    known = [leaf.path for leaf in config_fields(config)]
    if path not in known:
        close = difflib.get_close_matches(path, known, n=3)
        inner = [name for name in known if name.startswith(f"{path}.")]
        hint = f"did you mean {', '.join(close or inner[:3])}?" if close or inner else ""
        raise BenchmarkError(
            f"--set {path}: the configuration has no such field; {hint or 'see `rules --list`'}"
        )
    owner, _, name = path.rpartition(".")
    return typing.get_type_hints(type(_value_at(config, owner) if owner else config))[name]


def _parse(text: str, annotation: Any, *, path: str) -> Any:
    try:
        return _value(text, annotation)
    except ValueError as error:
        name = getattr(annotation, "__name__", None)
        expected = str(annotation) if name in (None, "tuple", "Literal") else name
        raise BenchmarkError(f"--set {path}: {text!r} is not a value of type {expected}") from error


def _value(text: str, annotation: Any) -> Any:
    """Parse a text. Raises ValueError if it does not have the type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        # None comes first and str last, because "none" and "true" are valid texts, too.
        order = {types.NoneType: 0, str: 2}
        for kind in sorted(arguments, key=lambda kind: order.get(kind, 1)):
            try:
                return _value(text, kind)
            except ValueError:
                continue
        raise ValueError(text)
    if origin is typing.Literal:
        # Any other text is refused by the configuration, whose message names the valid values.
        return next((value for value in arguments if text == str(value)), text)
    if origin is tuple:
        return tuple(_value(part, arguments[0]) for part in text.split(",") if part)
    if annotation is types.NoneType:
        return _choice(text, {NONE: None})
    if annotation is bool:
        return _choice(text, BOOLEANS)
    if annotation is float:
        return _finite(float(text))
    if annotation in (int, str):
        return annotation(text)
    raise ValueError(f"fields of type {annotation} cannot be set")


def _choice(text: str, values: Mapping[str, Any]) -> Any:
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(value)
    return value
