"""--plan-only: which lengths, rows and templates are planned, and what is said about bad chains."""

import pytest

from openfold_opt.predict import command_parts
from openfold_opt.predict.option_parser import build_parser
from openfold_opt.predict.options import read_options


@pytest.fixture
def planned(monkeypatch):
    """Record the arguments of each plan; all chains fit."""
    calls = []

    def describe_plan(lengths, **arguments):
        calls.append({"lengths": lengths, **arguments})
        return [f"plan of {length}" for length in lengths], True

    monkeypatch.setattr(command_parts, "describe_plan", describe_plan)
    return calls


def print_plan(*words) -> int:
    arguments = ["--plan-only", "--device", "h200", *map(str, words)]
    return command_parts.PARTS.print_plan(
        read_options(build_parser("predict").parse_args(arguments))
    )


def test_chains_without_an_alignment_are_planned(tmp_path, planned):
    path = tmp_path / "chains.fasta"
    path.write_text(f">a\n{'A' * 30}\n>b\n{'G' * 40}\n")
    assert print_plan(path) == 0
    assert planned[0]["lengths"] == (40, 30)


def test_a_chain_that_cannot_be_predicted_is_named(tmp_path, planned, capsys):
    path = tmp_path / "chains.fasta"
    path.write_text(f">a\n{'A' * 30}\n>b\nAA:GG\n")
    assert print_plan(path) == 1
    text = capsys.readouterr().out
    assert "plan of 30" in text and "FAILED (input): b:" in text


@pytest.mark.parametrize(
    ("words", "rows", "templates"),
    [
        ((), 512, 0),
        (("--max-msa-clusters", 8), 8, 0),
        (("--template-structures", "pdb"), 512, 4),
        (("--max-msa-clusters", 8, "--template-structures", "pdb"), 12, 4),
    ],
)
def test_rows_of_templates_are_added_as_in_a_prediction(planned, words, rows, templates):
    assert print_plan("--length", 100, *words) == 0
    found = planned[0]
    assert (found["max_msa_clusters"], found["num_templates"]) == (rows, templates)


def test_weights_give_sizes_templates_and_rows(shared, planned):
    """AlphaFold's model 3 has no templates."""
    weights = ("--weights", shared / "golden" / "weights" / "model_3_tiny.npz")
    sizes = ("--model-config", shared / "golden" / "model_tiny" / "config.json")
    assert print_plan("--length", 100, "--template-structures", "pdb", *weights, *sizes) == 0
    found = planned[0]
    assert (found["max_msa_clusters"], found["num_templates"]) == (512, 0)
    assert not found["config"].has_templates and found["config"].c_m < 256
