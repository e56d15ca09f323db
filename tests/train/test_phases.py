"""Runs with several phases: one job, and jobs that are joined by a checkpoint."""

import shutil
import signal

import pytest
import torch

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.triton import launching
from openfold_opt.loader.sampler import TrainingSampler
from openfold_opt.protein.index import ShardIndex
from openfold_opt.train import build_run
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig, load_checkpoint
from openfold_opt.train.dataset_split import DataSelectionConfig, select_training
from openfold_opt.train.errors import PhaseConditionError, SetupError
from openfold_opt.train.evaluation.evaluator import EvaluationConfig
from openfold_opt.train.phase_config import PhaseConfig
from openfold_opt.train.preemption import PreemptedError, StopRequest
from tests.support.recording_observer import Recorder, train
from tests.support.run_ranks import Ranks
from tests.support.synthetic_samples import tiny_config
from tests.support.synthetic_shards import write_synthetic_shards

TENSORS = ("values", "exp_avg", "exp_avg_sq", "average")

BATCH = {"global_batch_size": 4}
CROP = {"data": {"crop_size": 12}}
"""Changes at the boundary."""


def phases(*, first=None, **second):
    """Return two phases of 4 and 5 steps. The boundary is not at an evaluation of every 3 steps."""
    return [
        {"name": "first", "steps": 4, **(first or {})},
        {"name": "second", "steps": 5, **second},
    ]


def settings(*, first=None, **second):
    return {
        "phases": phases(first=first, **second),
        "global_batch_size": 2,
        "evaluation": {"every_steps": 3},
        "checkpoint": {"every_steps": 1, "keep_last": 20},
    }


def checkpoint(folder, step):
    return load_checkpoint(folder / "checkpoints" / f"step_{step:08d}")


def assert_same_bits(found, expected, *, step):
    found, expected = checkpoint(found, step), checkpoint(expected, step)
    assert found.facts == expected.facts
    for name in TENSORS:
        assert torch.equal(found.tensors[name], expected.tensors[name]), name


def samples(*results):
    """Return step -> sorted samples of that step, from the outputs of all ranks of some jobs."""
    by_step = {}
    for output in results:
        for line in output.splitlines():
            word, *rest = line.split()[:4] or [""]
            if word == "sample":
                by_step.setdefault(int(rest[0]), []).append(tuple(rest[1:]))
    return {step: sorted(found) for step, found in by_step.items()}


def outputs(folder, num_ranks, **changes):
    """Run to the end. Return the losses by step, and the outputs of all ranks."""
    ranks = Ranks(folder, num_ranks, 9, **changes)
    results = ranks.end()
    assert [code for code, _ in results] == [0] * num_ranks, results[0][1][-3000:]
    return ranks.losses(), [text for _, text in results]


@pytest.mark.parametrize(
    ("num_ranks", "change"),
    [(1, BATCH), (1, CROP), (2, {"dap_size": 2} | BATCH | CROP)],
    ids=["batch", "crop", "dap, batch and crop"],
)
def test_two_jobs_have_the_bits_of_one(tmp_path, num_ranks, change):
    one, _ = outputs(tmp_path / "one", num_ranks, **settings(**change))
    joined = tmp_path / "joined"
    first, _ = outputs(joined, num_ranks, phase="first", **settings(**change))
    second, _ = outputs(joined, num_ranks, phase="2", **settings(**change))
    assert sorted(first) == [1, 2, 3, 4] and sorted(second) == [5, 6, 7, 8, 9]
    assert first | second == one
    for step in (4, 5, 9):
        assert_same_bits(joined, tmp_path / "one", step=step)
    assert checkpoint(joined, 9).samples_seen == 4 * 2 + 5 * change.get("global_batch_size", 2)


