"""Systems of the planner: those that ship, and files with errors."""

import json

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.plan.systems import (
    Price,
    load_system,
    parse_system,
    system_json,
    system_names,
)


@pytest.mark.parametrize("name", system_names())
def test_a_system_that_ships_names_the_source_of_each_figure(name):
    system = load_system(name)
    assert system.name == name
    stated = system_json(system).keys() - {"name", "sources"}
    # The GPU's own name needs no source where a data sheet of the system has it.
    assert stated - system.sources.keys() <= {"gpu"}
    assert parse_system(json.loads(json.dumps(system_json(system)))) == system


def example(**changes) -> dict:
    value = system_json(load_system("h100_sxm")) | changes
    return {name: item for name, item in value.items() if item != "remove"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cores_per_node": "remove"}, 'cores_per_node is missing; example: "cores_per_node": 112'),
        ({"bandwith": 1}, "unknown field bandwith; expected name, gpu"),
        ({"gpu": "h1000"}, "gpu is 'h1000'; expected one of"),
        ({"gpus_per_node": 0}, "gpus_per_node is 0; expected a whole number"),
        ({"within_node": {"latency_seconds": 1e-6}}, "within_node.bytes_per_second is missing"),
        (
            {"between_nodes": {"latency_seconds": -1, "bytes_per_second": 1}},
            "between_nodes: latency_seconds is -1; expected a number from 1e-09 to 10",
        ),
        ({"power_watts": "700 W"}, "power_watts is '700 W'; expected a number from 1 to 1e+06"),
        (
            {"price": {"amount": 2, "unit": "dollars/second"}},
            "price: unit is 'dollars/second'; expected a currency",
        ),
        ({"price": {"amount": -2, "unit": "USD/GPU-hour"}}, "price: amount is -2"),
        ({"calibration": {"memory": 0}}, "calibration of memory is 0; expected a number from"),
        ({"calibration": {"nope": 2}}, "calibration: unknown class ['nope']; expected ['wgmma'"),
        ({"calibration": 5}, "calibration is 5; expected an object"),
        ({"name": 5}, "name is 5; expected a text of one line"),
        ({"name": ["a"]}, "name is ['a']; expected a text of one line"),
        ({"name": " "}, "name is ' '; expected a text of one line"),
        ({"name": "a\nb"}, "name is 'a\\nb'; expected a text of one line"),
        ({"sources": {"x": 5}}, "sources: unknown field x; expected name, gpu"),
        ({"sources": {"price": 5}}, "sources.price is 5; expected a text of one line"),
        ({"sources": [1]}, "sources is [1]; expected an object"),
        ({"within_node": 5}, "within_node is 5; expected an object"),
        ({"a\nb": 5}, "unknown field 'a\\nb'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, changes, message):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(example(**changes)))
    with pytest.raises(BenchmarkError) as error:
        load_system(str(path))
    assert message in str(error.value)
    assert str(path) in str(error.value)


NUMBERS = [
    *("gpus_per_node", "cores_per_node", "num_gpus", "memory_bytes", "bytes_per_second"),
    *("bf16_flops_per_second", "tf32_flops_per_second", "power_watts", "calibration.memory"),
    *("within_node.latency_seconds", "within_node.bytes_per_second", "price.amount"),
]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_its_range_is_refused(tmp_path, capsys, name):
    path = tmp_path / "mine.json"
    for text in ("9" * 400, "1e300", "-1", "NaN", "Infinity", "true", '"5"', "[]", "1e-300"):
        value = example(price={"amount": 2.5, "unit": "USD/GPU-hour"}, calibration={})
        *parents, last = name.split(".")
        within = value[parents[0]] if parents else value
        within[last] = json.loads(text)
        path.write_text(json.dumps(value))
        arguments = ["--preset", "mlperf_16x8_dap1", "--system", str(path)]
        if (name, text) == ("price.amount", "1e-300"):
            continue  # An amount may be any that is not negative.
        assert main(["plan", "train", *arguments]) == 2
        message = capsys.readouterr().err
        assert f"{last} is " in message and "number from" in message
        assert len(message.splitlines()) == 1 and len(message) < 400


@pytest.mark.parametrize("content", ["[" * 100_000, "[" * 900 + "]" * 900, "{", "5", "9" * 5000])
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path, capsys, content):
    path = tmp_path / "mine.json"
    path.write_text(content)
    train = ["train", "--preset", "mlperf_16x8_dap1"]
    for arguments in (
        [*train, "--system", str(path)],
        [*train, "--system", "h100_sxm", "--counts", str(path)],
        ["systems", str(path)],
        ["systems", "--calibrate", str(path), "--out", str(tmp_path / "out.json")],
        ["systems", "h100_sxm", "--calibrate", str(path), "--out", str(tmp_path / "out.json")],
    ):
        assert main(["plan", *arguments]) == 2
        message = capsys.readouterr().err
        assert str(path) in message and "expected" in message
        assert len(message.splitlines()) == 1 and "Errno" not in message


def test_an_unknown_system_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(BenchmarkError, match="unknown system 'h100'; there are: a100_40_sxm"):
        load_system("h100")
    with pytest.raises(BenchmarkError, match="No such file"):
        load_system(str(tmp_path / "none.json"))


def test_a_price_of_a_node_is_divided_by_its_gpus():
    assert Price(amount=16.0, unit="EUR/node-hour").per_gpu_hour(8) == 2.0
    assert Price(amount=2.5, unit="USD/GPU-hour").per_gpu_hour(8) == 2.5


def test_a_stated_figure_replaces_that_of_the_chip():
    assert load_system("a100_80_pcie").chip.bytes_per_second == 1.935e12
    assert load_system("a100_80_sxm").chip.bytes_per_second == 2.039e12


def test_systems_are_listed_with_their_sources(tmp_path, capsys):
    path = tmp_path / "systems.json"
    assert main(["plan", "systems", "perlmutter", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "perlmutter" in shown and "Slingshot 11" in shown
    assert json.loads(path.read_text())[0]["gpus_per_node"] == 4
