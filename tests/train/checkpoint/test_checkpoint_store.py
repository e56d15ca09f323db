"""Writing, reading and pruning of checkpoints, and the handling of damaged ones."""

import json

import pytest
import torch

from openfold_opt.model.published_weights.checkpoint_folder import Snapshot
from openfold_opt.train.checkpoint.background_writer import BackgroundWriter
from openfold_opt.train.checkpoint.checkpoint_store import (
    CheckpointConfig,
    CheckpointStore,
)
from openfold_opt.train.errors import CheckpointError


def snapshot(step, lddt_ca=None):
    return Snapshot(
        step=step,
        samples_seen=step * 2,
        lddt_ca=lddt_ca,
        facts={"global_batch_size": 2},
        layout={"x": (0, (10, 5)), "y": (64, (36,))},
        tensors={"values": torch.full((100,), float(step)), "exp_avg": torch.arange(100.0)},
    )


def store_with(tmp_path, steps, *, keep_last=2, keep_best=1, scores=()):
    store = CheckpointStore(
        tmp_path / "checkpoints", CheckpointConfig(keep_last=keep_last, keep_best=keep_best)
    )
    for index, step in enumerate(steps):
        lddt_ca = scores[index] if scores else None
        store.save(snapshot(step, lddt_ca))
    return store


def fail_on_warning(message):
    raise AssertionError(message)


def test_an_empty_store_has_no_checkpoint(tmp_path):
    assert (
        CheckpointStore(tmp_path / "none", CheckpointConfig()).load_newest(warn=fail_on_warning)
        is None
    )


def test_the_newest_checkpoint_is_loaded(tmp_path):
    store = store_with(tmp_path, [3, 12])
    newest = store.load_newest(warn=fail_on_warning)
    found, path = newest.snapshot, newest.path
    assert (found.step, found.samples_seen, found.facts) == (
        12,
        24,
        {"global_batch_size": 2},
    ) and path == store.path(12)
    assert torch.equal(found.tensors["values"], torch.full((100,), 12.0))
    assert torch.equal(found.views("exp_avg")["y"], torch.arange(64.0, 100.0))
    assert found.views("values")["x"].shape == (10, 5)
    assert not list(store.folder.glob("*.tmp"))


def test_last_and_best_checkpoints_are_kept(tmp_path):
    store = store_with(
        tmp_path, [1, 2, 3, 4, 5], keep_last=2, keep_best=1, scores=[0.1, 0.9, 0.3, 0.2, 0.1]
    )
    assert [record.step for record in store.records()] == [2, 4, 5]
    assert sorted(path.name for path in store.folder.iterdir()) == [
        f"step_{step:08d}" for step in (2, 4, 5)
    ]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "word"),
    [(truncate, "truncated"), (flip_byte, "damaged"), (lambda path: path.unlink(), "missing")],
    ids=["truncated", "flipped byte", "missing"],
)
def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(tmp_path, damage, word):
    store = store_with(tmp_path, [3, 12])
    damage(store.path(12) / "__0_0.distcp")
    warnings = []
    found = store.load_newest(warn=warnings.append).snapshot
    assert found.step == 3
    assert len(warnings) == 1 and word in warnings[0] and "step_00000012" in warnings[0]


def test_a_checkpoint_with_a_damaged_description_is_skipped(tmp_path):
    store = store_with(tmp_path, [3, 12])
    (store.path(12) / "checkpoint.json").write_text("{")
    warnings = []
    assert store.load_newest(warn=warnings.append).snapshot.step == 3
    assert len(warnings) == 1


def test_a_new_checkpoint_replaces_damaged_ones_of_later_steps(tmp_path):
    """A run that resumed from step 3 can save step 5 despite damaged steps 12 and 13."""
    store = store_with(tmp_path, [3, 12, 13], keep_last=3, keep_best=0)
    for step in (12, 13):
        truncate(store.path(step) / "__0_0.distcp")
    store.save(snapshot(5))
    assert [record.step for record in store.records()] == [3, 5]


def test_an_error_is_raised_if_all_checkpoints_are_damaged(tmp_path):
    store = store_with(tmp_path, [3, 12])
    for step in (3, 12):
        truncate(store.path(step) / "__0_0.distcp")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        store.load_newest(warn=lambda message: None)


@pytest.mark.parametrize("phase", ["while writing", "before publishing"])
def test_a_failed_write_keeps_earlier_checkpoints(tmp_path, monkeypatch, phase):
    store = store_with(tmp_path, [3])

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    if phase == "while writing":
        monkeypatch.setattr("torch.distributed.checkpoint.save", fail)
    with pytest.raises(OSError, match="cannot write checkpoint .*No space left"):
        store.save(snapshot(12), before_rename=fail)
    assert [path.name for path in store.folder.iterdir()] == ["step_00000003"]


def test_the_background_writer_calls_back_before_and_after_the_rename(tmp_path):
    events = []
    store = CheckpointStore(tmp_path, CheckpointConfig())
    writer = BackgroundWriter(
        store,
        before_rename=lambda step: events.append(("written", step, store.path(step).exists())),
        after_rename=lambda path, step: events.append(("saved", step, path.exists())),
    )
    for step in (3, 12):
        writer.begin(lambda step=step: snapshot(step))
    writer.finish()
    assert events == [
        ("written", 3, False),
        ("saved", 3, True),
        ("written", 12, False),
        ("saved", 12, True),
    ]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), MemoryError("No space left in memory")]
)
def test_the_background_writer_raises_an_error_once(tmp_path, error):
    def fail(step):
        raise error

    writer = BackgroundWriter(
        CheckpointStore(tmp_path, CheckpointConfig()), before_rename=fail, after_rename=fail
    )
    writer.begin(lambda: snapshot(3))
    with pytest.raises(OSError, match="No space left"):
        writer.begin(lambda: snapshot(4))
    writer.finish()


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path):
    store = store_with(tmp_path, [3])
    (store.folder / "step_00000009.tmp").mkdir()
    (store.folder / "step_00000009.tmp" / "__0_0.distcp").write_bytes(b"half")
    assert [record.step for record in store.records()] == [3]
    store.remove_temporaries()
    assert [path.name for path in store.folder.iterdir()] == ["step_00000003"]


def test_the_description_has_step_samples_and_score(tmp_path):
    store = store_with(tmp_path, [3], scores=[0.5])
    record = json.loads((store.path(3) / "checkpoint.json").read_text())
    assert record["step"] == 3 and record["samples_seen"] == 6 and record["lddt_ca"] == 0.5
