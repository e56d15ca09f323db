"""`describe-system`: collected keys, keys of the site file, and errors."""

import json

import pytest

from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.finding import FAIL
from benchmark.submission.description import MEANINGS, check_description, read_description
from benchmark.submission.machine_description import accelerator_keys, processor_keys
from tests.support.demo_logs import write_description

SITE = """
submitter = "Example"
division = "open"
status = "research"
system_name = "two cores"
number_of_nodes = 1
host_networking = "none"
host_memory_capacity = "1 TiB"
"""


def errors_of(path):
    return [
        finding.text
        for finding in check_description(json.loads(path.read_text()))
        if finding.state == FAIL
    ]


def test_collected_and_site_keys_make_a_complete_description(tmp_path, capsys):
    (tmp_path / "site.toml").write_text(SITE)
    out = tmp_path / "two_cores.json"
    assert (
        main(["describe-system", "--out", str(out), "--site", str(tmp_path / "site.toml")]) == 0
    ), capsys.readouterr().out
    content = read_description(out)
    assert content.keys() == MEANINGS.keys()
    assert content["number_of_nodes"] == "1"
    assert content["host_memory_capacity"] == "1 TiB"
    assert content["framework"].startswith("PyTorch ")
    assert content["other_software_stack"]["mlperf-logging_version"][0].isdigit()


def test_missing_keys_are_printed_as_lines_for_the_site(tmp_path, capsys):
    assert main(["describe-system", "--out", str(tmp_path / "x.json")]) == 1
    text = capsys.readouterr().out
    assert "FAIL  system description: submitter: is empty" in text
    assert '\nsubmitter = ""  # ' in text
    with pytest.raises(BenchmarkError, match="host_networking: is empty"):
        read_description(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"division": "Closed"}, "division: is 'Closed'; expected one of closed, open"),
        ({"number_of_nodes": 4}, "number_of_nodes: is 4; expected a string"),
        ({"number_of_nodes": "four"}, "number_of_nodes: is 'four'; expected an integer"),
        (
            {"submitter": "A University"},
            "submitter: is 'A University'; it becomes the name of a folder",
        ),
        ({"host_processor_core_count": ""}, "one of them is required"),
        ({"accelerators_per_node": "8"}, "accelerator_memory_capacity: is empty"),
    ],
)
def test_invalid_values_are_named(tmp_path, changes, expected):
    path = write_description(tmp_path / "x.json", **changes)
    assert any(expected in error for error in errors_of(path)), errors_of(path)


def test_a_missing_key_is_named(tmp_path):
    path = write_description(tmp_path / "x.json")
    path.write_text(
        json.dumps(
            {key: value for key, value in json.loads(path.read_text()).items() if key != "cooling"}
        )
    )
    assert errors_of(path) == ["cooling: is missing (air or liquid)"]


def test_published_description_is_complete(shared):
    assert errors_of(shared / "facts" / "system_example.json") == []


def test_invalid_files_are_refused(tmp_path, capsys):
    (tmp_path / "site.toml").write_text("owner = 1\n")
    assert (
        main(
            [
                "describe-system",
                "--out",
                str(tmp_path / "x.json"),
                "--site",
                str(tmp_path / "site.toml"),
            ]
        )
        == 2
    )
    assert "keys that a system description does not have: owner" in capsys.readouterr().err
    for out in (tmp_path, tmp_path / "site.toml" / "x.json"):
        assert main(["describe-system", "--out", str(out)]) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.parent.glob(".*.tmp")) == []
    path = write_description(tmp_path / "two cores.json")
    with pytest.raises(BenchmarkError, match="becomes the name of a folder"):
        read_description(path)


@pytest.mark.parametrize("content", ["{", "[" * 100_000])
def test_a_description_that_is_not_json_is_refused(tmp_path, content):
    path = tmp_path / "system.json"
    path.write_text(content)
    with pytest.raises(BenchmarkError, match="system.json is not JSON"):
        read_description(path)


def test_processor_keys_from_flat_and_nested_lscpu():
    flat = [{"field": "Socket(s):", "data": "2"}, {"field": "Core(s) per socket:", "data": "56"}]
    flat.append({"field": "CPU max MHz:", "data": "3800.0000"})
    nested = [
        {
            "field": "Vendor ID:",
            "data": "GenuineIntel",
            "children": [{"field": "Model name:", "data": "Xeon", "children": flat}],
        }
    ]
    for entries in (flat, nested):
        keys = processor_keys(json.dumps({"lscpu": entries}))
        assert keys["host_processors_per_node"] == "2"
        assert keys["host_processor_core_count"] == "56"
        assert keys["host_processor_frequency"] == "3800 MHz"
    assert keys["host_processor_model_name"] == "Xeon"
    assert processor_keys("")["host_processors_per_node"] == ""


def test_accelerator_keys_from_nvidia_smi():
    keys = accelerator_keys("NVIDIA H200, 143771, 570.86.15, 1980, 5, 16\n" * 8)
    assert keys["accelerators_per_node"] == "8"
    assert keys["accelerator_model_name"] == "NVIDIA H200"
    assert keys["accelerator_memory_capacity"] == "140 GiB"
    assert keys["accelerator_frequency"] == "1980 MHz"
    assert keys["accelerator_host_interconnect"] == "PCIe 5 x16"
    assert accelerator_keys("") == {"accelerators_per_node": "0"}
    assert (
        accelerator_keys("NVIDIA X, [N/A], 570, [N/A], [N/A], [N/A]\n")[
            "accelerator_memory_capacity"
        ]
        == ""
    )
