"""Presets by path: what is recorded, what is refused, and sizes from a data set."""

import dataclasses

import pytest

from benchmark import presets
from benchmark.__main__ import main
from benchmark.command_line import BenchmarkError
from benchmark.presets import build_preset, fit_preset, own_data, preset_label, preset_names
from tests.train.test_dataset_split import entry, index_of

TEXT = """
import dataclasses
from benchmark.presets import demo_one_phase

def build():
    return dataclasses.replace(demo_one_phase.build(), max_steps=7)
"""


def write(folder, text=TEXT, name="mine.py"):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_file_of_ones_own_is_built_and_recorded_by_its_path(tmp_path, monkeypatch):
    path = write(tmp_path)
    assert build_preset(path).max_steps == 7
    monkeypatch.chdir(tmp_path)
    assert preset_label("mine.py") == path and build_preset("mine.py").max_steps == 7
    assert "mine" not in preset_names()


def test_two_files_of_one_name_are_two_presets(tmp_path):
    (tmp_path / "other").mkdir()
    paths = [write(tmp_path), write(tmp_path / "other", TEXT.replace("=7", "=8"))]
    assert [build_preset(path).max_steps for path in paths] == [7, 8]


def test_the_path_of_a_file_of_the_package_is_its_name():
    assert preset_label(f"{presets.__path__[0]}/demo.py") == "demo" == preset_label("demo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"has no function build\(\)"),
        ("def build():\n    return 3", "returned a int, expected a RunConfig"),
        ("def build(:", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        (TEXT.replace("max_steps=7", "max_steps=0"), "max_steps=0: must be at least 1"),
        (TEXT.replace("max_steps=7", "global_batch_size=None"), "does not state its global batch"),
    ],
)
def test_a_file_that_is_no_preset_is_refused(tmp_path, text, message):
    path = write(tmp_path, text)
    for _ in range(2):
        with pytest.raises(BenchmarkError, match=message):
            build_preset(path)


def test_a_missing_file_is_refused(tmp_path, capsys):
    path = tmp_path / "absent.py"
    assert main(["rules", "--preset", str(path)]) == 2
    assert f"preset {path} is not a file; correct --preset" in capsys.readouterr().err


def test_own_data_takes_its_sizes_from_the_chains_to_train_on():
    chains = [entry(f"{i}abc_A", "2024-01-01", length=50 + i, cluster=i) for i in range(9)]
    config = own_data.build()
    assert len(own_data.select_training(index_of(*chains), config.selection)) == 8
    fitted = own_data.fit_to_data(config, index_of(*chains))
    assert fitted.data.crop_size in (57, 58) and fitted.data.max_templates == 0
    assert (fitted.data.max_msa_clusters, fitted.data.max_extra_msa) == (1, 1)
    changes = {"num_alignments": 999, "num_template_hits": 5, "sequence_length": 600}
    deep = [dataclasses.replace(chain, **changes) for chain in chains]
    data = own_data.fit_to_data(config, index_of(*deep)).data
    found = (data.crop_size, data.max_msa_clusters, data.max_extra_msa, data.max_templates)
    assert found == (256, 16, 32, 1)


def test_a_preset_without_fit_to_data_does_not_open_the_data(tmp_path):
    config = build_preset("demo")
    assert fit_preset("demo", config, tmp_path / "absent") is config
    with pytest.raises(BenchmarkError, match="does not exist"):
        fit_preset("own_data", build_preset("own_data"), tmp_path / "absent")
