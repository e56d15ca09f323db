"""Fits the seconds of predictions to counted work, and checks the fit on unseen lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.plan.prediction_work import PredictionWork
from benchmark.plan.published_predictions import PublishedMemory, Term

Work = Callable[[int], PredictionWork]
ALIGNMENT = 8
"""Matrix units read rows of 16 bytes, which are 8 elements of bf16. A row of the cubic products has
as many elements as the chain has residues."""
BREAK = 1.25
"""A time that is longer than the prediction by this factor is a break: the model does not hold."""
_PAIR_CHANNELS = 128


@dataclass(frozen=True, kw_only=True)
class TimeFit:
    """Seconds of a prediction: a sum of terms with one fitted number each."""

    terms: tuple[Term, ...]
    numbers: tuple[float, ...]
    """Of "overhead" seconds, of the other terms seconds per operation."""
    work: Work

    def seconds(self, num_residues: int) -> float:
        """Return the seconds of a length."""
        return float(_columns([num_residues], self.terms, self.work)[0] @ np.array(self.numbers))

    def describe(self) -> str:
        """Return the fitted numbers as text."""
        parts = []
        for term, number in zip(self.terms, self.numbers, strict=True):
            if term == "overhead":
                parts.append(f"{number:.2f} s overhead")
            elif number > 0:
                parts.append(f"{term} at {1e-12 / number:.3g} TFLOP/s")
            else:
                parts.append(f"{term} free")
        return ", ".join(parts)


def fit_times(seconds: Mapping[int, float], terms: tuple[Term, ...], work: Work) -> TimeFit:
    """Fit the numbers of the terms, none negative, to the least mean squared relative error."""
    columns = _columns(list(seconds), terms, work)
    measured = np.array(list(seconds.values()))
    numbers = _least_squares(columns / measured[:, None], np.ones(len(measured)))
    return TimeFit(terms=terms, numbers=tuple(float(x) for x in numbers), work=work)


def leave_one_out(
    seconds: Mapping[int, float], terms: tuple[Term, ...], work: Work
) -> dict[int, float]:
    """Predict every length from a fit to the others. Return the relative error of each."""
    errors = {}
    for length, measured in seconds.items():
        others = {n: value for n, value in seconds.items() if n != length}
        errors[length] = fit_times(others, terms, work).seconds(length) / measured - 1
    return errors


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Mean and largest absolute relative error."""

    mean: float
    worst: float

    @classmethod
    def of(cls, errors: Mapping[int, float]) -> Errors:
        """Summarize relative errors."""
        sizes = [abs(error) for error in errors.values()]
        return cls(mean=sum(sizes) / len(sizes), worst=max(sizes))

    def __str__(self) -> str:
        return f"mean {self.mean:.1%}, worst {self.worst:.1%}"


def predicted_memory(published: PublishedMemory) -> float:
    """Predict a peak in GB from those of other lengths of the same program."""
    units = [_pair_gigabytes(n, published.known_bytes) for n in published.known]
    peaks = list(published.known.values())
    slope, constant = peaks[0] / units[0], 0.0
    if len(units) > 1:
        slope = (peaks[1] - peaks[0]) / (units[1] - units[0])
        constant = peaks[0] - slope * units[0]
    return constant + slope * _pair_gigabytes(published.length, published.length_bytes)


def _pair_gigabytes(num_residues: int, element_bytes: int) -> float:
    return num_residues**2 * _PAIR_CHANNELS * element_bytes / 1e9


def _columns(lengths: Sequence[int], terms: tuple[Term, ...], work: Work) -> np.ndarray:
    """Return the quantity of each term: [lengths, terms]."""
    return np.array([[_quantity(term, n, work(n)) for term in terms] for n in lengths])


def _quantity(term: Term, num_residues: int, work: PredictionWork) -> float:
    return {
        "overhead": 1.0,
        "work": work.total,
        "unaligned cubic": work.cubic if num_residues % ALIGNMENT else 0.0,
        "quadratic": work.total - work.cubic,
        "cubic": work.cubic,
    }[term]


def _least_squares(columns: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Solve for numbers that are not negative; few columns, so every subset is tried."""
    # The columns differ by many orders of magnitude, which would look like a lower rank.
    scales = columns.max(axis=0)
    scales = np.where(scales > 0, scales, 1.0)
    scaled, count = columns / scales, columns.shape[1]
    best, best_error = np.zeros(count), np.inf
    for subset in range(1, 2**count):
        chosen = [index for index in range(count) if subset >> index & 1]
        solution, *_ = np.linalg.lstsq(scaled[:, chosen], target, rcond=None)
        error = float(np.square(scaled[:, chosen] @ solution - target).sum())
        if (solution >= 0).all() and error < best_error:
            best, best_error = np.zeros(count), error
            best[chosen] = solution
    return best / scales
