"""Runs on several ranks.

DAP and data parallelism give the results of one rank, runs resume with other numbers of ranks, and
separate ranks evaluate.
"""

import pytest

from openfold_opt.train.checkpoint.checkpoint_store import load_checkpoint
from tests.support.run_ranks import Ranks, finished

DAP_2 = {"parallel": {"dap_size": 2}}


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Return the folder of the run of one rank."""
    return tmp_path_factory.mktemp("single")


@pytest.fixture(scope="module")
def four_samples(single):
    """Train on one rank with four samples per step, in two micro-batches."""
    return finished(single, 1, 10, local_batch_size=2, accumulation=2)


def assert_same(found: dict[int, float], expected: dict[int, float], first: int = 1) -> None:
    assert sorted(found) == list(range(first, max(expected) + 1))
    for step, loss in found.items():
        assert loss == pytest.approx(expected[step], abs=1e-5), step


def test_two_data_by_two_dap_ranks_train_like_one(four_samples, single, tmp_path):
    ranks = finished(tmp_path, 4, 10, local_batch_size=2, **DAP_2)
    assert_same(ranks.losses(), four_samples.losses())
    found, expected = (
        load_checkpoint(folder / "checkpoints" / "step_00000010").tensors["values"]
        for folder in (tmp_path, single)
    )
    assert (found - expected).norm() < 1e-4 * expected.norm()
    for found, expected in zip(
        ranks.words("evaluation"), four_samples.words("evaluation"), strict=True
    ):
        assert [float(x) for x in found[2:]] == pytest.approx(
            [float(x) for x in expected[2:]], abs=1e-3
        )
    report = " ".join(line for line in ranks.lines if line.startswith("preparing"))
    assert "4 ranks on 1 hosts, backend gloo" in report and "data 2 x dap 2" in report


def test_a_run_resumes_with_fewer_ranks_and_with_another_dap_size(four_samples, tmp_path):
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


def test_ranks_that_do_not_divide_the_batch_are_refused(tmp_path):
    finished(tmp_path, 2, 2, local_batch_size=1)
    for code, text in Ranks(tmp_path, 3, 4, local_batch_size=1).end():
        assert code == 1
        assert "a global batch of 2; 3 data-parallel ranks" in text
        assert "use another number of ranks" in text


@pytest.mark.parametrize(
    ("num_ranks", "parallel"),
    [(2, {"dap_size": 2}), (3, {"num_evaluation_ranks": 2})],
    ids=["inline", "remote"],
)
def test_long_chains_are_evaluated_jointly_by_a_group(four_samples, tmp_path, num_ranks, parallel):
    ranks = finished(
        tmp_path,
        num_ranks,
        4,
        local_batch_size=4,
        parallel=parallel | {"evaluation_dap_min_length": 7},
    )
    (evaluation,), expected = ranks.words("evaluation"), four_samples.words("evaluation")[0]
    assert [float(x) for x in evaluation[2:]] == pytest.approx(
        [float(x) for x in expected[2:]], abs=1e-3
    )


def test_evaluation_ranks_get_the_same_scores(four_samples, tmp_path):
    """There are two training ranks and two groups of one evaluation rank.

    Every evaluation is made and reported, in any order.
    """
    parallel = {"num_evaluation_ranks": 2, "evaluation_groups": 2}
    ranks = finished(
        tmp_path, 4, 10, local_batch_size=2, parallel=parallel, evaluation={"every_steps": 2}
    )
    assert_same(ranks.losses(), four_samples.losses())
    by_step = {int(words[1]): [float(x) for x in words[2:]] for words in ranks.words("evaluation")}
    assert sorted(by_step) == [2, 4, 6, 8, 10]
    for words in four_samples.words("evaluation"):
        assert by_step[int(words[1])] == pytest.approx([float(x) for x in words[2:]], abs=1e-3)
    assert ranks.words("summary") == [["summary", "aborted", "10", "waits", "0"]]


def test_remote_scores_are_bit_identical_to_inline_scores(tmp_path):
    """One rank trains and another evaluates, compared with one rank that does both."""
    inline = finished(tmp_path / "inline", 1, 8)
    remote = finished(tmp_path / "remote", 2, 8, parallel={"num_evaluation_ranks": 1})
    assert remote.losses() == inline.losses()
    assert sorted(remote.words("evaluation")) == sorted(inline.words("evaluation"))


def test_training_waits_for_a_full_evaluation_queue_and_waits_are_counted(tmp_path):
    """An evaluation takes 3 x 0.4 s, so the queue is full for the second and third snapshot."""
    parallel = {"num_evaluation_ranks": 1, "evaluation_queue": 1}
    ranks = finished(
        tmp_path, 2, 6, parallel=parallel, evaluation={"every_steps": 2}, evaluation_seconds=0.4
    )
    assert ranks.words("summary") == [["summary", "aborted", "6", "waits", "2"]]
    assert len([line for line in ranks.lines if line.startswith("warning training waited")]) == 2
    assert len(ranks.words("evaluation")) == 3


def test_no_step_waits_while_the_queue_has_room(tmp_path):
    parallel = {"num_evaluation_ranks": 1, "evaluation_queue": 4}
    ranks = finished(
        tmp_path, 2, 8, parallel=parallel, evaluation={"every_steps": 2}, evaluation_seconds=0.8
    )
    first_words = [line.split()[:2] for line in ranks.lines]
    # Steps and the request for the next evaluation come before the first result.
    assert (
        first_words.index(["evaluation", "2"])
        > first_words.index(["evaluation_start", "4"])
        > first_words.index(["step", "3"])
    )
    assert ranks.words("summary") == [["summary", "aborted", "8", "waits", "0"]]


def test_the_first_evaluation_that_meets_the_target_ends_the_run(tmp_path):
    """It is reported between two steps. Evaluations in progress are dropped, and all ranks end."""
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
    ((_, status, steps, *_),) = ranks.words("summary")
    assert status == "success" and 2 <= int(steps) < 200
    again = finished(
        tmp_path, 3, 200, parallel=parallel, evaluation={"every_steps": 2, "target_lddt_ca": 1e-6}
    )
    assert again.words("summary")[0][1] == "success"
