"""`perf kernels` on a CPU at the shapes of the demo."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

from benchmark.__main__ import main
from benchmark.perf.tools.attention_launches import separate_attention
from benchmark.perf.tools.kernel_peers import attention_peers, core_leaves
from benchmark.presets import build_preset
from openfold_opt.kernels.arguments import TensorMaker
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.kernels.operations import OPERATIONS
from openfold_opt.kernels.reference.attention import attention
from openfold_opt.kernels.reference.self_attention import (
    ResidualAttentionShapes,
    SelfAttentionShapes,
)
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.train.operation_shapes import operations_of_step

CPU = torch.device("cpu")
ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_the_attention_of_pytorch_computes_the_same():
    for place in operations_of_step(build_preset("demo")):
        sizes = place.shapes
        if not isinstance(sizes, SelfAttentionShapes):
            continue
        projected, bias = core_leaves(sizes, dtype=torch.float32, device=CPU)
        theirs = (
            attention_peers(sizes, projected, bias)["SDPA"]()
            .transpose(-2, -3)
            .flatten(-2)
            .unflatten(0, (sizes.batch, sizes.groups))
        )
        mask = torch.ones(sizes.batch, sizes.groups, sizes.length)
        gate = projected[..., -sizes.num_heads * sizes.c_head :]
        ours = attention(projected, num_heads=sizes.num_heads, mask=mask, mask_inf=1e9, bias=bias)
        torch.testing.assert_close(theirs * torch.sigmoid(gate), ours, rtol=1e-4, atol=1e-5)


def test_times_are_printed_and_recorded(tmp_path, capsys):
    record = tmp_path / "kernels.json"
    assert (
        main(
            [
                "perf",
                "kernels",
                "--preset",
                "demo",
                "--repeats",
                "2",
                "--only",
                "triangle",
                "--json",
                str(record),
            ]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert (
        "triangle_update, triangle, forward and backward" in text
        and "GB/s" in text
        and "transition" not in text
    )
    cases = json.loads(record.read_text())["figures"]["cases"]
    assert all(len(times["both"]) == 2 for case in cases for times in case["seconds"].values())
    assert {"ours", "plain"} <= set(cases[-1]["seconds"])


def test_a_failing_operation_is_recorded_and_the_others_are_measured(tmp_path, monkeypatch, capsys):
    reference = OPERATIONS["triangle_update"].reference

    def fail(z, *args, **kwargs):
        if z.is_meta:
            return reference(z, *args, **kwargs)
        raise RuntimeError("out of shared memory")

    failing = dataclasses.replace(OPERATIONS["triangle_update"], reference=fail)
    monkeypatch.setitem(OPERATIONS, "triangle_update", failing)
    record = tmp_path / "kernels.json"
    options = ["--preset", "demo", "--repeats", "1", "--only", "triangle", "--json", str(record)]
    assert main(["perf", "kernels", *options, "--without", "SDPA", "FlexAttention"]) == 1
    expected = "FAILED: triangle_update (triangle), plain: RuntimeError: out of shared memory"
    assert expected in capsys.readouterr().err
    metrics = json.loads(record.read_text())["figures"]
    cases = {case["operation"]: case for case in metrics["cases"]}
    assert "ours" in cases["triangle_update"]["seconds"]
    assert all(line.startswith("triangle_update") for line in metrics["failures"])
    assert {"ours", "plain"} <= set(cases["triangle_edges"]["seconds"])
    assert "SDPA" not in cases["attention core"]["seconds"]


def test_residual_attention_is_compared_with_the_operations_that_it_replaces(
    tmp_path, monkeypatch, capsys
):
    separate = build_kernel_set(KernelConfig(), "cpu")
    fused = dataclasses.replace(separate, residual_attention=separate_attention(separate))
    monkeypatch.setattr("benchmark.perf.kernels.build_kernel_set", lambda *_, **__: fused)
    record = tmp_path / "kernels.json"
    options = ["--preset", "demo", "--repeats", "1", "--only", "self_attention"]
    assert main(["perf", "kernels", *options, "--json", str(record)]) == 0
    cases = json.loads(record.read_text())["figures"]["cases"]
    found = {case["where"]: case for case in cases if case["operation"] == "residual_attention"}
    assert {"MSA row", "MSA column", "triangle"} <= set(found)
    assert all(set(case["seconds"]) == {"ours", "separate"} for case in found.values())
    rows = [line for line in capsys.readouterr().out.splitlines() if "residual_att" in line]
    assert all(row.split()[-1].endswith("x") for row in rows[-2 * len(found) :])


@pytest.mark.parametrize("bias", [{}, {"has_bias": True}, {"has_own_bias": True}])
def test_separate_attention_computes_the_same(bias):
    sizes = {"batch": 1, "groups": 16, "length": 16, "c": 32, "num_heads": 2, "c_head": 16}
    shapes = ResidualAttentionShapes(**({"has_bias": False} | sizes | bias))
    arguments = shapes.arguments(TensorMaker(device=CPU, dtype=torch.bfloat16))
    with torch.no_grad():
        # Only the gates have a bias.
        arguments.leaves[4][: 3 * 32] = 0.0
    kernels = build_kernel_set(KernelConfig.all("triton"), "cpu")
    found, expected = (
        arguments.call(each)(*arguments.leaves)
        for each in (kernels.residual_attention, separate_attention(kernels))
    )
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_no_matching_case_is_an_error(capsys):
    assert main(["perf", "kernels", "--preset", "demo", "--only", "magic", "--repeats", "1"]) == 2
    assert "--only magic" in capsys.readouterr().err


ONE_CASE = ["perf", "kernels", "--preset", "demo", "--repeats", "2", "--only", "transition"]
LIMITS = ("benchmark.perf.kernels.measure_copy", "benchmark.perf.kernels.measure_matmul")


@pytest.fixture
def fixed_limits(monkeypatch):
    """Skip the measurement of the machine's limits."""
    for name in LIMITS:
        monkeypatch.setattr(name, lambda *_, **__: 1e9)


