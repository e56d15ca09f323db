"""Every preset builds; the closed ones differ from the reference only where the rules allow."""

import dataclasses

import pytest

from benchmark.presets import build_preset, preset_names
from benchmark.rules import compare, preset_division
from openfold_opt.train.config import RunConfig, config_fields

PRESETS = preset_names()
PLAY = {"demo_2x2", "demo_async_eval", "demo_ci_2x2", "demo_dap2", "demo", "demo_ci", "middle", "real_smoke"}


def test_presets_that_the_documents_promise_exist():
    assert {"mlperf_reference", *PLAY} <= set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_builds_and_every_field_is_marked(name):
    config = build_preset(name)
    assert isinstance(config, RunConfig)
    assert len(list(config_fields(config))) > 100


@pytest.mark.parametrize("name", PRESETS)
def test_preset_states_its_global_batch(name):
    assert build_preset(name).global_batch_size is not None


@pytest.mark.parametrize("name", PRESETS)
def test_preset_is_frozen_all_the_way_down(name):
    def check(config):
        assert dataclasses.is_dataclass(config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, dataclasses.fields(config)[0].name, None)
        for item in dataclasses.fields(config):
            value = getattr(config, item.name)
            if dataclasses.is_dataclass(value):
                check(value)
            else:
                hash(value)

    check(build_preset(name))


@pytest.mark.parametrize("name", PRESETS)
def test_division_is_that_of_the_differences(name):
    config = build_preset(name)
    mathematical = [d for d in compare(config, build_preset("mlperf_reference")) if d.mark == "mathematical"]
    assert preset_division(config) == ("open" if mathematical else "closed")
    assert (name in PLAY) == bool(mathematical)
    if not mathematical:
        assert config.init_checkpoint_sha256, "a closed preset starts from the published checkpoint"


@pytest.mark.parametrize("name", sorted(set(PRESETS) - PLAY))
def test_only_presets_for_play_choose_a_device_at_launch(name):
    assert build_preset(name).device != "auto"