def test_a_second_job_on_other_ranks_has_the_same_samples(tmp_path):
    change = {**BATCH, **CROP}
    one, expected = outputs(tmp_path / "one", 2, **settings(dap_size=2, **change))
    expected = samples(expected[0])  # Both ranks of a DAP group have the same samples.
    # The ranks of a phase are no part of the identity of a run.
    _, first = outputs(tmp_path / "first", 2, phase="first", **settings(**change))
    for num_ranks, dap_size in ((1, 1), (4, 1), (4, 2)):
        folder = tmp_path / f"joined_{num_ranks}_{dap_size}"
        shutil.copytree(tmp_path / "first", folder)
        changed = settings(dap_size=dap_size, **change)
        losses, second = outputs(folder, num_ranks, phase="second", **changed)
        second = second[::dap_size]
        found = samples(*first, *second)
        assert {step: found[step] for step in range(5, 10)} == {
            step: expected[step] for step in range(5, 10)
        }
        for step in range(5, 9):
            assert losses[step] == pytest.approx(one[step], rel=1e-4), step
        weights, reference = (
            checkpoint(run, 5).tensors["values"] for run in (folder, tmp_path / "one")
        )
        assert (weights - reference).abs().max() < 1e-5


def tiny_phases(*phases, **changes):
    """Return the tiny configuration with phases, for a run in this process."""
    values = {
        "phases": tuple(PhaseConfig(**phase) for phase in phases),
        "global_batch_size": 2,
        "local_batch_size": 2,
        "evaluation": EvaluationConfig(every_steps=2, target_lddt_ca=1.0),
        "checkpoint": CheckpointConfig(every_steps=2, keep_last=20),
    }
    return tiny_config(**(values | changes))


FIRST, SECOND = {"name": "first", "steps": 3}, {"name": "second", "steps": 3, **BATCH}


def test_events_of_two_phases(tmp_path):
    summary, recorder = train(tiny_phases(FIRST, SECOND), tmp_path)
    assert (summary.status, summary.steps, summary.samples) == ("success", 6, 18)
    names = [name for name in recorder.names if name != "preparing" and "checkpoint" not in name]
    assert names[:5] == ["init_start", "init_stop", "run_start", "data_ready", "phase_start"]
    assert names[-3:] == ["run_stop", "phase_stop", "run_end"]
    assert names.count("phase_start") == names.count("phase_stop") == 2
    assert [report.step for report in recorder.evaluations] == [2, 3, 4, 6]
    assert [report.samples_at_end for report in recorder.evaluations] == [4, 6, 10, 18]
    assert [report.samples_seen for report in recorder.steps] == [2, 4, 6, 10, 14, 18]
    start, stop, *_ = recorder.phases
    assert (start.steps_before, start.last_step, start.count) == (0, 3, 2)
    assert stop.best_lddt_ca == max(report.lddt_ca for report in recorder.evaluations[:2])
    assert recorder.phases[2].info.global_batch_size == 4
    assert recorder.phases[2].info.config.accumulation == 2
    assert summary.samples_per_second > 0 and summary.trained_samples == 18


def test_a_score_ends_a_phase_and_the_next_one_has_the_planned_samples(tmp_path):
    config = tiny_phases(FIRST | {"steps": 100, "end_lddt_ca": 1e-6}, SECOND, max_steps=103)
    summary, recorder = train(config, tmp_path)
    assert (summary.status, summary.steps) == ("success", 5)
    assert recorder.phases[2].steps_before == 2
    assert [report.samples_seen for report in recorder.steps] == [2, 4, 8, 12, 16]


def test_a_failed_condition_stops_the_run_with_a_checkpoint(tmp_path):
    config = tiny_phases(FIRST | {"required_lddt_ca": 0.99}, SECOND)
    message = r"phase first \(1 of 2\): the best lDDT-Ca after step 3 is .* at least 0.99 by step 3"
    with pytest.raises(PhaseConditionError, match=message):
        train(config, tmp_path)
    assert checkpoint(tmp_path, 3).facts["phase"]["index"] == 0
    with pytest.raises(PhaseConditionError, match=message):
        train(config, tmp_path)
    lower = tiny_phases(FIRST | {"required_lddt_ca": 1e-6}, SECOND)
    summary, recorder = train(lower, tmp_path)
    assert (summary.status, summary.trained_steps) == ("success", 3)
    assert [report.step for report in recorder.steps] == [4, 5, 6]