def test_kernels_against_an_earlier_record(tmp_path, capsys, fixed_limits):
    earlier, later = tmp_path / "earlier.json", tmp_path / "later.json"
    assert main([*ONE_CASE, "--json", str(earlier)]) == 0
    record = json.loads(earlier.read_text())
    for case in record["figures"]["cases"]:
        case["seconds"]["ours"] = {"forward": [3600.0], "both": [7200.0]}
    earlier.write_text(json.dumps(record))
    capsys.readouterr()
    assert main([*ONE_CASE, "--json", str(later), "--against", str(earlier)]) == 0
    text = capsys.readouterr().out
    assert f"against: the kernels of {earlier}" in text and "against" in text.splitlines()[3]
    cases = json.loads(later.read_text())["figures"]["cases"]
    assert cases and all(
        case["seconds"]["against"] == {"forward": [3600.0], "both": [7200.0]} for case in cases
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "middle"}, "was measured with preset middle, this measurement has demo"),
        ({"device": "cuda:0"}, "was measured with device cuda, this measurement has cpu"),
        ({"cases": []}, "has none of the cases"),
        ({"cases": 5}, "expected a record of `perf kernels --json`"),
    ],
)
def test_a_record_that_cannot_be_compared_is_refused(
    tmp_path, capsys, fixed_limits, changes, message
):
    metrics = {"preset": "demo", "precision": "fp32", "device": "cpu", "cases": []} | changes
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps({"date": "2026-11-29", "figures": metrics}))
    assert main([*ONE_CASE, "--against", str(earlier)]) == 2
    assert message in capsys.readouterr().err


def test_a_path_that_is_neither_record_nor_checkout_is_refused(tmp_path, capsys):
    assert main([*ONE_CASE, "--against", str(tmp_path)]) == 2
    assert "neither a record of `perf kernels --json` nor a checkout" in capsys.readouterr().err


OTHER_CHECKOUT = """
import json, pathlib, sys
pathlib.Path("calls").open("a").write("called\\n")
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
seconds = {"forward": [1.0, 1.0], "both": [2.0, 2.0]}
case = {"operation": "transition", "where": "%s", "seconds": {"ours": seconds}}
metrics = {"preset": options["--preset"], "precision": options["--precision"]}
metrics |= {"device": "cpu", "cases": [case]}
pathlib.Path(sys.argv[-1]).write_text(json.dumps({"date": "", "figures": metrics}))
"""


def test_kernels_of_another_checkout_alternate_with_ours(tmp_path, capsys, fixed_limits):
    places = operations_of_step(build_preset("demo"))
    location = next(place.where for place in places if place.operation == "transition")
    package = tmp_path / "other" / "benchmark"
    (package / "perf").mkdir(parents=True)
    (package / "__main__.py").write_text(OTHER_CHECKOUT % location)
    (package / "perf" / "kernels.py").touch()
    record = tmp_path / "record.json"
    assert (
        main([*ONE_CASE, "--against", str(package.parent), "--rounds", "3", "--json", str(record)])
        == 0
    )
    assert (package.parent / "calls").read_text().count("called") == 3
    cases = {case["where"]: case for case in json.loads(record.read_text())["figures"]["cases"]}
    assert cases[location]["seconds"]["against"] == {"forward": [1.0] * 6, "both": [2.0] * 6}
    assert len(cases[location]["seconds"]["ours"]["both"]) == 6
    assert all(
        "against" in case["unavailable"] for where, case in cases.items() if where != location
    )


def test_a_checkout_whose_command_fails_is_an_error(tmp_path, capfd, fixed_limits):
    package = tmp_path / "benchmark"
    (package / "perf").mkdir(parents=True)
    (package / "perf" / "kernels.py").touch()
    (package / "__main__.py").write_text("import sys; sys.exit('broken kernels')")
    assert main([*ONE_CASE, "--against", str(tmp_path)]) == 2
    message = capfd.readouterr().err
    assert "broken kernels" in message and "wrote no record" in message


COMPARISON = """
import torch
from openfold_opt.model.compiled_parts import compile_for_processor
from openfold_opt.kernels.reference.dropout_residual import dropout_residual

x, update, mask = torch.randn(2, 3, 64), torch.randn(2, 3, 64), torch.ones(2, 1, 64)
compiled = compile_for_processor(dropout_residual)
torch.testing.assert_close(compiled(x, update, mask), dropout_residual(x, update, mask))
"""


@pytest.mark.compiler
def test_compiled_operations_of_several_processors_share_a_cache(tmp_path):
    # The first process fills the cache with code for this processor; the second has no vectors.
    for capability in (torch.backends.cpu.get_cpu_capability().lower(), "default"):
        environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
            "ATEN_CPU_CAPABILITY": capability,
        }
        command = [sys.executable, "-c", COMPARISON]
        shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert shown.returncode == 0, f"{capability}: {shown.stderr[-3000:]}"
