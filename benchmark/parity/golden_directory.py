"""Read a golden directory: configuration, weights, batch, and expected results."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.command_line import BenchmarkError
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights.reference_config import reference_model_config
from openfold_opt.protein.features import FEATURES


class GoldenDirectoryError(BenchmarkError):
    """A golden directory is missing, incomplete or damaged."""


@dataclass(frozen=True, kw_only=True)
class GoldenStep:
    """Metrics of an optimizer step of the golden run."""

    step: int
    num_recycling_iterations: int
    loss: float
    learning_rate: float
    gradient_norm: float
    terms: Mapping[str, float]
    """Unweighted loss terms by name."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> GoldenStep:
        """Read an entry of results.json. Raises KeyError if it lacks a field."""
        return cls(
            step=content["iteration"],
            num_recycling_iterations=content["num_recycling_iters"],
            loss=content["loss"],
            learning_rate=content["lr"],
            gradient_norm=content["grad_norm"],
            terms=content["losses"],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class GoldenDirectory:
    """The content of a golden directory. `arrays` reads further files."""

    path: Path
    config: Mapping[str, Any] | None
    """Content of config.json; None means the sizes of the benchmark."""
    model_config: ModelConfig
    weights: dict[str, Tensor]
    """Name -> weight, in the order of the MLCommons checkpoint."""
    batch: FeatureBatch
    results: Mapping[str, Any]
    """Content of results.json."""

    @property
    def trajectory(self) -> list[GoldenStep]:
        """The steps in results.json; empty if the golden run made none."""
        try:
            return [GoldenStep.from_json(each) for each in self.results.get("trajectory", [])]
        except KeyError as error:
            raise GoldenDirectoryError(
                f"{self.path}/results.json: a step of the trajectory lacks {error}"
            ) from error

    def has(self, name: str) -> bool:
        """Return whether the directory has a file of this name."""
        return (self.path / name).is_file()

    def arrays(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of an .npz file by name."""
        return read_tensors(self.path / name)


def load_golden_directory(path: Path) -> GoldenDirectory:
    """Read configuration, weights, batch and results.

    Raises GoldenDirectoryError if the directory or one of its files is missing or damaged.
    """
    if not path.is_dir():
        raise GoldenDirectoryError(f"{path} is not a directory; name one such as golden/model_tiny")
    config = _read_json(path / "config.json") if (path / "config.json").is_file() else None
    try:
        sizes = ModelConfig() if config is None else reference_model_config(config)
    except (ValueError, TypeError) as error:
        raise GoldenDirectoryError(f"{path}/config.json: {error}") from error
    return GoldenDirectory(
        path=path,
        config=config,
        model_config=sizes,
        weights=_read_weights(path),
        batch=read_batch(path / "batch.npz"),
        results=_read_json(path / "results.json"),
    )


def weights_from_names(table: Path) -> dict[str, Tensor]:
    """Return pseudorandom weights, each seeded with its name. Large models are stored without any.

    table: a file with lines of name, tab, shape as 2x3.
    """
    if not table.is_file():
        raise GoldenDirectoryError(
            f"{table.parent} has neither weights.npz nor state_dict.tsv; expected one of them to "
            "define the weights"
        )
    weights = {}
    for number, line in enumerate(table.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            name, shape = line.split("\t")
            weights[name] = torch.from_numpy(
                weight_from_name(name, tuple(int(size) for size in shape.split("x")))
            )
        except ValueError as error:
            raise GoldenDirectoryError(
                f"{table} line {number} is {line!r}; expected name, tab, shape such as 128x22"
            ) from error
    return weights


def weight_from_name(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the float32 weight of a name by the rule in the README.md of the golden results."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    normal = generator.standard_normal(shape, dtype=np.float32)
    if "layer_norm" in name and name.endswith("weight"):
        return np.float32(1.0) + np.float32(0.1) * normal
    if name.endswith("bias"):
        return np.float32(0.1) * normal
    if len(shape) >= 2:
        return normal * np.float32(0.3 / np.sqrt(shape[-1]))
    return np.float32(0.5) * normal


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not (path / "weights.npz").is_file():
        return weights_from_names(path / "state_dict.tsv")
    return read_tensors(path / "weights.npz")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the arrays of an .npz file by name. Raises GoldenDirectoryError if it is damaged."""
    return {name: torch.from_numpy(array) for name, array in _read_npz(path).items()}


def read_batch(path: Path) -> FeatureBatch:
    """Read the batch, in which the last dim of every feature is the pass.

    Raises GoldenDirectoryError if a feature differs between passes and our batch has it only once.
    """
    arrays = _read_npz(path)
    missing = [name for name in FEATURES if name not in arrays]
    if missing:
        raise GoldenDirectoryError(f"{path} lacks the features {', '.join(missing)}")
    features = {}
    for name, spec in FEATURES.items():
        array = arrays[name]
        if spec.per_pass:
            features[name] = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))
            continue
        if not all(
            np.array_equal(array[..., 0], array[..., i], equal_nan=True)
            for i in range(array.shape[-1])
        ):
            raise GoldenDirectoryError(
                f"{path}: feature {name} differs between recycling iterations; expected equal "
                "values"
            )
        features[name] = torch.from_numpy(np.ascontiguousarray(array[..., 0]))
    try:
        return FeatureBatch.from_features(features)
    except ValueError as error:
        raise GoldenDirectoryError(f"{path}: {error}") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise GoldenDirectoryError(f"{path} cannot be read as JSON: {error}") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise GoldenDirectoryError(f"{path} cannot be read as an .npz file: {error}") from error
