"""PredictedChain: the structures of one chain, as the Python interface returns them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openfold_opt.predict.chain_results import ChainResult, write_result
from openfold_opt.predict.file_names import PAE, chain_stems
from openfold_opt.predict.models import TimedPrediction
from openfold_opt.predict.output_files import ChainFiles
from openfold_opt.predict.picture_file import write_picture
from openfold_opt.predict.structure_file import structure_text

if TYPE_CHECKING:
    from openfold_opt.predict.chain_input import ChainInput
    from openfold_opt.predict.forward import Prediction


class RowArray:
    """Collects the rows of a matrix in memory, as float16 (a RowSink)."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    def __call__(self, start: int, rows: np.ndarray) -> None:
        """Append a block of rows."""
        self._blocks.append(np.asarray(rows, np.float16))

    def matrix(self) -> np.ndarray | None:
        """Return all rows; None if there were none."""
        return np.concatenate(self._blocks) if self._blocks else None


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedChain:
    """The structures of one chain, from one or several sets of weights."""

    chain: ChainInput
    ranking: tuple[str, ...]
    """Names of the weights, best first."""
    predictions: Mapping[str, TimedPrediction]
    """By the name of the weights."""
    pae_matrices: Mapping[str, np.ndarray | None]
    """float16 [N_res, N_res], angstrom; None if the weights do not predict it."""
    results: Mapping[str, ChainResult]
    """What the files are written from, by the name of the weights."""

    @property
    def best(self) -> Prediction:
        """The prediction with the highest rank."""
        return self.predictions[self.ranking[0]].prediction

    @property
    def pae(self) -> np.ndarray | None:
        """The predicted aligned error of the best prediction."""
        return self.pae_matrices[self.ranking[0]]

    def mmcif(self, weights: str | None = None) -> str:
        """Return a structure as ModelCIF. weights: a name; None: the best."""
        result = self.results[weights or self.ranking[0]]
        return structure_text(result.structure, result.facts)

    def write(
        self,
        folder: str | os.PathLike[str],
        *,
        pae_json: bool | None = None,
        pictures: bool = True,
    ) -> Path:
        """Write structures, confidences and a picture to a directory, as the command does.

        Args:
            folder: the directory, which is created if it does not exist. Files of the same name
                are replaced.
            pae_json: whether to write the PAE as JSON; None: up to 3,000 residues.
            pictures: whether to draw the best structure. If this fails, there is a Python warning.

        Returns:
            The file of the best structure.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (stem,) = chain_stems([self.chain.name], self.ranking)
        files = ChainFiles(path, stem, self.ranking)
        try:
            for weights, result in self.results.items():
                matrix = self.pae_matrices[weights]
                if matrix is not None:
                    files.row_file(weights, PAE, num_rows=len(matrix))(0, matrix)
                write_result(files, result, pae_json=pae_json)
            if pictures:
                for problem in write_picture(files, self.results[self.ranking[0]]):
                    warnings.warn(problem, stacklevel=2)
            files.finish(self.ranking)
        finally:
            files.discard()
        return path / files.best_structure