def test_a_run_resumes_in_its_phase(tmp_path):
    config = tiny_phases(FIRST, SECOND)
    _, whole = train(config, tmp_path / "whole")
    for stop in (2, 3, 5):
        folder = tmp_path / str(stop)
        summary, _ = train(tiny_phases(FIRST, SECOND, max_steps=stop), folder)
        assert (summary.status, summary.steps) == ("aborted", stop)
        _, recorder = train(config, folder)
        assert [report.loss for report in recorder.steps] == [
            report.loss for report in whole.steps[stop:]
        ]
        assert_same_bits(folder, tmp_path / "whole", step=6)


class DamagingRecorder(Recorder):
    """Damages the checkpoint of a step once, right after it was saved."""

    def __init__(self, step):
        super().__init__()
        self._damaged = step

    def checkpoint_saved(self, path, *, step):
        if step == self._damaged:
            self._damaged = None
            file = next(path.glob("*.distcp"))
            file.write_bytes(file.read_bytes()[:-1])


def test_a_phase_is_repeated_if_its_last_checkpoint_is_damaged(tmp_path):
    _, whole = train(tiny_phases(FIRST, SECOND), tmp_path / "whole")
    recorder = DamagingRecorder(3)
    summary, _ = train(tiny_phases(FIRST, SECOND), tmp_path / "run", recorder=recorder)
    assert (summary.status, summary.steps) == ("success", 6)
    assert [report.step for report in recorder.steps] == [1, 2, 3, 3, 4, 5, 6]
    assert len(recorder.warnings) == 1 and "falling back" in recorder.warnings[0]
    assert_same_bits(tmp_path / "run", tmp_path / "whole", step=6)
    assert recorder.steps[-1].loss == whole.steps[-1].loss


def test_a_phase_that_max_steps_cuts_is_not_reported_as_complete(tmp_path):
    summary, recorder = train(tiny_phases(FIRST, SECOND, max_steps=2), tmp_path)
    assert summary.status == "aborted"
    assert recorder.names.count("phase_start") == 1 and "phase_stop" not in recorder.names


class StoppingRecorder(Recorder):
    """Requests a stop at the end of the first phase, when the training loop has ended."""

    def __init__(self, stop_request):
        super().__init__()
        self._stop_request = stop_request

    def phase_stop(self, report):
        self._stop_request.is_raised = True


def test_a_stop_request_at_a_boundary_ends_the_process_there(tmp_path):
    stop_request = StopRequest()
    recorder = StoppingRecorder(stop_request)
    config = tiny_phases(FIRST, SECOND)
    with pytest.raises(PreemptedError, match=r"at the end of phase first \(1 of 2\)"):
        train(config, tmp_path, recorder=recorder, stop_request=stop_request)
    assert recorder.names.count("phase_start") == 1
    summary, recorder = train(config, tmp_path)
    assert (summary.status, [report.step for report in recorder.steps]) == ("success", [4, 5, 6])


def test_only_the_requested_phase_is_trained(tmp_path):
    config = tiny_phases(FIRST, SECOND)
    with pytest.raises(SetupError, match=r"phase second \(2 of 2\) cannot start: the run is in"):
        train(config, tmp_path, phase="second")
    summary, recorder = train(config, tmp_path, phase="first")
    assert (summary.status, summary.steps) == ("phase complete", 3)
    assert recorder.statuses == ["phase complete"]
    with pytest.raises(SetupError, match="first .* is complete: the run is in phase second .* 3"):
        train(config, tmp_path, phase="first")
    summary, recorder = train(config, tmp_path, phase="second")
    assert (summary.status, summary.steps, summary.trained_samples) == ("success", 6, 12)
    assert recorder.statuses == ["success"]


def test_a_checkpoint_of_other_phases_is_refused(tmp_path):
    train(tiny_phases(FIRST, SECOND), tmp_path, phase="first")
    with pytest.raises(SetupError, match="is of another preset or of one with other phases"):
        train(tiny_phases(FIRST), tmp_path)
    with pytest.raises(SetupError, match="is of another preset or of one with other phases"):
        train(tiny_phases(FIRST, SECOND | {"steps": 4}), tmp_path)


