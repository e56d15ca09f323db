"""Fine-tuning: a new run that starts from the checkpoint of another run."""

import json

import pytest
import torch

from openfold_opt.model.weights import file_sha256
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.train.build_run import RunPaths
from openfold_opt.train.checkpoint import load_checkpoint
from openfold_opt.train.run_state import published_form
from openfold_opt.train.trainer import SetupError, Trainer
from tests.train.recorder import Recorder
from tests.train.synthetic import MemorySource, tiny_config


class Listener(Recorder):
    """Also keeps the lines of the set-up."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def preparing(self, what):
        self.lines.append(what)

    @property
    def info(self):
        return self.infos[0]


def train(config, folder, **paths):
    listener = Listener()
    trainer = Trainer(
        config,
        data=MemorySource(),
        paths=RunPaths(output_dir=folder, **paths),
        seed=3,
        observer=listener,
        launch=LaunchInfo(),
    )
    trainer.run()
    return listener


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A run of eight steps, and its last checkpoint."""
    folder = tmp_path_factory.mktemp("parent")
    train(tiny_config(), folder)
    return folder, sorted((folder / "checkpoints").iterdir())[-1]


def first_loss(folder, **paths):
    return train(tiny_config(max_steps=1), folder, **paths).steps[0].loss


def test_the_averaged_weights_of_a_run_are_the_default(parent, tmp_path):
    run_dir, checkpoint = parent
    listener = train(tiny_config(max_steps=1), tmp_path / "new", init_checkpoint=run_dir)
    (line,) = [line for line in listener.lines if line.startswith("initial weights")]
    count, tensors = listener.info.num_parameters, listener.info.num_tensors
    assert line.startswith(
        f"initial weights: {count:,} parameters in {tensors} tensors, the averaged ones of "
        f"{checkpoint} (step 8, lDDT-Ca "
    )
    assert listener.info.init_checkpoint_sha256 == file_sha256(checkpoint / "checkpoint.json")
    # the same weights as a plain file give the same loss to the last bit
    form = published_form(
        load_checkpoint(checkpoint), learning_rate=1e-3, optimizer=tiny_config().optimizer
    )
    losses = {"fresh": first_loss(tmp_path / "fresh")}
    for name, key in (
        ("average", "weight_average_state_dict"),
        ("trained", "alphafold_state_dict"),
    ):
        torch.save(form[key], tmp_path / f"{name}.pt")
        from_file = first_loss(tmp_path / f"file_{name}", init_checkpoint=tmp_path / f"{name}.pt")
        found = first_loss(tmp_path / f"run_{name}", init_checkpoint=run_dir, init_weights=name)
        assert found == from_file
        losses[name] = found
    assert losses["average"] == listener.steps[0].loss
    assert len(set(losses.values())) == 3


def test_the_parent_is_not_changed_and_the_new_run_starts_at_step_one(parent, tmp_path):
    run_dir, checkpoint = parent
    before = (checkpoint / "checkpoint.json").read_bytes()
    listener = train(tiny_config(max_steps=2), tmp_path / "new", init_checkpoint=run_dir)
    assert [report.step for report in listener.steps] == [1, 2]
    assert (checkpoint / "checkpoint.json").read_bytes() == before


def test_a_file_says_what_was_loaded(parent, tmp_path):
    snapshot = load_checkpoint(parent[1])
    form = published_form(snapshot, learning_rate=1e-3, optimizer=tiny_config().optimizer)
    torch.save(form, tmp_path / "whole.pt")
    lines = train(
        tiny_config(max_steps=1), tmp_path / "a", init_checkpoint=tmp_path / "whole.pt"
    ).lines
    assert any(line.endswith("whole.pt; Adam's moments and step count too") for line in lines)
    torch.save(form["alphafold_state_dict"], tmp_path / "plain.pt")
    lines = train(
        tiny_config(max_steps=1), tmp_path / "b", init_checkpoint=tmp_path / "plain.pt"
    ).lines
    assert any(line.endswith("plain.pt; Adam starts afresh") for line in lines)


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SetupError, match="empty/checkpoints has no checkpoint; expected the output"
    ):
        train(tiny_config(), tmp_path / "new", init_checkpoint=tmp_path / "empty")


def test_a_preset_that_fixes_its_file_refuses_a_run(parent, tmp_path):
    config = tiny_config(init_checkpoint_sha256="0" * 64)
    with pytest.raises(
        SetupError, match="is the directory of a run, and this preset starts from the file"
    ):
        train(config, tmp_path / "new", init_checkpoint=parent[0])


def test_a_run_without_averaged_weights_says_how_to_take_the_others(parent, tmp_path):
    run_dir, checkpoint = parent
    copy = tmp_path / "copy" / "checkpoints" / checkpoint.name
    copy.parent.mkdir(parents=True)
    copy.mkdir()
    for file in checkpoint.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    description = json.loads((copy / "checkpoint.json").read_text())
    description["facts"]["num_updates"] = 0.0
    (copy / "checkpoint.json").write_text(json.dumps(description))
    with pytest.raises(SetupError, match="take the trained ones with --init-weights trained"):
        train(tiny_config(), tmp_path / "new", init_checkpoint=tmp_path / "copy")


def test_a_run_whose_checkpoints_are_damaged_is_not_to_be_removed(tmp_path):
    folder = tmp_path / "parent" / "checkpoints" / "step_00000004"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{")
    with pytest.raises(SetupError, match="none of its checkpoints is whole") as caught:
        train(tiny_config(), tmp_path / "new", init_checkpoint=tmp_path / "parent")
    assert str(tmp_path / "parent") in str(caught.value) and "remove" not in str(caught.value)
