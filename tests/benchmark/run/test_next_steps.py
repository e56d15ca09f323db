"""The last lines of a run."""

import pytest

from benchmark.run.next_steps import NextStepsObserver, describe_next_steps
from openfold_opt.train.observer import RunSummary


def test_files_that_exist_and_the_commands_that_come_next(tmp_path):
    folder = tmp_path / "a run"
    (folder / "checkpoints").mkdir(parents=True)
    log = folder / "mlperf.log"
    for path in (log, folder / "summary.txt", folder / "checkpoints" / "step_1.pt"):
        path.touch()
    text = describe_next_steps(folder, log, reached=True)
    assert str(folder) in text and "evaluation_curve.png" not in text
    assert all(f"  {name} " in text for name in ("mlperf.log", "summary.txt", "checkpoints"))
    for command in ("check", "status", "export"):
        assert f"python -m benchmark {command} '{folder}'" in text
    assert f"--init-checkpoint '{folder}' --output-dir NEW_DIR" in text


def test_a_phase_is_followed_by_the_command_of_the_next_one(tmp_path):
    for name in ("mlperf.log", "loss_curve.png", "checkpoints/step_1", "tensorboard/events"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    text = describe_next_steps(
        tmp_path, tmp_path / "mlperf.log", reached=False, has_next_phase=True
    )
    assert f"benchmark status {tmp_path}   # the command of the next phase" in text
    assert f"tensorboard --logdir {tmp_path} " in text and "  loss_curve.png " in text
    assert "export" in text and "NEW_DIR" not in text and " check " not in text


@pytest.mark.parametrize("status", ["aborted", "success"])
def test_a_run_below_the_target_of_the_rules_without_checkpoints(tmp_path, capsys, status):
    """The preset may have a lower target, which the run reached."""
    (tmp_path / "checkpoints").mkdir()
    summary = RunSummary(
        status=status,
        steps=1,
        samples=1,
        resumed_from_step=0,
        resumed_from_samples=0,
        run_seconds=1.0,
        training_seconds=1.0,
        evaluation_seconds=0.0,
        data_wait_seconds=0.0,
    )
    NextStepsObserver(tmp_path, tmp_path / "mlperf.log").run_end(summary)
    text = capsys.readouterr().out
    assert f"check --below-target {tmp_path}" in text
    assert "export" not in text and "--init-checkpoint" not in text


def test_check_is_not_suggested_for_a_continued_run_which_it_refuses(tmp_path):
    text = describe_next_steps(tmp_path, tmp_path / "mlperf_continued_1.log", reached=False)
    assert "benchmark check" not in text and "benchmark status" in text
