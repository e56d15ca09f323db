"""`benchmark rules` and the registry of presets."""

import csv
import dataclasses

import pytest

from benchmark.__main__ import main
from benchmark.mlperf import rules
from benchmark.mlperf.log_values import hyperparameter_values
from benchmark.mlperf.rules import compare, preset_division
from benchmark.presets import build_preset, preset_names
from openfold_opt.train import dataset_split as selection
from tests.support.synthetic_shards import write_synthetic_shards


@pytest.fixture
def reference():
    return build_preset("mlperf_reference")


def change(config, part, **values):
    return dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), **values)}
    )


def test_reference_does_not_differ_from_itself(reference):
    assert compare(reference, build_preset("mlperf_reference")) == []
    assert preset_division(reference) == "closed"


def test_free_fields_keep_it_closed(reference):
    config = change(reference, "schedule", base_learning_rate=2e-3, warmup_steps=50)
    config = dataclasses.replace(config, local_batch_size=2, accumulation=4)
    differences = compare(config, reference)
    assert {d.path for d in differences} == {
        "schedule.base_learning_rate",
        "schedule.warmup_steps",
        "local_batch_size",
        "accumulation",
    }
    assert {d.category for d in differences} == {"free"}
    assert preset_division(config) == "closed"


def test_implementation_keeps_it_closed(reference):
    config = dataclasses.replace(reference, precision="bf16", recompute=not reference.recompute)
    assert preset_division(change(config, "loader", num_workers=3)) == "closed"


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("data", {"max_extra_msa": 512}),
        ("data", {"clamped_fape_probability": 1.0}),
        ("optimizer", {"clip_norm": 1.0}),
        ("weight_average", {"decay_rate": 0.99}),
        ("evaluation", {"every_steps": 50}),
        ("selection", {"validation_max_length": 300}),
        ("schedule", {"decay_factor": 0.5}),
    ],
)
def test_fixed_fields_make_it_open(reference, part, values):
    config = change(reference, part, **values)
    assert preset_division(config) == "open"
    ((name, value),) = values.items()
    (difference,) = compare(config, reference)
    assert (
        difference.path == f"{part}.{name}"
        and difference.value == value
        and difference.category == "mathematical"
    )


def test_another_checkpoint_makes_it_open(reference):
    assert preset_division(dataclasses.replace(reference, init_checkpoint_sha256=None)) == "open"


def test_reference_has_the_values_of_the_ruleset(shared, reference):
    values = hyperparameter_values(reference) | {
        "target_avg_lddt_ca_value": reference.evaluation.target_lddt_ca,
        "train_max_pdb_release_date": reference.selection.train_max_release_date,
        "val_min_cameo_submission_date": reference.selection.validation_min_date,
        "val_max_cameo_submission_date": reference.selection.validation_max_date,
        "val_max_sequence_length": reference.selection.validation_max_length,
        "val_every_iters": reference.evaluation.every_steps,
        "init_checkpoint_sha256sum": reference.init_checkpoint_sha256,
        "swa_decay_rate": reference.weight_average.decay_rate,
    }
    checked = 0
    with open(shared / "facts" / "closed_division.tsv", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["log_key"] in values:
                assert eval(row["condition"], {"value": values[row["log_key"]]}), row
                checked += 1
    assert checked >= 30


def test_rules_names_what_makes_a_preset_open(capsys):
    assert main(["rules", "--preset", "demo"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("preset demo: open division")
    assert "init_checkpoint_sha256: None" in text
    assert main(["rules", "--preset", "mlperf_reference"]) == 0
    assert capsys.readouterr().out.split("\n\n") == [
        "preset mlperf_reference: closed division",
        "keys of the log that the checker of the closed division would refuse: none\n"
        "  assumed from the preset (use --data-dir to count them): train_samples, "
        "eval_samples\n",
    ]


def test_sizes_that_come_from_the_data_are_marked(capsys):
    note = "every field: (the preset takes the sizes of data.* from the data set; --data-dir"
    assert main(["rules", "--preset", "own_data", "--list"]) == 0
    assert note in capsys.readouterr().out
    assert main(["rules", "--preset", "demo", "--list"]) == 0
    assert "every field:\n" in capsys.readouterr().out


def test_rules_of_changed_fields(capsys):
    assert main(["rules", "--preset", "mlperf_reference", "--set", "data.crop_size=128"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("preset mlperf_reference, set data.crop_size=128: open division")
    assert "data.crop_size: 128 (mlperf_reference: 256)" in text
    free = ["--set", "log_every_steps=3"]
    assert main(["rules", "--preset", "mlperf_reference", "--require", "closed", *free]) == 1
    assert "open division" in capsys.readouterr().out
    assert main(["rules", "--preset", "demo", "--set", "no.such=1"]) == 2
    assert "no such field" in capsys.readouterr().err


def test_unknown_preset_lists_those_that_exist(capsys):
    assert main(["rules", "--preset", "dmeo"]) == 2
    error = capsys.readouterr().err
    assert "unknown preset 'dmeo'" in error
    for name in preset_names():
        assert name in error


@pytest.mark.parametrize(
    "argv", [["--help"], ["run", "--help"], ["check", "--help"], ["rules", "--help"]]
)
def test_help(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 0
    assert "usage: python -m benchmark" in capsys.readouterr().out


def test_rules_counts_the_chains_of_a_data_set(tmp_path, capsys):
    raw, shards = tmp_path / "raw", tmp_path / "shards"
    write_synthetic_shards(raw, shards)
    capsys.readouterr()
    assert main(["rules", "--preset", "demo", "--data-dir", str(shards)]) == 0
    text = capsys.readouterr().out
    assert (
        "6 chains to train on, 1 to evaluate" in text
        and "the closed division has 594,595 and 180" in text
    )
    assert main(["rules", "--preset", "mlperf_reference", "--data-dir", str(shards)]) == 2
    assert "no chain to evaluate by rule 'cameo'" in capsys.readouterr().err
    assert main(["rules", "--preset", "demo", "--data-dir", str(tmp_path)]) == 2
    assert "has no index.h5" in capsys.readouterr().err


def test_a_data_set_of_other_numbers_is_not_usable(reference, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rules.ShardIndex, "load", lambda data_dir: None)
    monkeypatch.setattr(selection, "select_training", lambda index, config: range(594_594))
    monkeypatch.setattr(selection, "select_validation", lambda index, config: range(180))
    assert main(["rules", "--preset", "mlperf_reference", "--data-dir", str(tmp_path)]) == 1
    assert (
        "594,594 chains to train on and 180 to evaluate, expected 594,595 and 180"
        in capsys.readouterr().out
    )
