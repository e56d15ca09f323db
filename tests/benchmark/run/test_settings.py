"""`--set` takes typed values of existing fields, and makes a run open."""

import json

import pytest

from benchmark.command_line import BenchmarkError
from benchmark.finding import FAIL
from benchmark.mlperf.rules import division_of_run
from benchmark.presets import build_preset, preset_names
from benchmark.run.settings import apply_settings, read_config
from benchmark.submission.provenance import check_settings
from benchmark.submission.submitted_run import find_runs
from openfold_opt.train.config import config_fields
from openfold_opt.train.phases import phases_of
from tests.support.demo_logs import write_demo_log, write_record


@pytest.fixture(scope="module")
def demo():
    return build_preset("demo_one_phase")


@pytest.mark.parametrize("name", preset_names())
def test_every_field_of_every_preset_reads_its_own_value_back(name):
    config = build_preset(name)
    for leaf in config_fields(config):
        value = leaf.value
        text = "none" if value is None else str(value)
        if isinstance(value, tuple):
            text = ",".join(map(str, value))
        assert apply_settings(config, [f"{leaf.path}={text}"]) == config, leaf.path


@pytest.mark.parametrize(
    ("setting", "read", "expected"),
    [
        ("data.crop_size=12", lambda c: c.data.crop_size, 12),
        ("schedule.base_learning_rate=3e-4", lambda c: c.schedule.base_learning_rate, 3e-4),
        ("use_dropout=True", lambda c: c.use_dropout, True),
        ("recompute=auto", lambda c: c.recompute, "auto"),
        ("recompute=false", lambda c: c.recompute, False),
        ("torch_threads=none", lambda c: c.torch_threads, None),
        ("torch_threads=3", lambda c: c.torch_threads, 3),
        ("compiled_parts=heads,losses", lambda c: c.compiled_parts, ("heads", "losses")),
        ("schedule.decay_steps=50,90", lambda c: c.schedule.decay_steps, (50, 90)),
        ("schedule.decay_steps=", lambda c: c.schedule.decay_steps, ()),
        (
            "selection.train_chain_ids=1abc_A,1abc_B",
            lambda c: c.selection.train_chain_ids,
            ("1abc_A", "1abc_B"),
        ),
        ("selection.train_chain_ids=none", lambda c: c.selection.train_chain_ids, None),
        ("model.evoformer_stack.num_blocks=3", lambda c: c.model.evoformer_stack.num_blocks, 3),
    ],
)
def test_values_have_the_type_of_their_field(demo, setting, read, expected):
    found = read(apply_settings(demo, [setting]))
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.crop_size"], "expected FIELD=VALUE"),
        (["data.crop_sze=3"], "no such field; did you mean data.crop_size"),
        (["data=3"], "no such field; did you mean"),
        (["zzz=3"], "no such field; see `rules --list`"),
        (["data.crop_size=3.5"], "'3.5' is not a value of type int"),
        (["data.crop_size=0"], "DataConfig.crop_size is 0, expected at least 1"),
        (["use_dropout=1"], "'1' is not a value of type bool"),
        (["schedule.base_learning_rate=nan"], "'nan' is not a value of type float"),
        (["max_steps=none"], "'none' is not a value of type int"),
        (["max_steps=3", "max_steps=4"], "max_steps is given twice"),
        (["precision=fp8"], "unknown precision 'fp8'"),
    ],
)
def test_invalid_settings_are_refused(demo, settings, message):
    with pytest.raises(BenchmarkError, match=message):
        apply_settings(demo, settings)


def test_fields_that_depend_on_each_other_come_in_any_order(demo):
    settings = ["local_batch_size=4", "global_batch_size=8"]
    for order in (settings, settings[::-1]):
        config = apply_settings(demo, order)
        assert (config.local_batch_size, config.global_batch_size) == (4, 8)


@pytest.mark.parametrize(
    ("setting", "phase", "other"),
    [
        ("schedule.base_learning_rate=1e-3", "short_crops", "phases.0.schedule.base_learning_rate"),
        ("data.max_templates=0", "short_crops", "phases.0.data.max_templates"),
        ("loss.plddt.weight=0.5", "violations", "phases.3.loss.plddt.weight"),
        ("evaluation.target_lddt_ca=0.5", "violations", "phases.3.end_lddt_ca"),
    ],
)
def test_a_field_that_a_phase_replaces_is_refused(setting, phase, other):
    with pytest.raises(BenchmarkError, match=f"phase {phase} .* also set {other}, or take"):
        apply_settings(build_preset("demo"), [setting])


def test_a_field_that_is_set_for_its_phases_too_is_taken():
    settings = ["data.max_templates=0", "phases.0.data.max_templates=0"]
    config = apply_settings(build_preset("demo"), [*settings, "phases.1.data.max_templates=1"])
    assert [phase.config.data.max_templates for phase in phases_of(config)] == [0, 1, 0, 0]


def test_a_field_that_no_phase_replaces_is_taken():
    config = apply_settings(build_preset("demo"), ["model.c_m=64", "max_steps=9"])
    assert config.model.c_m == 64 and config.max_steps == 9


def test_any_setting_makes_a_run_open():
    reference = build_preset("mlperf_reference")
    assert division_of_run(reference, ()) == "closed"
    # the rules leave this field free, but no file of the commit has the value
    settings = ["schedule.warmup_steps=7"]
    assert division_of_run(apply_settings(reference, settings), settings) == "open"


def test_submit_refuses_a_run_with_settings(tmp_path):
    for number in (1, 2):
        write_demo_log(tmp_path / f"run_{number}" / "mlperf.log", seed=number)
        write_record(tmp_path / f"run_{number}", commit="1" * 40)
    assert check_settings(find_runs([tmp_path])) == []
    record = tmp_path / "run_1" / "config.json"
    content = json.loads(record.read_text()) | {"settings": ["max_steps=9"]}
    record.write_text(json.dumps(content))
    (finding,) = check_settings(find_runs([tmp_path]))
    assert (
        finding.state == FAIL and finding.text == "fields changed by --set\nresult_0: max_steps=9"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is another file"),
        ("{}", "has no field 'preset'"),
        ('{"preset": 3}', "its preset is no text"),
        ('{"preset": "demo", "settings": [1]}', "settings are no list of texts"),
        ('{"preset": "demo", "settings": "max_steps=3"}', "settings are no list of texts"),
    ],
)
def test_a_damaged_configuration_of_a_run_is_named(tmp_path, text, expected):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BenchmarkError, match=expected) as error:
        read_config(tmp_path)
    assert "config.json" in str(error.value)
