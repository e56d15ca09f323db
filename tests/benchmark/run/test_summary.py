"""Summary of a run: text, curve, and JSON lines that survive a death."""

import json
import struct

from benchmark.run.curves import draw_evaluations
from benchmark.run.summary import SummaryObserver, format_summary, read_evaluations
from openfold_opt.train.evaluation.evaluator import ChainScore
from openfold_opt.train.observer import EvaluationReport, RunSummary, StepReport


def report(step, lddt_ca):
    chains = (
        ChainScore(chain_id="1abc_A", lddt_ca=lddt_ca - 0.1, num_residues=30),
        ChainScore(chain_id="2abc_B", lddt_ca=lddt_ca + 0.1, num_residues=40),
    )
    return EvaluationReport(
        step=step, samples_at_end=2 * step, lddt_ca=lddt_ca, chains=chains, seconds=1.5
    )


def summary(**changes):
    values = {
        "status": "success",
        "steps": 80,
        "samples": 160,
        "resumed_from_step": 0,
        "resumed_from_samples": 0,
        "run_seconds": 50.0,
        "training_seconds": 40.0,
        "evaluation_seconds": 8.0,
        "data_wait_seconds": 1.25,
    }
    return RunSummary(**(values | changes))


def test_text_has_speed_waits_and_curve(tmp_path):
    observer = SummaryObserver(tmp_path, target_lddt_ca=0.8)
    observer.evaluation(report(40, 0.5))
    observer.evaluation(report(80, 0.82))
    text = format_summary(summary(), read_evaluations(tmp_path), target_lddt_ca=0.8)
    assert "4.000 samples/s, 0.500 s/step" in text
    assert "waited for data     1.2 s" in text
    assert "0.5000  " + "#" * 25 + "\n" in text
    assert "0.8200  " + "#" * 41 + "\n" in text
    assert "target reached" in text and "continued           no" in text


def test_a_resumed_run_has_its_part_and_the_whole(tmp_path):
    text = format_summary(
        summary(resumed_from_step=40, resumed_from_samples=80), [], target_lddt_ca=0.8
    )
    assert "continued           yes, after step 40" in text
    assert "optimizer steps     80 in the whole run, 40 in this part" in text
    assert "samples             160 in the whole run, 80 in this part" in text
    assert "run time            50.0 s (this and the following lines: this part)" in text
    assert "1.000 s/step" in text


def test_a_process_that_trains_one_phase_says_that_another_follows():
    text = format_summary(summary(status="phase complete"), [], target_lddt_ca=0.8)
    assert text.startswith("status              phase complete, another one follows (lDDT-Ca 0.8)")


def test_run_end_writes_text_and_picture(tmp_path, capsys):
    observer = SummaryObserver(tmp_path, target_lddt_ca=0.8)
    observer.evaluation(report(40, 0.81))
    observer.run_end(summary())
    assert (tmp_path / "summary.txt").read_text().strip() == capsys.readouterr().out.strip()
    data = (tmp_path / "evaluation_curve.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (840, 480)


def test_one_evaluation_can_be_drawn(tmp_path):
    draw_evaluations([report(40, 0.4)], tmp_path / "curve.png", target_lddt_ca=0.8)
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_steps_are_json_lines(tmp_path):
    observer = SummaryObserver(tmp_path, target_lddt_ca=0.8)
    step = StepReport(
        step=1,
        samples_seen=2,
        num_recycling_iterations=3,
        loss=1.5,
        terms={"fape": 0.5},
        gradient_norm=0.1,
        learning_rate=1e-3,
        step_time_seconds=0.2,
        data_wait_seconds=0.01,
        queue_depth=3,
        reorder_distance=1,
    )
    observer.step(step)
    line = json.loads((tmp_path / "steps.jsonl").read_text())
    assert line["terms"] == {"fape": 0.5} and line["loss"] == 1.5


def test_nan_and_infinity_are_null(tmp_path):
    observer = SummaryObserver(tmp_path, target_lddt_ca=0.8)
    observer.step(
        StepReport(
            step=1,
            samples_seen=2,
            num_recycling_iterations=3,
            loss=1.5,
            terms={"tm": float("nan")},
            gradient_norm=float("inf"),
            learning_rate=1e-3,
            step_time_seconds=0.2,
            data_wait_seconds=0.01,
            queue_depth=3,
            reorder_distance=1,
        )
    )
    line = (tmp_path / "steps.jsonl").read_text()
    assert (
        "NaN" not in line
        and json.loads(line)["terms"] == {"tm": None}
        and json.loads(line)["gradient_norm"] is None
    )


def test_a_new_run_removes_the_files_of_an_earlier_one(tmp_path):
    (tmp_path / "steps.jsonl").write_text("{}\n")
    SummaryObserver(tmp_path, target_lddt_ca=0.8)
    assert not (tmp_path / "steps.jsonl").exists()


def test_resumption_after_half_a_line(tmp_path):
    first = SummaryObserver(tmp_path, target_lddt_ca=0.8)
    first.evaluation(report(40, 0.3))
    first.evaluation(report(80, 0.4))
    path = tmp_path / "evaluations.jsonl"
    path.write_text(path.read_text()[:-30])
    again = SummaryObserver(tmp_path, target_lddt_ca=0.8, continued=True)
    again.evaluation(report(40, 0.31))
    again.evaluation(report(80, 0.41))
    assert [(e.step, e.lddt_ca) for e in read_evaluations(tmp_path)] == [
        (40, 0.31),
        (80, 0.41),
    ]
