"""Measured predictions: records of `perf predict`, and what they say about the time of others."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmark.json_file import not_expected, read_json
from benchmark.plan.prediction_fit import TimeFit, Work, fit_times, leave_one_out
from benchmark.plan.prediction_work import alphafold2_work
from benchmark.plan.published_predictions import Term
from openfold_opt.kernels.chips import find_chip
from openfold_opt.model.config import ModelConfig

_OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class RecordedPredictions:
    """Times of single passes of a model with AlphaFold2's widths."""

    path: Path
    gpu: str | None
    """Name of the chip in openfold_opt/kernels/chips.py; None if it is a CPU or an unknown GPU."""
    is_cpu: bool
    blocks: int
    extra_blocks: int
    msa_rows: int
    """Those of the templates included."""
    extra_rows: int
    num_templates: int
    seconds: dict[int, float]
    """Residues -> median seconds. On a CPU, of processor time: other processes share it."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is fitted. A CPU has no launches that it waits for."""
        return ("work",) if self.is_cpu or len(self.seconds) < 3 else ("overhead", "work")

    def work(self) -> Work:
        """Return the function that counts the work of a pass of the measured model."""
        config = ModelConfig()
        evoformer = dataclasses.replace(config.evoformer_stack, num_blocks=self.blocks)
        extra = dataclasses.replace(config.extra_msa_stack, num_blocks=self.extra_blocks)
        config = dataclasses.replace(config, evoformer_stack=evoformer, extra_msa_stack=extra)

        def count(num_residues: int):
            return alphafold2_work(
                num_residues,
                config=config,
                msa_rows=self.msa_rows,
                extra_rows=self.extra_rows,
                num_templates=self.num_templates,
                num_passes=1,
            )

        return count

    def fit(self) -> TimeFit:
        """Fit the seconds of the record."""
        return fit_times(self.seconds, self.terms, self.work())

    def errors(self) -> dict[int, float]:
        """Predict each length from the others; empty if there are too few."""
        if len(self.seconds) <= len(self.terms):
            return {}
        return leave_one_out(self.seconds, self.terms, self.work())

    def for_model(self, config: ModelConfig, num_passes: int, work: Work) -> TimeFit:
        """Return the fit for a whole model; its overhead is proportional to blocks and passes."""
        measured = self.blocks + self.extra_blocks
        planned = config.evoformer_stack.num_blocks + config.extra_msa_stack.num_blocks
        ratio = {"overhead": num_passes * planned / measured}
        fit = self.fit()
        numbers = tuple(
            ratio.get(term, 1.0) * number
            for term, number in zip(fit.terms, fit.numbers, strict=True)
        )
        return TimeFit(terms=fit.terms, numbers=numbers, work=work)


def read_predictions(path: Path) -> RecordedPredictions:
    """Read a record of `perf predict --json`."""
    expected = "a record of `perf predict --json`"
    record = read_json(path, expected=expected)
    try:
        figures, sizes = record["figures"], record["figures"]["sizes"]
        is_cpu = figures["device"] == "cpu"
        chip = find_chip(record["machine"]["accelerator"])
        key = "cpu_seconds" if is_cpu else "seconds"
        seconds = {
            int(length): statistics.median(run[key] for run in programs[_OURS]["runs"])
            for length, programs in figures["lengths"].items()
            if programs.get(_OURS, {}).get("runs")
        }
        if not seconds:
            raise ValueError("no run of this project has ended")
        return RecordedPredictions(
            path=path,
            gpu=None if is_cpu or chip is None else chip.name,
            is_cpu=is_cpu,
            blocks=sizes["blocks"],
            extra_blocks=sizes["extra_blocks"],
            msa_rows=sizes["clusters"] + sizes["templates"],
            extra_rows=sizes["extra_msa"],
            num_templates=sizes["templates"],
            seconds=seconds,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_expected(path, error, expected=expected) from error