def test_ranks_that_do_not_fit_a_later_phase_are_refused_at_once(tmp_path):
    config = tiny_phases(FIRST, SECOND | {"dap_size": 2})
    message = r"phase second \(2 of 2\) does not fit 1 ranks.*With --phase"
    with pytest.raises(SetupError, match=message):
        train(config, tmp_path)
    summary, _ = train(config, tmp_path, phase="first")
    assert summary.status == "phase complete"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": KernelConfig(transition="triton")}, "no GPU"),
        ({"recompute": "auto"}, "no room"),
    ],
    ids=["kernels", "memory"],
)
def test_a_later_phase_that_cannot_run_is_refused_at_once(tmp_path, monkeypatch, change, message):
    def plan(config, device):
        if config.recompute == "auto":
            raise ValueError("no room")
        return 0

    monkeypatch.setattr(build_run, "plan_recomputation", plan)
    # The Triton kernels of the tests run in the interpreter.
    monkeypatch.setattr(launching, "unsupported_reason", lambda *args, **kwargs: "no GPU")
    config = tiny_phases(FIRST, SECOND | change)
    expected = rf"phase second \(2 of 2\) could not start later: .*{message}"
    with pytest.raises(SetupError, match=expected):
        train(config, tmp_path)
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())
    summary, _ = train(config, tmp_path, phase="first")
    assert summary.status == "phase complete"


def test_separate_evaluation_ranks_may_train_in_the_next_phase(tmp_path):
    changed = settings(first={"num_evaluation_ranks": 1}, **BATCH)
    with_ranks, outputs_of_ranks = outputs(tmp_path / "ranks", 2, **changed)
    alone, expected = outputs(tmp_path / "alone", 1, **settings(**BATCH))
    assert samples(*outputs_of_ranks) == samples(*expected)
    assert with_ranks == pytest.approx(alone, rel=1e-4)


def test_a_preempted_phase_continues(tmp_path):
    changed = settings(dap_size=2, **BATCH)
    one, _ = outputs(tmp_path / "one", 2, **changed)
    ranks = Ranks(tmp_path / "two", 2, 9, **changed, step_seconds=0.2)
    ranks.wait_for("step 6")
    ranks.send_signal(1, signal.SIGUSR1)
    assert [code for code, _ in ranks.end()] == [75, 75]
    resumed, _ = outputs(tmp_path / "two", 2, **changed)
    assert ranks.losses() | resumed == one
    assert_same_bits(tmp_path / "two", tmp_path / "one", step=9)


SELECTION = {
    "validation_rule": "release_dates",
    "validation_min_date": "2021-11-20",
    "validation_max_date": "2021-12-11",
}


def test_samples_out_of_order_are_those_of_the_phase(tmp_path):
    """The boundary checkpoint is resumed on another number of data ranks."""
    write_synthetic_shards(tmp_path / "raw", tmp_path / "shards", num_chains=30)
    changed = settings(steps=4, **BATCH) | {
        "data_dir": str(tmp_path / "shards"),
        "loader": {"window": 6, "num_workers": 2, "prefetch_per_worker": 3},
        "selection": SELECTION,
        "evaluation": {"every_steps": 20},
    }
    _, first = outputs(tmp_path / "run", 2, phase="first", **changed)
    _, second = outputs(tmp_path / "run", 1, phase="second", **changed)
    index = ShardIndex.load(tmp_path / "shards")
    chains = select_training(index, DataSelectionConfig(**SELECTION))
    sampler = TrainingSampler(
        [chain.chain_id for chain in chains], [chain.weight for chain in chains], seed=3
    )
    for results, numbers in ((first, range(8)), (second, range(8, 24))):
        found = [sample for step in samples(*results).values() for sample in step]
        planned = [sampler.sample(number) for number in numbers]
        assert sorted(found) == sorted((one.chain_id, str(one.seed)) for one in planned)
