"""The weights of a run: its sizes, its samples, and the choice of the checkpoint."""

import json

import pytest
import torch

from openfold_opt.model.published_weights import (
    WeightsError,
    build_model,
    describe_settings,
    read_weights,
    with_options,
)
from openfold_opt.protein.shard_format import sha256_of_file
from tests.support.tiny_weights import tiny_run, tiny_weights

SCORES = {4: 0.3, 8: 0.7, 12: 0.5, 16: None}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the directory of a run and the averaged weights of its checkpoints."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    return folder, tiny_run(folder, tiny_weights()[0], SCORES)


@pytest.mark.parametrize(
    ("checkpoint", "step"),
    [(None, 16), ("last", 16), ("best", 8), ("step_00000012", 12), ("4", 4)],
)
def test_the_checkpoint_is_chosen(run, checkpoint, step):
    folder, averages = run
    weights = read_weights(folder, checkpoint=checkpoint)
    assert weights.kind == "run directory"
    assert weights.which == f"averaged weights of step {step}"
    assert all(torch.equal(weights.state[name], x) for name, x in averages[step].items())
    description = folder / "checkpoints" / f"step_{step:08d}" / "checkpoint.json"
    assert weights.sha256 == sha256_of_file(description)
    assert weights.config == tiny_weights()[0]


def test_the_trained_weights_can_be_taken(run):
    folder, averages = run
    state = read_weights(folder, which="trained").state
    assert all(torch.equal(state[name], 2.0 * x) for name, x in averages[16].items())


def test_a_model_is_built(run):
    model = build_model(read_weights(run[0]))
    assert not model.training and not any(x.requires_grad for x in model.parameters())
    tensors = [*model.parameters(), *model.buffers()]
    assert {x.device.type for x in tensors} == {"cpu"}
    assert {x.dtype for x in model.parameters()} == {torch.float32}


def test_the_settings_are_those_of_the_run_unless_an_option_is_given(run):
    settings = with_options(
        read_weights(run[0]).settings, {"max_extra_msa": 99, "max_msa_clusters": None}
    )
    assert describe_settings(settings) == (
        "sizes of the run (run), templates yes (weights), tm_score_head yes (weights), "
        "max_msa_clusters 9 (run), max_extra_msa 99 (option), max_templates 2 (run), "
        "num_recycling_iterations 3 (default)"
    )
    with pytest.raises(WeightsError, match="max_msa_clusters is 0; expected at least 1"):
        with_options(settings, {"max_msa_clusters": 0})


def test_the_masking_of_the_msa_is_that_of_the_run(run, tmp_path):
    config, _ = tiny_weights()
    tiny_run(tmp_path / "run", config, {1: None})
    record = tmp_path / "run" / "config.json"
    content = json.loads(record.read_text())
    content["config"]["data"] |= {"masked_msa_fraction": 0.25, "masked_msa_same_probability": 0}
    record.write_text(json.dumps(content))
    text = describe_settings(read_weights(tmp_path / "run").settings)
    assert text.endswith("masked_msa_fraction 0.25 (run), masked_msa_same_probability 0.0 (run)")
    assert "masked_msa" not in describe_settings(read_weights(run[0]).settings)


def test_a_run_without_templates(tmp_path):
    config, _ = tiny_weights(has_templates=False)
    tiny_run(tmp_path / "run", config, {1: None})
    weights = read_weights(tmp_path / "run")
    assert weights.config == config
    assert weights.settings["max_templates"].value == 0


def test_checkpoints_that_do_not_exist(run, tmp_path):
    with pytest.raises(WeightsError, match=r"no checkpoint 5; it has step_00000004, step_0000000"):
        read_weights(run[0], checkpoint="5")
    config, _ = tiny_weights()
    tiny_run(tmp_path / "run", config, {1: None}, num_updates=0)
    with pytest.raises(WeightsError, match="none was saved at an evaluation; choose one of step_"):
        read_weights(tmp_path / "run", checkpoint="best")
    with pytest.raises(WeightsError, match="has no averaged weights yet; take the trained"):
        read_weights(tmp_path / "run")
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    config_file = (tmp_path / "run" / "config.json").read_text()
    (tmp_path / "empty" / "config.json").write_text(config_file)
    with pytest.raises(WeightsError, match="empty/checkpoints has no checkpoint; expected"):
        read_weights(tmp_path / "empty")


def test_a_damaged_checkpoint_and_other_sizes(tmp_path):
    config, _ = tiny_weights()
    tiny_run(tmp_path / "run", config, {1: None})
    record = tmp_path / "run" / "config.json"
    content = json.loads(record.read_text())
    content["config"]["model"]["c_m"] += 1
    record.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"linear_tf_m.weight \[12, 22\] instead of \[13, 22\]"):
        read_weights(tmp_path / "run")
    data = next((tmp_path / "run" / "checkpoints" / "step_00000001").glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="truncated"):
        read_weights(tmp_path / "run")
