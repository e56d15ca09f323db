"""`perf comm`: collectives of a step, measured on two gloo ranks and predicted."""

import json
import subprocess
from pathlib import Path

from benchmark.__main__ import main
from benchmark.perf.comm import ALL_REDUCE, step_collectives
from benchmark.presets import build_preset
from tests.support.gloo_ranks import torchrun

ROOT = Path(__file__).resolve().parents[3]


def test_two_ranks_measure_and_predict(tmp_path):
    record = tmp_path / "comm.json"
    command = [*torchrun(2), "-m", "benchmark", "perf", "comm"]
    options = [
        "--preset",
        "demo_dap2",
        "--passes",
        "0",
        "--repeats",
        "2",
        "--device",
        "cpu",
        "--steps",
        "--json",
        str(record),
    ]
    process = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=180
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.count("collectives of a step of demo_dap2") == 1, "only rank 0 reports"
    metrics = json.loads(record.read_text())["figures"]
    assert {"all-gather", "all-to-all", "reduce-scatter", ALL_REDUCE} == set(metrics["fits"])
    for step in metrics["sharded_steps"]:
        assert min(step["seconds"]) > 0
        # The number of collectives does not depend on the sizes.
        assert sum(each["calls"] for each in step["counts"]["collectives"]) == sum(
            row["times"] for row in metrics["collectives"] if row["kind"] != ALL_REDUCE
        )
    assert all(
        len(row["seconds"]) == 2 and row["predicted_seconds"] > 0 for row in metrics["collectives"]
    )


def test_recycling_iterations_have_no_backward_collectives():
    counts = [
        step_collectives(build_preset("demo_dap2"), dap_size=2, num_recycling_iterations=iterations)
        for iterations in (0, 1)
    ]
    kinds = [
        {
            kind: sum(times for (_, other, _), times in count.items() if other == kind)
            for kind in ("all-gather", "reduce-scatter")
        }
        for count in counts
    ]
    assert kinds[1]["reduce-scatter"] == kinds[0]["reduce-scatter"]
    assert kinds[1]["all-gather"] > kinds[0]["all-gather"]


def test_one_rank_is_refused(capsys):
    assert main(["perf", "comm", "--preset", "demo"]) == 2
    assert "torchrun --nproc-per-node 2" in capsys.readouterr().err


def test_steps_need_a_cpu(capsys):
    assert main(["perf", "comm", "--preset", "middle", "--steps"]) == 2
    assert "--steps needs --device cpu and a preset in fp32" in capsys.readouterr().err
