"""Several ranks: DAP and data parallelizm train like one rank, runs go on with other numbers of ranks, evaluation by ranks of its own."""

import pytest

from openfold_opt.train.checkpoint import load_checkpoint
from tests.train.ranks import Ranks, finished

DAP_2 = {"parallel": {"dap_size": 2}}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Where one rank trained on four samples a step, in two micro-batches."""
    return tmp_path_factory.mktemp("alone")


@pytest.fixture(scope="module")
def four_samples(alone):
    return finished(alone, 1, 10, local_batch_size=2, accumulation=2)


def assert_same(found: dict[int, float], expected: dict[int, float], first: int = 1) -> None:
    assert sorted(found) == list(range(first, max(expected) + 1))
    for step, loss in found.items():
        assert loss == pytest.approx(expected[step], abs=1e-5), step


def test_two_data_by_two_dap_ranks_train_like_one(four_samples, alone, tmp_path):
    ranks = finished(tmp_path, 4, 10, local_batch_size=2, **DAP_2)
    assert_same(ranks.losses(), four_samples.losses())
    found, expected = (
        load_checkpoint(folder / "checkpoints" / "step_00000010").tensors["values"]
        for folder in (tmp_path, alone)
    )
    assert (found - expected).norm() < 1e-4 * expected.norm()
    for found, expected in zip(
        ranks.said("evaluation"), four_samples.said("evaluation"), strict=True
    ):
        assert [float(x) for x in found[2:]] == pytest.approx(
            [float(x) for x in expected[2:]], abs=1e-3
        )
    report = " ".join(line for line in ranks.lines if line.startswith("preparing"))
    assert "4 ranks on 1 hosts, backend gloo" in report and "data 2 x dap 2" in report


def test_a_run_goes_on_with_fewer_ranks_and_with_another_dap_size(four_samples, tmp_path):
    finished(tmp_path, 4, 4, local_batch_size=1)
    two = finished(tmp_path, 2, 7, local_batch_size=1)
    assert_same(
        two.losses(),
        {step: loss for step, loss in four_samples.losses().items() if step <= 7},
        first=5,
    )
    assert any("accumulation 2: the global batch of" in line for line in two.lines)
    dap = finished(tmp_path, 2, 10, local_batch_size=1, **DAP_2)
    assert_same(dap.losses(), four_samples.losses(), first=8)


def test_ranks_that_cannot_make_the_batch_are_refused(tmp_path):
    finished(tmp_path, 2, 2, local_batch_size=1)
    for code, text in Ranks(tmp_path, 3, 4, local_batch_size=1).end():
        assert (
            code == 1
            and "a global batch of 2; 3 ranks" in text
            and "start another number of ranks" in text
        )


@pytest.mark.parametrize(
    ("num_ranks", "parallel"),
    [(2, {"dap_size": 2}), (3, {"num_evaluation_ranks": 2})],
    ids=["dap", "elsewhere"],
)
def test_long_chains_are_evaluated_by_a_group_together(four_samples, tmp_path, num_ranks, parallel):
    ranks = finished(
        tmp_path,
        num_ranks,
        4,
        local_batch_size=4,
        parallel=parallel | {"evaluation_dap_min_length": 7},
    )
    (found,), expected = ranks.said("evaluation"), four_samples.said("evaluation")[0]
    assert [float(x) for x in found[2:]] == pytest.approx(
        [float(x) for x in expected[2:]], abs=1e-3
    )


def test_ranks_of_their_own_evaluate_to_the_same_scores(four_samples, tmp_path):
    """Two training ranks, and two groups of one evaluation rank; every evaluation is made and told, in whatever order."""
    parallel = {"num_evaluation_ranks": 2, "evaluation_groups": 2}
    ranks = finished(
        tmp_path, 4, 10, local_batch_size=2, parallel=parallel, evaluation={"every_steps": 2}
    )
    assert_same(ranks.losses(), four_samples.losses())
    by_step = {int(words[1]): [float(x) for x in words[2:]] for words in ranks.said("evaluation")}
    assert sorted(by_step) == [2, 4, 6, 8, 10]
    for words in four_samples.said("evaluation"):
        assert by_step[int(words[1])] == pytest.approx([float(x) for x in words[2:]], abs=1e-3)
    assert ranks.said("summary") == [["summary", "aborted", "10", "waits", "0"]]


def test_scores_elsewhere_are_those_of_the_same_weights_to_the_last_bit(tmp_path):
    """One rank trains, another evaluates; against one that does both. The training is bit for bit the same, so the weights are."""
    alone = finished(tmp_path / "alone", 1, 8)
    beside = finished(tmp_path / "beside", 2, 8, parallel={"num_evaluation_ranks": 1})
    assert beside.losses() == alone.losses()
    assert sorted(beside.said("evaluation")) == sorted(alone.said("evaluation"))


def test_training_goes_on_until_the_queue_is_full_and_waits_are_counted(tmp_path):
    """Three chains of 0.4 s each: the second snapshot finds the queue full, the third too."""
    parallel = {"num_evaluation_ranks": 1, "evaluation_queue": 1}
    ranks = finished(
        tmp_path, 2, 6, parallel=parallel, evaluation={"every_steps": 2}, evaluation_seconds=0.4
    )
    assert ranks.said("summary") == [["summary", "aborted", "6", "waits", "2"]]
    assert len([line for line in ranks.lines if line.startswith("warning training waited")]) == 2
    assert len(ranks.said("evaluation")) == 3


def test_no_step_waits_while_the_queue_has_room(tmp_path):
    parallel = {"num_evaluation_ranks": 1, "evaluation_queue": 4}
    ranks = finished(
        tmp_path, 2, 8, parallel=parallel, evaluation={"every_steps": 2}, evaluation_seconds=0.8
    )
    first_words = [line.split()[:2] for line in ranks.lines]
    # more steps are made, and the next evaluation is asked for, before the first result is there
    assert (
        first_words.index(["evaluation", "2"])
        > first_words.index(["evaluation_start", "4"])
        > first_words.index(["step", "3"])
    )
    assert ranks.said("summary") == [["summary", "aborted", "8", "waits", "0"]]


def test_the_first_evaluation_that_meets_the_target_stops_the_clock(tmp_path):
    """It is told between two steps; those after it that are still under way are dropped, and all ranks end."""
    parallel = {"num_evaluation_ranks": 1}
    ranks = finished(
        tmp_path,
        3,
        200,
        parallel=parallel,
        evaluation={"every_steps": 2, "target_lddt_ca": 1e-6},
        step_seconds=0.05,
        checkpoint={"every_steps": 0},
    )
    events = [
        line.split()[0]
        for line in ranks.lines
        if line.split()[0] in ("evaluation", "run_stop", "summary")
    ]
    assert events == ["evaluation", "run_stop", "summary"]
    ((_, status, steps, *_),) = ranks.said("summary")
    assert status == "success" and 2 <= int(steps) < 200
    again = finished(
        tmp_path, 3, 200, parallel=parallel, evaluation={"every_steps": 2, "target_lddt_ca": 1e-6}
    )
    assert again.said("summary")[0][1] == "success"
