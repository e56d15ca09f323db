"""Checkpoints: whole or not there, found again, pruned, and damage passed over loudly."""

import json

import pytest
import torch

from openfold_opt.train.checkpoint import CheckpointConfig, CheckpointError, CheckpointStore, load_file, write_atomically


def store_with(tmp_path, steps, *, keep_last=2, keep_best=1, scores=()):
    store = CheckpointStore(tmp_path / "checkpoints", CheckpointConfig(keep_last=keep_last, keep_best=keep_best))
    for place, step in enumerate(steps):
        lddt_ca = scores[place] if scores else None
        store.save({"iteration": step, "x": torch.full((100,), step)}, step=step, samples_seen=step * 2, lddt_ca=lddt_ca)
    return store


def fail_on_warning(message):
    raise AssertionError(message)


def test_empty_store_has_nothing(tmp_path):
    assert CheckpointStore(tmp_path / "none", CheckpointConfig()).load_newest(warn=fail_on_warning) is None


def test_newest_comes_back(tmp_path):
    store = store_with(tmp_path, [3, 12])
    content, path = store.load_newest(warn=fail_on_warning)
    assert content["iteration"] == 12 and path == store.path(12)
    assert torch.equal(content["x"], torch.full((100,), 12))
    assert not list(store.folder.glob("*.tmp"))


def test_last_and_best_are_kept(tmp_path):
    store = store_with(tmp_path, [1, 2, 3, 4, 5], keep_last=2, keep_best=1, scores=[0.1, 0.9, 0.3, 0.2, 0.1])
    assert [record.step for record in store.records()] == [2, 4, 5]
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(
        f"step_{step:08d}.{end}" for step in (2, 4, 5) for end in ("pt", "json")
    )


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
def test_damaged_newest_falls_back_with_a_warning(tmp_path, damage, word):
    store = store_with(tmp_path, [3, 12])
    damage(store.path(12))
    warnings = []
    content, _ = store.load_newest(warn=warnings.append)
    assert content["iteration"] == 3
    assert len(warnings) == 1 and word in warnings[0] and "step_00000012" in warnings[0]


def test_damaged_description_falls_back_too(tmp_path):
    store = store_with(tmp_path, [3, 12])
    store.path(12).with_suffix(".json").write_text("{")
    warnings = []
    assert store.load_newest(warn=warnings.append)[0]["iteration"] == 3
    assert len(warnings) == 1


def test_all_damaged_is_an_error_that_says_what_to_do(tmp_path):
    store = store_with(tmp_path, [3, 12])
    for step in (3, 12):
        truncate(store.path(step))
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        store.load_newest(warn=lambda message: None)


def test_weights_without_description_are_not_a_checkpoint(tmp_path):
    store = store_with(tmp_path, [3, 12])
    store.path(12).with_suffix(".json").unlink()
    assert store.load_newest(warn=fail_on_warning)[0]["iteration"] == 3


def test_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def write_half(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, write_half)
    assert path.read_text() == "before"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_a_killed_writer_are_removed(tmp_path):
    store = store_with(tmp_path, [3])
    (store.folder / "step_00000009.pt.tmp").write_bytes(b"half")
    store.remove_temporaries()
    assert sorted(path.suffix for path in store.folder.iterdir()) == [".json", ".pt"]


def test_description_is_readable_by_people(tmp_path):
    store = store_with(tmp_path, [3], scores=[0.5])
    record = json.loads(store.path(3).with_suffix(".json").read_text())
    assert record["step"] == 3 and record["samples_seen"] == 6 and record["lddt_ca"] == 0.5


def test_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"these are no weights")
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        load_file(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list, expected a dict"):
        load_file(path)
