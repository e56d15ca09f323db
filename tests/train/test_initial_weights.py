"""Fine-tuning: a new run that starts from the checkpoint of another run."""

import dataclasses
import json

import pytest
import torch

from openfold_opt.losses.config import LossConfig
from openfold_opt.parallel.launch import LaunchInfo
from openfold_opt.protein.shard_format import sha256_of_file
from openfold_opt.train.build_run import RunPaths, build_model
from openfold_opt.train.checkpoint.checkpoint_store import load_checkpoint
from openfold_opt.train.checkpoint.run_state import mlcommons_form
from openfold_opt.train.errors import CheckpointError, SetupError
from openfold_opt.train.initial_weights import TM_HEAD, initialize
from openfold_opt.train.trainer import Trainer
from tests.support.recording_observer import Recorder
from tests.support.synthetic_samples import MemorySource, tiny_config
from tests.support.tiny_steps import new_step
from tests.support.tiny_weights import tiny_weights, weights_file


class SetupRecorder(Recorder):
    """A Recorder that also keeps the lines of the set-up."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def preparing(self, what):
        self.lines.append(what)

    @property
    def info(self):
        return self.infos[0]


def train(config, folder, **paths):
    recorder = SetupRecorder()
    trainer = Trainer(
        config,
        data=MemorySource(),
        paths=RunPaths(output_dir=folder, **paths),
        seed=3,
        observer=recorder,
        launch=LaunchInfo(),
    )
    trainer.run()
    return recorder


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """Return the folder of a run of eight steps, and its last checkpoint."""
    folder = tmp_path_factory.mktemp("parent")
    train(tiny_config(), folder)
    return folder, sorted((folder / "checkpoints").iterdir())[-1]


def first_loss(folder, **paths):
    return train(tiny_config(max_steps=1), folder, **paths).steps[0].loss


def test_the_averaged_weights_of_a_run_are_the_default(parent, tmp_path):
    run_dir, checkpoint = parent
    recorder = train(tiny_config(max_steps=1), tmp_path / "new", init_checkpoint=run_dir)
    (line,) = [line for line in recorder.lines if line.startswith("initial weights")]
    count, tensors = recorder.info.num_parameters, recorder.info.num_tensors
    assert line.startswith(
        f"initial weights: {count:,} parameters in {tensors} tensors, the averaged ones of "
        f"{checkpoint} (step 8, lDDT-Ca "
    )
    assert recorder.info.init_checkpoint_sha256 == sha256_of_file(checkpoint / "checkpoint.json")
    # The same weights from a file give a bit-identical loss.
    form = mlcommons_form(
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
    assert losses["average"] == recorder.steps[0].loss
    assert len(set(losses.values())) == 3


def test_the_first_run_does_not_change_and_the_new_run_starts_at_step_one(parent, tmp_path):
    run_dir, checkpoint = parent
    before = (checkpoint / "checkpoint.json").read_bytes()
    recorder = train(tiny_config(max_steps=2), tmp_path / "new", init_checkpoint=run_dir)
    assert [report.step for report in recorder.steps] == [1, 2]
    assert (checkpoint / "checkpoint.json").read_bytes() == before


def test_a_line_describes_what_was_loaded_from_a_file(parent, tmp_path):
    snapshot = load_checkpoint(parent[1])
    form = mlcommons_form(snapshot, learning_rate=1e-3, optimizer=tiny_config().optimizer)
    torch.save(form, tmp_path / "whole.pt")
    lines = train(
        tiny_config(max_steps=1), tmp_path / "a", init_checkpoint=tmp_path / "whole.pt"
    ).lines
    assert any(line.endswith("whole.pt; with Adam's moments and step count") for line in lines)
    torch.save(form["alphafold_state_dict"], tmp_path / "plain.pt")
    lines = train(
        tiny_config(max_steps=1), tmp_path / "b", init_checkpoint=tmp_path / "plain.pt"
    ).lines
    assert any(line.endswith("plain.pt; Adam starts from zero") for line in lines)


@pytest.mark.parametrize("form", ["alphafold", "openfold"])
def test_a_published_form_gives_the_same_loss(parent, tmp_path, form):
    state = load_checkpoint(parent[1]).views("values")
    path = weights_file(tmp_path / "weights", tiny_config().model, state, form=form)
    recorder = train(tiny_config(max_steps=1), tmp_path / form, init_checkpoint=path)
    kind = {"alphafold": "AlphaFold parameters", "openfold": "OpenFold checkpoint"}[form]
    expected = f" of the {kind} {path}; Adam starts from zero"
    assert any(line.endswith(expected) for line in recorder.lines)
    torch.save(state, tmp_path / "own.pt")
    own = first_loss(tmp_path / "own", init_checkpoint=tmp_path / "own.pt")
    assert recorder.steps[0].loss == own


def test_weights_of_another_model_are_refused(parent, tmp_path):
    config, state = tiny_weights(has_templates=False)
    path = weights_file(tmp_path / "weights", config, state, form="openfold")
    with pytest.raises(SetupError, match="with the sizes of this run; choose weights of this"):
        train(tiny_config(), tmp_path / "new", init_checkpoint=path)


def test_a_directory_without_a_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SetupError, match="empty/checkpoints has no checkpoint; expected the output"
    ):
        train(tiny_config(), tmp_path / "new", init_checkpoint=tmp_path / "empty")


def test_a_preset_with_a_fixed_file_refuses_a_run(parent, tmp_path):
    config = tiny_config(init_checkpoint_sha256="0" * 64)
    with pytest.raises(
        SetupError, match="is the directory of a run, but this preset starts from the file"
    ):
        train(config, tmp_path / "new", init_checkpoint=parent[0])


def test_the_error_about_missing_averaged_weights_says_how_to_use_the_trained_ones(
    parent, tmp_path
):
    run_dir, checkpoint = parent
    copy = tmp_path / "copy" / "checkpoints" / checkpoint.name
    copy.parent.mkdir(parents=True)
    copy.mkdir()
    for file in checkpoint.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    description = json.loads((copy / "checkpoint.json").read_text())
    description["facts"]["num_updates"] = 0.0
    (copy / "checkpoint.json").write_text(json.dumps(description))
    with pytest.raises(SetupError, match="use the trained ones with --init-weights trained"):
        train(tiny_config(), tmp_path / "new", init_checkpoint=tmp_path / "copy")


def test_the_error_about_damaged_checkpoints_does_not_suggest_removal(tmp_path):
    folder = tmp_path / "parent" / "checkpoints" / "step_00000004"
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{")
    with pytest.raises(SetupError, match="none of its checkpoints is complete") as caught:
        train(tiny_config(), tmp_path / "new", init_checkpoint=tmp_path / "parent")
    assert str(tmp_path / "parent") in str(caught.value) and "remove" not in str(caught.value)


def with_tm_head(**changes):
    """Return the configuration of the tests with the TM-score head and its loss."""
    config = tiny_config(loss=LossConfig.finetuning_ptm(), **changes)
    heads = dataclasses.replace(config.model.auxiliary_heads, has_tm_score=True)
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, auxiliary_heads=heads)
    )


def load(config, path, **options):
    """Return a new training step with initial weights, and the line about them."""
    step, lines = new_step(config), []
    initialize(step, path, expected_sha256=None, note=lines.append, **options)
    (line,) = lines
    return step, line


def whole_file(checkpoint, path):
    """Write weights and the state of Adam of a checkpoint to one file, and return its path."""
    form = mlcommons_form(
        load_checkpoint(checkpoint), learning_rate=1e-3, optimizer=tiny_config().optimizer
    )
    torch.save(form, path)
    return path


@pytest.mark.parametrize("origin", ["run", "file", "alphafold"])
def test_a_missing_tm_head_starts_from_its_initial_values(parent, tmp_path, origin):
    run_dir, checkpoint = parent
    snapshot, path = load_checkpoint(checkpoint), run_dir
    if origin == "file":
        path = whole_file(checkpoint, tmp_path / "weights.pt")
    elif origin == "alphafold":
        state = snapshot.views("values")
        path = weights_file(tmp_path / "weights", tiny_config().model, state, form="alphafold")
    step, line = load(with_tm_head(), path)
    assert line.endswith("head is not in them and starts from the initial values of a new model")
    expected = snapshot.views("average" if origin == "run" else "values")
    fresh = build_model(with_tm_head(), seed=1, device=torch.device("cpu")).state_dict()
    head = [name for name in step.buffer.names if name.startswith(TM_HEAD)]
    assert len(head) == 2 and set(step.buffer.names) == {*expected, *head}
    for name, values in step.buffer.views(step.buffer.values).items():
        assert torch.equal(values, fresh[name] if name in head else expected[name]), name


def test_adam_of_a_missing_head_starts_from_zero(parent, tmp_path):
    step, line = load(with_tm_head(), whole_file(parent[1], tmp_path / "weights.pt"))
    assert "with Adam's moments and step count; the TM-score head" in line
    assert float(step.optimizer.num_steps) == 8.0
    snapshot = load_checkpoint(parent[1])
    for moment, flat in (
        ("exp_avg", step.optimizer.exp_avg),
        ("exp_avg_sq", step.optimizer.exp_avg_sq),
    ):
        expected = snapshot.views(moment)
        for name, values in step.buffer.views(flat).items():
            if name.startswith(TM_HEAD):
                assert not values.any()
            else:
                assert torch.equal(values, expected[name]), name


@pytest.mark.parametrize("has_adam", [False, True])
def test_a_new_tm_head_is_trained(parent, tmp_path, has_adam):
    path = whole_file(parent[1], tmp_path / "weights.pt") if has_adam else parent[0]
    recorder = train(with_tm_head(max_steps=2), tmp_path / "new", init_checkpoint=path)
    assert [report.step for report in recorder.steps] == [1, 2]
    assert any("the TM-score head is not in them" in line for line in recorder.lines)
    (checkpoint,) = (tmp_path / "new" / "checkpoints").iterdir()
    trained = load_checkpoint(checkpoint).views("values")
    assert any(trained[name].any() for name in trained if name.startswith(TM_HEAD))


@pytest.mark.parametrize("origin", ["run", "file"])
def test_any_other_missing_tensor_is_an_error(parent, tmp_path, origin):
    """The model with the head also has one more block, which the weights lack."""
    config, path = with_tm_head(), parent[0]
    stack = dataclasses.replace(config.model.extra_msa_stack, num_blocks=2)
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, extra_msa_stack=stack)
    )
    if origin == "file":
        path = whole_file(parent[1], tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"missing: extra_msa_stack\.blocks\.1"):
        load(config, path)


def test_a_part_of_the_tm_head_is_an_error(parent, tmp_path):
    state = new_step(with_tm_head()).buffer
    state = state.views(state.values)
    del state[f"{TM_HEAD}linear.bias"]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"1 missing: auxiliary_heads\.tm\.linear\.bias"):
        load(with_tm_head(), tmp_path / "weights.pt")


@pytest.mark.parametrize("origin", ["run", "file"])
def test_a_head_that_the_model_lacks_is_refused(tmp_path, origin):
    path = tmp_path / "parent"
    if origin == "run":
        train(with_tm_head(max_steps=2), path)
    else:
        buffer = new_step(with_tm_head()).buffer
        torch.save(buffer.views(buffer.values), path)
    message = (
        r"has a TM-score head \(auxiliary_heads\.tm\.linear\.weight, .*finetuning_ptm, or --set"
    )
    with pytest.raises(CheckpointError, match=message):
        load(tiny_config(), path)


def test_fine_tuning_without_initial_weights_is_refused(tmp_path):
    config = tiny_config(requires_init_checkpoint=True)
    with pytest.raises(SetupError, match="fine-tunes trained weights; pass a file of weights or"):
        train(config, tmp_path / "new")
