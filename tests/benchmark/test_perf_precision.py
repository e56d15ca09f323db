"""`perf precision` on the demo: fused float32 is exact beside bf16, and fused bf16 errs at most twice as much as plain bf16."""

import json

from benchmark.__main__ import main


def test_errors_of_bf16(tmp_path, capsys):
    record = tmp_path / "precision.json"
    assert (
        main(["perf", "precision", "--preset", "demo", "--steps", "2", "--json", str(record)]) == 0
    )
    assert "template_pair_stack" in capsys.readouterr().out
    metrics = json.loads(record.read_text())["figures"]
    everything = metrics["gradients"]["all"]
    assert everything["auto fp32"] < 1e-4 < everything["reference bf16"]
    assert everything["auto bf16"] <= 2.0 * everything["reference bf16"]
    truth = metrics["losses"]["reference fp32"]["loss"]
    plain, fused = (
        abs(metrics["losses"][name]["loss"] - truth) for name in ("reference bf16", "auto bf16")
    )
    # a loss may be right by chance, so a rounding of it is always allowed
    assert fused <= 2.0 * plain + 2.0**-9 * abs(truth)


def test_no_steps_are_refused(capsys):
    assert main(["perf", "precision", "--steps", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
