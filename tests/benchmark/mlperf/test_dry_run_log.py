"""The log that a preset would write, and the keys that the checker would refuse."""

import csv
import dataclasses
import json

import pytest

from benchmark.__main__ import main
from benchmark.mlperf import dry_run_log, rules
from benchmark.mlperf.dry_run_log import Refusal, closed_refusals, count_parameters
from benchmark.presets import build_preset, preset_names

SAMPLES = (594_595, 180)


@pytest.fixture(scope="module")
def reference():
    return build_preset("mlperf_reference")


@pytest.fixture
def same_model(monkeypatch, reference):
    """Skip counting the parameters of the full model, which takes a third of a second."""
    monkeypatch.setattr(dry_run_log, "count_parameters", lambda config: 93_229_082)


def change(config, part, **values):
    return dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), **values)}
    )


def test_the_reference_would_be_accepted(reference):
    assert count_parameters(reference) == 93_229_082
    assert closed_refusals(reference, samples=SAMPLES) == []


@pytest.mark.parametrize(
    ("part", "values", "expected"),
    [
        ("data", {"max_templates": 0}, {"templates_enabled": False, "max_templates": 0}),
        ("data", {"crop_size": 384}, {"train_sequence_crop_size": 384}),
        ("optimizer", {"epsilon": 1e-8}, {"opt_adam_epsilon": 1e-8}),
        ("weight_average", {"decay_rate": 0.999}, {"swa_decay_rate": 0.999}),
        (
            "evaluation",
            {"target_lddt_ca": 0.7},
            {"target_avg_lddt_ca_value": 0.7, "eval_accuracy": 0.7},
        ),
        ("selection", {"validation_max_length": 384}, {"val_max_sequence_length": 384}),
        ("schedule", {"base_learning_rate": 2e-3, "warmup_steps": 300}, {}),
        ("loader", {"window": 16}, {}),
    ],
    ids=str,
)
def test_refused_keys_are_named_with_their_values(same_model, reference, part, values, expected):
    refusals = closed_refusals(change(reference, part, **values), samples=SAMPLES)
    assert {refusal.key: refusal.value for refusal in refusals} == expected


def test_every_condition_of_the_published_rules_is_applied(
    shared, same_model, reference, monkeypatch
):
    """In a log of wrong values, every key with a condition is refused."""
    monkeypatch.setattr(
        dry_run_log.MLPerfObserver,
        "_event",
        lambda self, key, value=None, **metadata: self._log.event(
            key, value if key.startswith(("submission", "cache")) else -1, metadata=metadata
        ),
    )
    with open(shared / "facts" / "closed_division.tsv", newline="") as file:
        keys = {row["log_key"] for row in csv.DictReader(file, delimiter="\t")}
    assert len(keys) == 39
    assert keys <= {refusal.key for refusal in closed_refusals(reference, samples=SAMPLES)}


def test_a_key_that_is_not_logged_is_refused(same_model, reference, monkeypatch):
    monkeypatch.setattr(dry_run_log.MLPerfObserver, "data_ready", lambda self, **counts: None)
    missing = {refusal.key: refusal for refusal in closed_refusals(reference, samples=SAMPLES)}
    assert set(missing) == {"train_samples", "eval_samples", "initial_training_dataloader_type"}
    assert missing["train_samples"] == Refusal(
        key="train_samples",
        value=None,
        reason="Required EXACTLY_ONE occurrence of 'train_samples' but found 0",
    )


def test_unknown_counts_are_not_checked(same_model, reference):
    assert closed_refusals(reference, samples=(None, None)) == []
    assert [refusal.key for refusal in closed_refusals(reference, samples=(None, 179))] == [
        "eval_samples"
    ]


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_closed_if_and_only_if_the_checker_accepts_its_log(name):
    config = build_preset(name)
    refusals = closed_refusals(config, samples=rules.expected_samples(config))
    assert (rules.preset_division(config) == "closed") == (refusals == [])


def test_rules_prints_what_the_checker_would_refuse(reference, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(dry_run_log, "count_parameters", lambda config: 93_229_081)
    command = ["rules", "--preset", "mlperf_reference", "--json", str(tmp_path / "rules.json")]
    assert main(command) == 0
    assert (
        "  model_parameters_count: 93229081 (expected: value == 93229082)"
        in capsys.readouterr().out
    )
    assert main([*command, "--require", "closed"]) == 1
    assert json.loads((tmp_path / "rules.json").read_text()) == {
        "preset": "mlperf_reference",
        "division": "closed",
        "differences": [],
        "refused_keys": [
            {"key": "model_parameters_count", "value": 93229081, "reason": "value == 93229082"}
        ],
        "data": None,
    }


def test_a_json_file_in_a_missing_folder_is_refused(capsys, tmp_path):
    assert main(["rules", "--preset", "demo", "--json", str(tmp_path / "none" / "x.json")]) == 2
    assert "does not exist; create it first" in capsys.readouterr().err
    assert main(["rules", "--preset", "demo", "--json", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err
