"""Readable results of a run: steps and evaluations as JSON lines, a summary, and the curves.

Files in the output directory: steps.jsonl, evaluations.jsonl, summary.txt, loss_curve.png and
evaluation_curve.png. A resumed run appends to the first two, so that the curves are those of the
whole run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.replace_file import append_bytes, replace_text
from benchmark.run.curves import (
    EVALUATION_CURVE,
    LOSS_CURVE,
    draw_evaluations,
    draw_losses,
    read_losses,
)
from benchmark.run.phase_record import read_phase_records
from openfold_opt.train.evaluation.evaluator import ChainScore
from openfold_opt.train.observer import (
    EvaluationReport,
    NullObserver,
    PhaseReport,
    RunSummary,
    StepReport,
)
from openfold_opt.train.phase_goal import PHASE_COMPLETE, SUCCESS

STEPS_FILE = "steps.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
SUMMARY_FILE = "summary.txt"
BAR_WIDTH = 50
OUTCOMES = {SUCCESS: "target reached", PHASE_COMPLETE: "phase complete, another one follows"}
SAMPLES_KEY = "epoch_num"
"""Key of samples_at_end in evaluations.jsonl, as in the MLPerf log."""


class SummaryObserver(NullObserver):
    """Writes the five files.

    Args:
        folder: the output directory.
        target_lddt_ca: drawn as a line into the curve.
        continued: whether to append to the files of the earlier processes of this run.
    """

    def __init__(self, folder: Path, *, target_lddt_ca: float, continued: bool = False) -> None:
        self._folder = folder
        self._target = target_lddt_ca
        for name in (STEPS_FILE, EVALUATIONS_FILE):
            if continued:
                _end_last_line(folder / name)
            else:
                # An earlier run may have ended before its first checkpoint.
                (folder / name).unlink(missing_ok=True)

    def step(self, report: StepReport) -> None:
        """Write a line for an optimizer step."""
        _append(self._folder / STEPS_FILE, asdict(report) | {"terms": dict(report.terms)})

    def evaluation(self, report: EvaluationReport) -> None:
        """Write a line for an evaluation, with the score of every chain."""
        names = {"samples_at_end": SAMPLES_KEY}
        line = {names.get(name, name): value for name, value in asdict(report).items()}
        _append(self._folder / EVALUATIONS_FILE, line)

    def phase_stop(self, report: PhaseReport) -> None:
        """Draw the curves, except after the last phase, which run_end follows."""
        if report.number < report.count:
            self._draw(read_evaluations(self._folder))

    def run_end(self, summary: RunSummary) -> None:
        """Write and print the summary, and draw the curves."""
        evaluations = read_evaluations(self._folder)
        text = format_summary(summary, evaluations, target_lddt_ca=self._target)
        replace_text(self._folder / SUMMARY_FILE, text)
        print(text, flush=True)
        self._draw(evaluations)

    def _draw(self, evaluations: Sequence[EvaluationReport]) -> None:
        """Draw the curves, if there is anything to draw."""
        phases = read_phase_records(self._folder)
        losses = read_losses(self._folder / STEPS_FILE)
        if len(losses.steps):
            draw_losses(losses, self._folder / LOSS_CURVE, phases=phases)
        if evaluations:
            draw_evaluations(
                evaluations,
                self._folder / EVALUATION_CURVE,
                target_lddt_ca=self._target,
                phases=phases,
                curve=losses,
            )


def read_evaluations(folder: Path) -> list[EvaluationReport]:
    """Return the evaluations that SummaryObserver wrote, in the order of their steps.

    A resumed run repeats the steps after its checkpoint; the last line of a step counts. Incomplete
    lines are skipped.
    """
    path = folder / EVALUATIONS_FILE
    by_step: dict[int, EvaluationReport] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue  # The process died while it wrote this line.
        values["samples_at_end"] = values.pop(SAMPLES_KEY)
        values["chains"] = tuple(ChainScore(**chain) for chain in values["chains"])
        by_step[values["step"]] = EvaluationReport(**values)
    return [by_step[step] for step in sorted(by_step)]


def format_summary(
    summary: RunSummary, evaluations: Sequence[EvaluationReport], *, target_lddt_ca: float
) -> str:
    """Return outcome, speed, waits, and the evaluation curve as bars, as text."""
    outcome = OUTCOMES.get(summary.status, "target not reached")
    resumed = summary.resumed_from_step
    steps, samples, of_part = f"{summary.steps}", f"{summary.samples}", ""
    if resumed:
        steps += f" in the whole run, {summary.trained_steps} in this part"
        samples += f" in the whole run, {summary.trained_samples} in this part"
        of_part = " (this and the following lines: this part)"
    lines = [
        f"status              {outcome} (lDDT-Ca {target_lddt_ca})",
        f"continued           {f'yes, after step {resumed}' if resumed else 'no'}",
        f"optimizer steps     {steps}",
        f"samples             {samples}",
        f"run time            {summary.run_seconds:.1f} s{of_part}",
        f"  training          {summary.training_seconds:.1f} s",
        f"  evaluation        {summary.evaluation_seconds:.1f} s",
        f"waited for data     {summary.data_wait_seconds:.1f} s",
        f"speed               {summary.samples_per_second:.3f} samples/s, "
        f"{summary.seconds_per_step:.3f} s/step",
        "",
        "    step    samples  lDDT-Ca",
    ]
    for evaluation in evaluations:
        bar = "#" * round(BAR_WIDTH * evaluation.lddt_ca)
        lines.append(
            f"{evaluation.step:>8} {evaluation.samples_at_end:>10}  {evaluation.lddt_ca:.4f}  {bar}"
        )
    if evaluations:
        lines.append(f"{'':>27} {'':<{round(BAR_WIDTH * target_lddt_ca)}}^ {target_lddt_ca}")
    return "\n".join(lines) + "\n"


def _end_last_line(path: Path) -> None:
    """End an incomplete line that a killed process left, before more lines are appended."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with open(path, "a", encoding="utf-8") as file:
            file.write("\n")


def _append(path: Path, record: Mapping[str, object]) -> None:
    line = json.dumps(_without_nan(record), allow_nan=False) + "\n"
    append_bytes(path, line.encode())


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
