"""Help and errors of the command line."""

import datetime
import subprocess
import sys

import pytest

from openfold_opt.predict.option_parser import build_parser
from openfold_opt.predict.options import OptionError, read_options


def parse(text: str):
    return read_options(build_parser("predict").parse_args(text.split()))


def test_help_is_complete():
    text = build_parser("predict").format_help()
    for option in (
        "--alignments --template-structures --max-template-date --exclude-templates "
        "--single-sequence --data-dir --chains --weights --checkpoint --model-config "
        "--max-msa-clusters --max-extra-msa --device --dtype --dap --replicas --recycling "
        "--recycling-tolerance --seed --plan-only --length --out --overwrite --rank "
        "--save-distogram --save-pae --pae-json --save-embeddings"
    ).split():
        assert option in text, option
    for words in ("one chain faster", "a longer chain", "more chains", "exit codes: 0"):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_help_does_not_import_torch():
    program = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        "try: runpy.run_module('openfold_opt.predict', run_name='__main__')\n"
        "finally: print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "INPUT" in shown.stdout and shown.stdout.splitlines()[-1] == "False"


def test_settings_have_origins():
    options = parse("a.fasta --weights w --out d --seed 3 --no-save-pae --exclude-templates 1ABC_A")
    settings = options.settings
    today = datetime.date.today().isoformat()
    assert str(settings["seed"]) == "3 (option)"
    assert str(settings["rank"]) == "plddt (default)"
    assert str(settings["save_pae"]) == "no (option)"
    assert str(settings["recycling_tolerance"]) == "none (default)"
    assert str(settings["pae_json"]) == "auto (default)"
    assert parse("a.fasta --weights w --out d --no-pae-json").value("pae_json") is False
    assert str(settings["exclude_templates"]) == "1abc_A (option)"
    assert str(settings["max_template_date"]) == f"{today} (default)"
    assert str(settings["use_templates"]) == "no (default)"
    assert parse("a.fasta --template-structures s --weights w --out d").value("use_templates")
    assert parse("--data-dir s --weights w --out d").value("use_templates")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--weights w --out d", "found neither INPUT nor --data-dir"),
        ("--weights w a.fasta --out d", "an INPUT after --weights"),
        ("a.fasta --data-dir s --weights w --out d", "found both INPUT and --data-dir"),
        ("a.fasta --out d", "--weights is missing"),
        ("a.fasta --weights w", "--out is missing"),
        ("a.fasta --weights w --out d --chains x", "add --data-dir"),
        ("a.fasta --weights w --out d --length 5", "add --plan-only"),
        ("a.fasta --weights w --out d --seed -1", "expected 0 to 2147483647"),
        ("a.fasta --weights w --out d --recycling -1", "expected at least 0"),
        ("a.fasta --weights w --out d --dap 0", "expected at least 1"),
        ("a.fasta --weights w --out d --recycling-tolerance nan", "expected at least 0"),
        ("a.fasta --weights w --out d --max-template-date 2020-13-01", "expected YYYY-MM-DD"),
        ("a.fasta --weights w --out d --max-template-date 20200101", "expected YYYY-MM-DD"),
        ("a.fasta --weights w --out d --recycling-tolerance inf", "out of range"),
        ("a.fasta --weights w --out d --exclude-templates 1abc,2xyz!", "2xyz! is no PDB entry"),
        ("a.fasta --weights w --out d --pae-json --no-save-pae", "remove one of them"),
        ("--plan-only --length 0", "expected at least 1"),
        ("--plan-only --device h200", "add --length N, INPUT or --data-dir"),
    ],
)
def test_wrong_options_are_refused(text, message):
    with pytest.raises(OptionError, match=message):
        parse(text)


def test_a_wrong_choice_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("a.fasta --weights w --out d --dtype fp8")
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "see predict --help" in error


def test_a_plan_needs_neither_input_nor_weights():
    options = parse("--plan-only --length 1000 2000 --device h200 --dap 4 --dtype bf16")
    assert options.lengths == (1000, 2000) and options.value("device") == "h200"


def test_an_option_with_several_values_may_be_repeated():
    options = parse(
        "a.fasta --weights v --alignments x --weights w --alignments y z --out d "
        "--exclude-templates 1abc --exclude-templates 2xyz"
    )
    assert [str(path) for path in options.weights.paths] == ["v", "w"]
    assert [str(path) for path in options.inputs.alignments] == ["x", "y", "z"]
    assert options.value("exclude_templates") == "1abc,2xyz"
    assert parse("--plan-only --length 10 --length 20").lengths == (10, 20)
    assert parse("--plan-only --length 10").lengths == (10,)


def test_the_case_of_a_device_does_not_matter():
    assert parse("--plan-only --length 10 --device H200").value("device") == "h200"
