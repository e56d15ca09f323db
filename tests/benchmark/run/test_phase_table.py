"""`benchmark phases`: the phases of a preset, their ranks, and those that remain."""

import pytest

from benchmark.__main__ import main
from benchmark.preflight.job_checks import check_ranks
from benchmark.presets import build_preset
from openfold_opt.train.phases import find_phase
from tests.support.phased_run import write_state
from tests.support.run_checkpoints import write_checkpoint

PRESET = """
import dataclasses

from benchmark.presets import demo_2x2
from openfold_opt.train.phase_config import PhaseConfig


def build():
    phases = (
        PhaseConfig(name="first", steps=4, dap_size=1, required_lddt_ca=0.5),
        PhaseConfig(name="second", steps=6, global_batch_size=4, end_lddt_ca=0.9),
    )
    return dataclasses.replace(demo_2x2.build(), phases=phases, max_steps=10)
"""


@pytest.fixture
def phases(tmp_path, capsys):
    """Return a function that calls the command with a preset of two phases."""
    preset = tmp_path / "two.py"
    preset.write_text(PRESET)

    def call(*arguments):
        code = main(["phases", "--preset", str(preset), *arguments])
        shown = capsys.readouterr()
        return code, shown.out.splitlines(), shown.err

    return call


def test_phases_are_listed_with_their_ranks(phases):
    code, lines, _ = phases("--ranks", "first=2", "--ranks", "second=4")
    assert code == 0
    assert lines == [
        "phase first (1 of 2): 4 steps at most, global batch 2, dap 1, 0 evaluation ranks, crop "
        "36, lDDT-Ca 0.5 at its end, else the run stops",
        "  2 ranks: 2 x dap 1 to train, 0 to evaluate; global batch 2",
        "phase second (2 of 2): 6 steps at most, global batch 4, dap 2, 0 evaluation ranks, crop "
        "36, ends at lDDT-Ca 0.9",
        "  4 ranks: 2 x dap 2 to train, 0 to evaluate; global batch 4 (accumulation 2, derived)",
    ]
    assert [line for line in phases()[1] if line.startswith("  ")] == []


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (["first=2"], "expected one for each phase of the preset, in their order: first, second"),
        (["second=4", "first=2"], "found phases second, first; expected"),
        (["first=2", "first=2"], "phase first is given twice"),
        (["first=none"], "expected NAME=N with N of at least 1"),
        (["first=0"], "expected NAME=N with N of at least 1"),
        (["first=2", "second=3"], "phase second (2 of 2) does not fit 3 ranks: "),
    ],
)
def test_ranks_that_do_not_fit_are_refused(phases, ranks, message):
    code, lines, error = phases(*(word for text in ranks for word in ("--ranks", text)))
    assert code == 2 and lines == [] and message in error and error.count("\n") == 1


def test_remaining_phases(phases, tmp_path):
    assert phases("--remaining", str(tmp_path / "none"))[1] == ["first", "second"]
    # The checkpoints decide: a process may be killed before it writes run.json.
    write_state(tmp_path, "running", phase="first", completed_phases=[])
    assert phases("--remaining", str(tmp_path))[1] == ["first", "second"]
    write_checkpoint(tmp_path, step=4, phase=0)
    assert phases("--remaining", str(tmp_path))[1] == ["first", "second"]
    write_checkpoint(tmp_path, step=6, phase=1)
    assert phases("--remaining", str(tmp_path))[1] == ["second"]
    # The run resumes from the checkpoint before a damaged one.
    tensors = next((tmp_path / "checkpoints" / "step_00000006").glob("*.distcp"))
    tensors.write_bytes(tensors.read_bytes()[:-1])
    assert phases("--remaining", str(tmp_path))[1] == ["first", "second"]
    write_state(tmp_path, "finished", outcome="success")
    assert [line for line in phases("--remaining", str(tmp_path))[1] if line] == []
    write_state(tmp_path, "finished", outcome="target not reached")
    code, _, error = phases("--remaining", str(tmp_path))
    assert code == 2 and "has used up its steps" in error


def test_preset_without_phases_is_refused(capsys):
    assert main(["phases", "--preset", "demo_one_phase"]) == 2
    assert "preset demo_one_phase has no phases" in capsys.readouterr().err


def test_preflight_checks_the_ranks_of_every_phase(tmp_path):
    (tmp_path / "two.py").write_text(PRESET)
    config = build_preset(str(tmp_path / "two.py"))
    assert not check_ranks(config, 4).passed
    found = check_ranks(config, 2)
    assert found.passed, found
    assert found.text.startswith("2 = phase first (1 of 2): 2 x dap 1 to train, 0 to evaluate; ")
    assert "; phase second (2 of 2): 1 x dap 2 to train" in found.text
    second = find_phase(config, "second").config
    assert check_ranks(second, 4).passed
