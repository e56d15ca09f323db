"""`perf precision` on the demo: errors of fused kernels in float32 and bf16.

Fused float32 is exact compared with bf16. The error of fused bf16 is at most twice that of the
reference kernels in bf16.
"""

import json

from benchmark.__main__ import main


def test_fused_kernels_are_as_precise_as_reference_kernels(tmp_path, capsys):
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
    reference, fused = (
        abs(metrics["losses"][name]["loss"] - truth) for name in ("reference bf16", "auto bf16")
    )
    # The reference error may be small by chance, so one rounding is always allowed.
    assert fused <= 2.0 * reference + 2.0**-9 * abs(truth)


def test_zero_steps_are_refused(capsys):
    assert main(["perf", "precision", "--steps", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
