"""`plan systems --calibrate`: measured rates replace assumed ones."""

import json

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.plan.calibration import calibrate
from benchmark.plan.step_counts import PROJECT
from benchmark.plan.step_model import Layout, predict_step
from benchmark.plan.systems import load_system
from tests.support.step_counts import small_step

KERNELS = {
    "measurement": "kernels",
    "figures": {
        "device": "cuda",
        "copy_bytes_per_second": 1.4e12,
        "matmul_flops_per_second": 300e12,
    },
}
COMM = {
    "measurement": "comm",
    "figures": {
        "device": "cuda:0",
        "num_ranks": 8,
        "fits": {
            "all-gather": {"latency_seconds": 1e-5, "bytes_per_second": 1e11},
            "all-to-all": {"latency_seconds": 3e-5, "bytes_per_second": 3e11},
            "reduce-scatter": {"latency_seconds": 2e-5, "bytes_per_second": 2e11},
        },
    },
}


def written(tmp_path, record):
    path = tmp_path / f"{record['measurement']}.json"
    path.write_text(json.dumps(record))
    return path


def test_half_the_bandwidth_doubles_the_work(tmp_path):
    system = load_system("h100_sxm")
    slow = calibrate(system, [written(tmp_path, KERNELS)])
    rates = system.chip.sustained
    assert slow.calibration["memory"] == pytest.approx(rates.bytes_per_second / 1.4e12)
    assert slow.calibration["wgmma"] == pytest.approx(rates.matmul_flops_per_second / 300e12)
    layout = Layout(code=PROJECT, num_gpus=1)
    before, after = (
        predict_step(small_step(PROJECT, 1), each, layout).parts["compute"]
        for each in (system, slow)
    )
    assert 1.9 < after / before < 2.1


def test_measured_collectives_replace_the_link(tmp_path):
    record = written(tmp_path, COMM)
    within = calibrate(load_system("h100_sxm"), [record])
    assert within.within_node.latency_seconds == 2e-5
    assert within.within_node.bytes_per_second == 2e11
    assert within.sources["within_node"] == "measured: comm.json"
    assert calibrate(load_system("perlmutter"), [record]).between_nodes == within.within_node


def test_a_calibrated_system_is_written(tmp_path, capsys):
    record, out = written(tmp_path, KERNELS), tmp_path / "mine.json"
    arguments = ["h100_sxm", "--calibrate", str(record), "--out", str(out)]
    assert main(["plan", "systems", *arguments]) == 0
    assert load_system(str(out)).sources["calibration"] == "measured: kernels.json"
    assert main(["plan", "systems", "--calibrate", str(record)]) == 2
    assert "needs --out FILE and one system" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"measurement": "loader", "figures": {}}, "a record of `perf loader`"),
        ({"figures": {}}, "expected a record that `perf --json` wrote"),
        ({"measurement": "comm", "figures": {}}, "no fits of collectives"),
        (KERNELS | {"figures": KERNELS["figures"] | {"device": "cpu"}}, "of a GPU, found"),
        (COMM | {"figures": COMM["figures"] | {"device": "cpu"}}, "of GPUs, found device 'cpu'"),
        (COMM | {"figures": COMM["figures"] | {"num_ranks": float("nan")}}, "num_ranks is nan"),
    ],
)
def test_other_records_are_refused(tmp_path, record, message):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    with pytest.raises(BenchmarkError, match=message):
        calibrate(load_system("h100_sxm"), [path])
