"""`plan loader`: the table, its JSON and its messages."""

import json

import pytest

from benchmark.__main__ import main

QUICK = ["plan", "loader", "--step-seconds", "0.5", "--steps", "40"]


def test_every_number_of_the_table_is_in_the_json(tmp_path, capsys):
    path = tmp_path / "out.json"
    options = ["--groups", "1", "4", "--windows", "0", "16", "--json", str(path)]
    assert main([*QUICK, *options]) == 0
    text, saved = capsys.readouterr().out, json.loads(path.read_text())
    assert [entry["setting"]["num_groups"] for entry in saved["results"]] == [1, 1, 4, 4]
    assert saved["times"]["source"].startswith("results/measured/2026-11-29_perf_data_real.json")
    assert saved["times"]["chains"] == 88
    for entry in saved["results"]:
        assert f"{entry['waits']['lost_share']:.1%}" in text
    assert "4 x in order" in text and "4 x 16" in text


def test_slower_processors_wait_longer(tmp_path):
    shares = []
    for scale in ("1", "3"):
        path = tmp_path / f"{scale}.json"
        assert main([*QUICK, "--time-scale", scale, "--json", str(path)]) == 0
        shares.append(json.loads(path.read_text())["results"][0]["busy_share"])
    assert shares[1] == pytest.approx(3 * shares[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--times", "absent.json"], "absent.json cannot be read: No such file or directory"),
    ],
)
def test_bad_input_is_named(options, message, capsys):
    assert main([*QUICK, *options]) == 2
    assert message in capsys.readouterr().err
