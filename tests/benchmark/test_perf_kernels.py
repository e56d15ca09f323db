"""`perf kernels` on a CPU at the demo's shapes."""

import json

import pytest
import torch

from benchmark.__main__ import main
from benchmark.perf.kernel_cases import CaseMaker
from benchmark.perf.kernel_peers import attention_peers, core_leaves
from benchmark.presets import build_preset
from openfold_opt.kernels.reference.attention import attention
from openfold_opt.kernels.select import REFERENCE

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_operation_with_gradients_has_a_case_that_runs(precision):
    cases = list(CaseMaker(build_preset("demo"), device=CPU, precision=precision).cases())
    assert {case.operation for case in cases} == set(REFERENCE) - {"dropout_masks", "weight_update"}
    for case in cases:
        results = case.call(REFERENCE[case.operation])(*case.leaves)
        results = results if isinstance(results, tuple) else (results,)
        gradients = torch.autograd.grad(results, case.leaves, [torch.ones_like(x) for x in results])
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_the_attention_of_pytorch_is_asked_for_the_same():
    for case in CaseMaker(build_preset("demo"), device=CPU, precision="fp32").cases():
        if case.attention is None:
            continue
        sizes = case.attention
        projected, bias = core_leaves(sizes, dtype=torch.float32, device=CPU)
        found = (
            attention_peers(sizes, projected, bias)["SDPA"]()
            .transpose(-2, -3)
            .flatten(-2)
            .unflatten(0, (sizes.batch, sizes.groups))
        )
        mask = torch.ones(sizes.batch, sizes.groups, sizes.length)
        gate = projected[..., -sizes.num_heads * sizes.c_head :]
        ours = attention(projected, num_heads=sizes.num_heads, mask=mask, mask_inf=1e9, bias=bias)
        torch.testing.assert_close(found * torch.sigmoid(gate), ours, rtol=1e-4, atol=1e-5)


def test_table_and_record(tmp_path, capsys):
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
        "triangle_update, triangle, and backward" in text
        and "GB/s" in text
        and "transition" not in text
    )
    cases = json.loads(record.read_text())["figures"]["cases"]
    assert all(len(times["both"]) == 2 for case in cases for times in case["seconds"].values())
    assert {"ours", "plain"} <= set(cases[-1]["seconds"])


def test_a_failing_operation_is_recorded_and_the_others_are_measured(tmp_path, monkeypatch, capsys):
    def fails(*args, **kwargs):
        raise RuntimeError("out of shared memory")

    monkeypatch.setitem(REFERENCE, "triangle_update", fails)
    record = tmp_path / "kernels.json"
    options = ["--preset", "demo", "--repeats", "1", "--only", "triangle", "--json", str(record)]
    assert main(["perf", "kernels", *options, "--without", "SDPA", "FlexAttention"]) == 1
    expected = "FAILED: triangle_update (triangle), plain: RuntimeError: out of shared memory"
    assert expected in capsys.readouterr().err
    metrics = json.loads(record.read_text())["figures"]
    cases = {case["operation"]: case for case in metrics["cases"]}
    assert "ours" in cases["triangle_update"]["seconds"] and len(metrics["failures"]) == 1
    assert {"ours", "plain"} <= set(cases["triangle_edges"]["seconds"])
    assert "SDPA" not in cases["attention core"]["seconds"]


def test_nothing_to_measure_is_an_error(capsys):
    assert main(["perf", "kernels", "--preset", "demo", "--only", "magic", "--repeats", "1"]) == 2
    assert "--only magic" in capsys.readouterr().err


ONE_CASE = ["perf", "kernels", "--preset", "demo", "--repeats", "2", "--only", "transition"]
LIMITS = ("benchmark.perf.kernels.measure_copy", "benchmark.perf.kernels.measure_matmul")


@pytest.fixture
def quick(monkeypatch):
    for name in LIMITS:
        monkeypatch.setattr(name, lambda *_, **__: 1e9)


def test_kernels_against_an_earlier_record(tmp_path, capsys, quick):
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
        ({"cases": 5}, "is no record of `perf kernels --json`"),
    ],
)
def test_a_record_that_cannot_be_compared_is_refused(tmp_path, capsys, quick, changes, message):
    metrics = {"preset": "demo", "precision": "fp32", "device": "cpu", "cases": []} | changes
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps({"date": "2026-11-29", "figures": metrics}))
    assert main([*ONE_CASE, "--against", str(earlier)]) == 2
    assert message in capsys.readouterr().err


def test_what_is_neither_record_nor_checkout_is_refused(tmp_path, capsys):
    assert main([*ONE_CASE, "--against", str(tmp_path)]) == 2
    assert "neither a record of `perf kernels --json` nor a checkout" in capsys.readouterr().err


OTHER_CHECKOUT = """
import json, pathlib, sys
pathlib.Path("turns").open("a").write("their turn\\n")
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
case = {"operation": "transition", "where": "%s", "seconds": {"ours": {"forward": [1.0, 1.0], "both": [2.0, 2.0]}}}
metrics = {"preset": options["--preset"], "precision": options["--precision"], "device": "cpu", "cases": [case]}
pathlib.Path(sys.argv[-1]).write_text(json.dumps({"date": "", "metrics": metrics}))
"""


def test_kernels_of_another_checkout_take_turns_with_ours(tmp_path, capsys, quick):
    maker = CaseMaker(build_preset("demo"), device=CPU, precision="fp32")
    place = next(case.where for case in maker.cases() if case.operation == "transition")
    package = tmp_path / "other" / "benchmark"
    (package / "perf").mkdir(parents=True)
    (package / "__main__.py").write_text(OTHER_CHECKOUT % place)
    (package / "perf" / "kernels.py").touch()
    record = tmp_path / "record.json"
    assert (
        main([*ONE_CASE, "--against", str(package.parent), "--rounds", "3", "--json", str(record)])
        == 0
    )
    assert (package.parent / "turns").read_text().count("their turn") == 3
    cases = {case["where"]: case for case in json.loads(record.read_text())["figures"]["cases"]}
    assert cases[place]["seconds"]["against"] == {"forward": [1.0] * 6, "both": [2.0] * 6}
    assert len(cases[place]["seconds"]["ours"]["both"]) == 6
    assert all("against" in case["unavailable"] for where, case in cases.items() if where != place)


def test_a_checkout_whose_command_fails_is_an_error(tmp_path, capfd, quick):
    package = tmp_path / "benchmark"
    (package / "perf").mkdir(parents=True)
    (package / "perf" / "kernels.py").touch()
    (package / "__main__.py").write_text("import sys; sys.exit('broken kernels')")
    assert main([*ONE_CASE, "--against", str(tmp_path)]) == 2
    message = capfd.readouterr().err
    assert "broken kernels" in message and "left no record" in message
