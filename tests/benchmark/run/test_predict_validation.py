"""Choice of a validation chain, and refusals. test_predictions_equal_evaluation.py predicts one."""

import json

import pytest

from benchmark.__main__ import main
from benchmark.run.predict_validation import median_chain


def write_evaluations(folder, *scores):
    """Write one evaluation for each dict of lDDT-Ca by chain."""
    lines = [
        {
            "step": step,
            "epoch_num": 2 * step,
            "lddt_ca": 0.5,
            "seconds": 1.0,
            "chains": [
                {"chain_id": name, "lddt_ca": value, "num_residues": 9}
                for name, value in chains.items()
            ],
        }
        for step, chains in enumerate(scores, start=1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "evaluations.jsonl").write_text(text)


def test_the_median_of_the_last_evaluation_is_chosen(tmp_path):
    write_evaluations(tmp_path, {"a": 0.1, "b": 0.2, "c": 0.3}, {"a": 0.9, "b": 0.2, "c": 0.3})
    assert median_chain(tmp_path) == "c"
    write_evaluations(tmp_path, {"a": 0.9, "b": 0.2, "c": 0.3, "d": 0.4})
    assert median_chain(tmp_path) == "c"


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ((), "expected a run that evaluated at least once"),
        (("--chain", "x"), "expected shards made by"),
    ],
)
def test_a_directory_without_run_or_data_is_refused(tmp_path, capsys, chain, message):
    code = main(["predict-validation", str(tmp_path), "--data-dir", str(tmp_path), *chain])
    assert code == 2 and message in capsys.readouterr().err


def test_a_chain_that_was_not_evaluated_is_named(tmp_path, capsys):
    write_evaluations(tmp_path, {"a": 0.1})
    main(["predict-validation", str(tmp_path), "--data-dir", str(tmp_path), "--chain", "b"])
    assert "b is no validation chain of this run" in capsys.readouterr().out
    main(["predict-validation", str(tmp_path), "--data-dir", str(tmp_path), "--chain", "a"])
    assert "no validation chain" not in capsys.readouterr().out
