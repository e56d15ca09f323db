"""Runs with several phases: one job, and jobs that are joined by a checkpoint."""

import pytest
import torch

from openfold_opt.train.checkpoint.checkpoint_store import load_checkpoint
from tests.support.run_ranks import Ranks, finished

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
    for num_ranks, dap_size in ((1, 1), (2, 1), (4, 1), (4, 2)):
        folder = tmp_path / f"joined_{num_ranks}_{dap_size}"
        changed = settings(dap_size=dap_size, **change)
        _, first = outputs(folder, 2, phase="first", **changed)
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
