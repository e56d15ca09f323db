"""Complete runs of a tiny model: events, bit-equal resumption, several ranks, errors."""

import dataclasses
import math
import signal

import pytest
import torch

from openfold_opt.train.build_run import RunPaths
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig, load_checkpoint
from openfold_opt.train.checkpoint.run_state import mlcommons_form
from openfold_opt.train.errors import NonFiniteError, SetupError
from openfold_opt.train.evaluation.evaluator import EvaluationConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.trainer import Trainer
from tests.support.recording_observer import Recorder, train
from tests.support.run_ranks import Ranks, finished
from tests.support.synthetic_samples import MemorySource, tiny_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return an uninterrupted run as the reference for the others."""
    folder = tmp_path_factory.mktemp("whole")
    summary, recorder = train(tiny_config(), folder)
    return summary, recorder, folder


def test_events_come_in_order(whole):
    _, recorder, _ = whole
    steps = ["step"] * 4
    interval = [
        "interval_start",
        *steps,
        "interval_stop",
        "evaluation_start",
        "evaluation",
        "evaluation_stop",
    ]
    events = [name for name in recorder.names if not name.startswith("checkpoint_")]
    warm_up = ["preparing"] * 3
    assert events == [
        "init_start",
        *warm_up,
        "init_stop",
        "run_start",
        "data_ready",
        *interval,
        *interval,
        "run_stop",
        "run_end",
    ]


def test_a_run_without_success_is_aborted_with_a_complete_summary(whole):
    summary, recorder, _ = whole
    assert (summary.status, summary.steps, summary.samples, summary.resumed_from_step) == (
        "aborted",
        8,
        8,
        0,
    )
    assert [report.step for report in recorder.steps] == list(range(1, 9))
    assert all(math.isfinite(report.loss) and report.gradient_norm > 0 for report in recorder.steps)
    assert {report.num_recycling_iterations for report in recorder.steps} == {0, 1}
    assert [report.samples_at_end for report in recorder.evaluations] == [4, 8]
    for report in recorder.evaluations:
        assert [chain.chain_id for chain in report.chains] == ["eval0", "eval1", "eval2"]
        assert [chain.num_residues for chain in report.chains] == [6, 7, 8]
        assert report.lddt_ca == pytest.approx(sum(chain.lddt_ca for chain in report.chains) / 3)
    assert summary.seconds_per_step > 0 and summary.samples_per_second > 0
    assert summary.evaluations == tuple(recorder.evaluations)
    assert 10e6 < summary.peak_memory_bytes < 20e9


def test_the_last_step_is_evaluated_between_two_evaluations(tmp_path):
    summary, recorder = train(tiny_config(max_steps=6), tmp_path)
    assert [report.step for report in summary.evaluations] == [4, 6]
    assert [report.samples_at_end for report in recorder.evaluations] == [4, 6]
    assert recorder.names.count("interval_start") == recorder.names.count("interval_stop") == 2
    # Its result is in the last checkpoint, so a rerun has no work left.
    rerun, recorder = train(tiny_config(max_steps=6), tmp_path)
    assert (rerun.status, rerun.trained_steps, recorder.evaluations) == ("aborted", 0, [])


def test_a_run_keeps_the_last_and_best_checkpoints(whole):
    _, recorder, folder = whole
    best = max(recorder.evaluations, key=lambda report: (report.lddt_ca, report.step)).step
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        f"step_{step:08d}" for step in {6, 8, best}
    }


def test_the_target_ends_the_run(tmp_path):
    config = tiny_config(evaluation=EvaluationConfig(every_steps=2, target_lddt_ca=1e-6))
    summary, recorder = train(config, tmp_path)
    assert (summary.status, summary.steps) == ("success", 2)
    assert recorder.statuses == ["success"]
    # The weights that reached it are saved, and the same command then has no work left.
    rerun, _ = train(config, tmp_path)
    assert (rerun.status, rerun.steps, rerun.trained_steps) == ("success", 2, 0)


@pytest.mark.parametrize(
    "stop", [2, 4, 7], ids=["within an interval", "after an evaluation", "before the last step"]
)
def test_resumed_steps_are_those_of_the_whole_run(whole, tmp_path, stop):
    train(tiny_config(max_steps=stop), tmp_path)
    summary, recorder = train(tiny_config(), tmp_path)
    assert summary.resumed_from_step == stop and summary.steps == 8
    assert same_metrics(recorder.steps, whole[1].steps[stop:])
    assert weights(tmp_path) == weights(whole[2])


def same_metrics(found, expected):
    keys = (
        "step",
        "loss",
        "terms",
        "gradient_norm",
        "learning_rate",
        "num_recycling_iterations",
        "samples_seen",
    )
    return [[getattr(report, key) for key in keys] for report in found] == [
        [getattr(report, key) for key in keys] for report in expected
    ]


def weights(folder, step=8):
    """Return all tensors of a checkpoint as bytes."""
    snapshot = checkpoint(folder, step)
    return {
        f"{tensor} {name}": view.numpy().tobytes()
        for tensor in snapshot.tensors
        for name, view in snapshot.views(tensor).items()
    }


def checkpoint(folder, step=8):
    return load_checkpoint(folder / "checkpoints" / f"step_{step:08d}")


def test_a_killed_run_resumes_with_the_same_command(whole, tmp_path):
    killed = Ranks(tmp_path, 1, 8)
    killed.wait_for("step 5 ")
    killed.send_signal(0, signal.SIGKILL)
    assert [code for code, _ in killed.end(timeout=60)] == [-signal.SIGKILL]
    steps = [
        int(path.parent.name.removeprefix("step_"))
        for path in (tmp_path / "checkpoints").glob("*[0-9]/checkpoint.json")
    ]
    assert steps and max(steps) <= 6
    summary, recorder = train(tiny_config(), tmp_path)
    assert summary.resumed_from_step == max(steps)
    assert same_metrics(recorder.steps, whole[1].steps[max(steps) :])
    assert weights(tmp_path) == weights(whole[2])


def test_a_run_with_a_damaged_newest_checkpoint_resumes_from_an_earlier_one(whole, tmp_path):
    train(tiny_config(max_steps=4), tmp_path)
    newest = tmp_path / "checkpoints" / "step_00000004" / "__0_0.distcp"
    newest.write_bytes(newest.read_bytes()[:1000])
    summary, recorder = train(tiny_config(), tmp_path)
    assert summary.resumed_from_step == 2
    assert len(recorder.warnings) == 1 and "truncated" in recorder.warnings[0]
    assert same_metrics(recorder.steps, whole[1].steps[2:])


@pytest.mark.parametrize(
    ("change", "word"),
    [({"schedule": None}, "config_hash"), ({"seed": 4}, "seed=3, this one has 4")],
    ids=["other configuration", "other seed"],
)
def test_checkpoints_of_another_run_are_refused(tmp_path, change, word):
    train(tiny_config(max_steps=2), tmp_path)
    config, seed = tiny_config(), change.get("seed", 3)
    if "schedule" in change:
        config = dataclasses.replace(
            config, schedule=dataclasses.replace(config.schedule, base_learning_rate=0.5)
        )
    with pytest.raises(SetupError, match=word):
        train(config, tmp_path, seed=seed)


def test_a_sample_that_is_not_finite_stops_the_run_and_is_named(tmp_path):
    config = tiny_config(checkpoint=CheckpointConfig(every_steps=1))
    recorder = Recorder()
    trainer = Trainer(
        config,
        data=MemorySource(broken_at=2),
        paths=RunPaths(output_dir=tmp_path),
        seed=3,
        observer=recorder,
    )
    with pytest.raises(
        NonFiniteError, match=r"step 3 .*sample chain2 \(seed 2\): supervised_chi = nan"
    ):
        trainer.run()
    assert [report.step for report in recorder.steps] == [1, 2]
    assert recorder.names[-1] == "run_failed"
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "step_00000002"


def test_a_first_step_that_is_not_finite_stops_the_run(tmp_path):
    """There is no gradient norm of a step before."""
    trainer = Trainer(
        tiny_config(),
        data=MemorySource(broken_at=0),
        paths=RunPaths(output_dir=tmp_path),
        seed=3,
        observer=Recorder(),
    )
    with pytest.raises(NonFiniteError, match=r"step 1 .*sample chain0 .*learning rate is [^,]*\. "):
        trainer.run()


def test_a_diverged_run_names_its_learning_rate(tmp_path):
    schedule = ScheduleConfig(base_learning_rate=1e30)
    config = tiny_config(schedule=schedule, accumulation=2)
    trainer = Trainer(
        config,
        data=MemorySource(),
        paths=RunPaths(output_dir=tmp_path),
        seed=3,
        observer=Recorder(),
    )
    with pytest.raises(NonFiniteError, match=r"learning rate is 1e\+30, .*lower learning rate"):
        trainer.run()


def test_a_run_from_the_form_of_mlcommons_has_its_moments_and_an_empty_average(whole, tmp_path):
    content = mlcommons_form(
        checkpoint(whole[2]), learning_rate=1e-3, optimizer=tiny_config().optimizer
    )
    keys = ("iteration", "alphafold_state_dict", "optimizer_state_dict")
    torch.save({key: content[key] for key in keys}, tmp_path / "resumable.pt")
    config = tiny_config(
        max_steps=1, evaluation=EvaluationConfig(every_steps=1, target_lddt_ca=1.0)
    )
    summary, recorder = train(config, tmp_path / "out", init_checkpoint=tmp_path / "resumable.pt")
    assert (summary.steps, summary.resumed_from_step) == (1, 0)
    assert recorder.infos[0].init_checkpoint_sha256 is not None
    after = checkpoint(tmp_path / "out", step=1)
    assert (after.facts["num_steps"], after.facts["num_updates"]) == (9, 1)
    assert torch.equal(after.tensors["values"], after.tensors["average"])


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "sha256", "absent", "required"])
def test_a_wrong_initial_checkpoint_is_refused(tmp_path, whole, fault):
    state = {name: view.clone() for name, view in checkpoint(whole[2]).views("values").items()}
    name = next(iter(state))
    config, path = tiny_config(), tmp_path / "weights.pt"
    if fault == "missing":
        del state[name]
    elif fault == "extra":
        state["other"] = torch.zeros(1)
    elif fault == "shape":
        state[name] = torch.zeros(1, 1, 1)
    elif fault in ("sha256", "required"):
        config = dataclasses.replace(config, init_checkpoint_sha256="0" * 64)
    if fault not in ("absent", "required"):
        torch.save(state, path)
    word = {
        "missing": name,
        "extra": "other",
        "shape": name,
        "sha256": "0" * 64,
        "absent": "does not exist",
        "required": "--init-checkpoint",
    }[fault]
    with pytest.raises(ValueError, match=word):
        train(config, tmp_path / "out", init_checkpoint=None if fault == "required" else path)


def test_a_missing_gpu_is_a_clear_error(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="needs a GPU"):
        train(tiny_config(device="cuda"), tmp_path)


def test_two_ranks_of_one_sample_train_like_one_rank_of_two(tmp_path):
    two = finished(tmp_path / "two", 2, 10, local_batch_size=1)
    one, recorder = train(tiny_config(max_steps=10, local_batch_size=2), tmp_path / "one")
    steps = two.words("step")
    assert len(steps) == 10 and one.samples == 20
    for line, report in zip(steps, recorder.steps, strict=True):
        assert int(line[1]) == report.step
        assert float(line[3]) == pytest.approx(report.loss, abs=1e-5)
    # Three chains on two ranks: each is evaluated once, and scores are sorted by chain id.
    for line, report in zip(two.words("evaluation"), recorder.evaluations, strict=True):
        assert [float(score) for score in line[2:]] == pytest.approx(
            [c.lddt_ca for c in report.chains], abs=0.02
        )


def test_every_rank_ends_with_the_error_of_the_first(tmp_path):
    train(tiny_config(max_steps=2), tmp_path)
    # No launcher ends the second rank, so it must not wait for the first.
    for code, text in Ranks(tmp_path, 2, 10, local_batch_size=1).end(timeout=60):
        assert code == 1, text
        assert "SetupError" in text and "a global batch of 1; 2 data-parallel ranks" in text


def test_bf16_losses_are_close_to_those_of_fp32(whole, tmp_path):
    _, recorder = train(tiny_config(precision="bf16", max_steps=4), tmp_path)
    exact = whole[1].steps[:4]
    for report, reference in zip(recorder.steps, exact, strict=True):
        assert report.loss == pytest.approx(reference.loss, rel=0.05)
    # With the initial weights, the output of the trunk is zero in both precisions.
    assert recorder.steps[-1].loss != exact[-1].loss
    saved = checkpoint(tmp_path, step=4)
    assert all(tensor.dtype == torch.float32 for tensor in saved.tensors.values())


def test_recomputation_changes_no_loss(whole, tmp_path):
    _, recorder = train(tiny_config(recompute=True, max_steps=4), tmp_path)
    for report, reference in zip(recorder.steps, whole[1].steps[:4], strict=True):
        assert report.loss == pytest.approx(reference.loss, rel=1e-6)
        assert report.gradient_norm == pytest.approx(reference.gradient_norm, rel=1e-4)
