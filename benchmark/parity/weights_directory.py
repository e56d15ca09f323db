"""Compare weights in published forms with stored outputs of OpenFold, which read the same files.

A weights directory has files of weights NAME.npz or NAME_openfold.pt, and the outputs of each model
in NAME_outputs.npz. The sizes of the models and the batch are those of the golden directory
model_tiny next to it. Tables NAME_keys.tsv have the arrays of AlphaFold's parameter files.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmark.parity.comparison import OUTPUT_TOLERANCE, Comparison, relative_error, unpadded
from benchmark.parity.golden_directory import GoldenDirectoryError, read_batch, read_tensors
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.outputs import ModelOutputs
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.published_weights import WeightsError, build_model, read_weights
from openfold_opt.model.published_weights.alphafold_arrays import array_shapes, parameter_arrays
from openfold_opt.model.published_weights.name_forms import with_parts_of
from openfold_opt.model.published_weights.reading import parameter_shapes

_OUTPUTS, _TABLE = "_outputs.npz", "_keys.tsv"
_FORMS = (".npz", "_openfold.pt")
"""Ends of the names of the files of weights of a model."""
_SIZES_FROM = "model_tiny"
"""The golden directory with the sizes and the batch."""
_OUR_NAMES = {"ptm": "predicted_tm_score"}
"""Name of an output of OpenFold -> field of ModelOutputs, if they differ."""


def is_weights_directory(path: Path) -> bool:
    """Return whether a directory holds weights with their outputs."""
    return any(path.glob(f"*{_OUTPUTS}")) and not (path / "batch.npz").exists()


def compare_weights_directory(path: Path, plan: ExecutionPlan) -> dict[str, list[Comparison]]:
    """Compare each file of weights and each table.

    Returns:
        The comparisons by the name of the file.

    Raises:
        GoldenDirectoryError: a file is missing or cannot be read.
    """
    config = path.parent / _SIZES_FROM / "config.json"
    if not config.is_file():
        raise GoldenDirectoryError(
            f"{config} does not exist; expected the golden directory {_SIZES_FROM} next to {path}, "
            "which has the sizes of the models and their batch"
        )
    batch = read_batch(config.with_name("batch.npz"))
    results = {}
    for outputs in sorted(path.glob(f"*{_OUTPUTS}")):
        expected = read_tensors(outputs)
        name = outputs.name.removesuffix(_OUTPUTS)
        files = [path / (name + form) for form in _FORMS if (path / (name + form)).exists()]
        if not files:
            raise GoldenDirectoryError(
                f"{outputs} has no weights; expected {' or '.join(name + form for form in _FORMS)}"
            )
        for file in files:
            results[file.name] = _compare_file(file, config, batch, expected, plan)
    for table in sorted(path.glob(f"*{_TABLE}")):
        results[table.name] = [_compare_table(table)]
    return results


def _compare_file(
    file: Path,
    config: Path,
    batch: FeatureBatch,
    expected: Mapping[str, Tensor],
    plan: ExecutionPlan,
) -> list[Comparison]:
    try:
        model = build_model(read_weights(file, model_config=config))
    except WeightsError as error:
        print(f"{file.name} cannot be read: {error}")
        return [
            Comparison(
                section=file.name, name="reading", error=math.inf, tolerance=OUTPUT_TOLERANCE
            )
        ]
    last = batch.num_passes - 1
    with torch.no_grad():
        outputs = model(batch, plan, num_recycling_iterations=last)
    features = batch.at_pass(last)
    return [
        Comparison(
            section=file.name,
            name=name,
            error=_error(outputs, name, value, features),
            tolerance=OUTPUT_TOLERANCE,
        )
        for name, value in expected.items()
    ]


def _error(outputs: ModelOutputs, name: str, expected: Tensor, features: FeatureBatch) -> float:
    name = _OUR_NAMES.get(name, name)
    ours = getattr(outputs, name, None)
    if ours is None:
        return math.inf
    return relative_error(unpadded(name, ours, features), unpadded(name, expected, features))


def _compare_table(table: Path) -> Comparison:
    """Compare the arrays that a model of AlphaFold2's sizes has with a table.

    The error is the number of arrays that differ, divided by the number in the table.
    """
    expected = read_key_table(table)
    config = with_parts_of(ModelConfig(), expected)
    shapes = parameter_shapes(config)
    ours = array_shapes(parameter_arrays(shapes, config))
    num_wrong = len(set(ours.items()) ^ set(expected.items()))
    return Comparison(
        section=table.name,
        name=f"{len(expected)} arrays",
        error=num_wrong / max(len(expected), 1),
        tolerance=0.0,
    )


def read_key_table(table: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array in a table with lines of key, tab, shape as 48,256.

    Raises GoldenDirectoryError for a line of another form.
    """
    shapes = {}
    with table.open(encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file, delimiter="\t"), start=1):
            try:
                key, shape = row
                shapes[key] = tuple(int(size) for size in shape.split(","))
            except ValueError as error:
                raise GoldenDirectoryError(
                    f"{table} line {number} is {row}; expected key, tab, shape such as 48,256"
                ) from error
    return shapes
