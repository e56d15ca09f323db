"""`benchmark rules` for every field of the configuration, and for fields without a category."""

import dataclasses
import re
from typing import Any, ClassVar

import pytest

from benchmark.__main__ import main
from benchmark.mlperf import rules
from benchmark.presets import build_preset
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.train.config import config_fields
from openfold_opt.train.optim.adam import OptimizerConfig

REFERENCE = build_preset("mlperf_reference")
FIELDS = {leaf.path: leaf for leaf in config_fields(REFERENCE)}
NAMES_OF_VALUES = {
    "selection.validation_rule": ["release_dates"],
    "loader.prefetch": ["direct"],
    "loader.start_method": ["spawn"],
    "device": ["cpu"],
    "precision": ["bf16"],
    "optimizer.clip_per": ["sample"],
    "compiled_parts": [("losses",)],
}
"""Fields with a choice of names -> other names."""
MADE_OF_NOTHING = {
    "selection.train_chain_ids": [("1abc_A",)],
    "parallel.evaluation_dap_min_length": [512],
    "parallel.backend": ["gloo"],
    "torch_threads": [4],
}
"""Fields that are None in the reference -> a value."""
NEED_ANOTHER_FIELD = ("selection.validation_chain_ids", "schedule.decay_every_steps")
"""Fields that cannot change alone: they need another validation_rule or decay_factor."""


def other_values(path: str, value: Any) -> list[Any]:
    """Return other values to try for a field."""
    if path in NAMES_OF_VALUES:
        return NAMES_OF_VALUES[path]
    if value is None:
        return MADE_OF_NOTHING[path]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2]
    if isinstance(value, float):
        return [value / 2, value + 0.5]
    if isinstance(value, tuple):
        return [(*value, "1abc_A" if path.endswith("ids") else 100)]
    if re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return ["2020-01-01"]
    return [value[::-1]]


def replace_at(config: Any, path: str, value: Any) -> Any:
    """Return the configuration with one field changed."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(
        config, **{name: replace_at(getattr(config, name), rest, value) if rest else value}
    )


def change(path: str) -> tuple[Any, Any]:
    """Return the reference with another value in this field, and the value."""
    for value in other_values(path, FIELDS[path].value):
        try:
            config = replace_at(REFERENCE, path, value)
        except ValueError:
            continue
        if value != FIELDS[path].value:
            return config, value
    raise AssertionError(f"no other value known for {path}; add one to the tables above")


@pytest.fixture(scope="module")
def judge_preset(tmp_path_factory):
    """Return a function that runs the command on a configuration and returns its exit code.

    The check of the log is skipped; test_dry_run_log.py tests it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "closed_refusals", lambda config, samples: [])

        def judge(config, *flags):
            patch.setattr(
                rules,
                "build_preset",
                lambda name: config if name == "changed" else build_preset(name),
            )
            return main(["rules", "--preset", "changed", *flags])

        yield judge


@pytest.mark.parametrize(
    "path",
    [
        leaf.path
        for leaf in FIELDS.values()
        if leaf.category == "mathematical" and leaf.path not in NEED_ANOTHER_FIELD
    ],
)
def test_a_changed_field_that_the_rules_fix_makes_it_open_and_is_named(path, judge_preset, capsys):
    config, value = change(path)
    assert judge_preset(config) == 0
    head, cause, *_ = capsys.readouterr().out.split("\n\n")
    assert head == "preset changed: open division"
    assert cause.splitlines() == [
        "makes it open (the rules fix these):",
        f"  {path}: {value!r} (mlperf_reference: {FIELDS[path].value!r})",
    ]
    assert judge_preset(config, "--require", "closed") == 1


@pytest.mark.parametrize(
    "path", [leaf.path for leaf in FIELDS.values() if leaf.category != "mathematical"]
)
def test_another_changed_field_keeps_it_closed_and_is_named(path, judge_preset, capsys):
    if path == "recompute":
        config, value = replace_at(REFERENCE, path, "auto"), "auto"
    elif path.startswith("kernels."):
        config, value = replace_at(REFERENCE, path, "triton"), "triton"
    else:
        config, value = change(path)
    assert judge_preset(config, "--require", "closed") == 0
    head, cause, *_ = capsys.readouterr().out.split("\n\n")
    assert head == "preset changed: closed division"
    assert cause.splitlines() == [
        f"{rules.HEADINGS[FIELDS[path].category]}:",
        f"  {path}: {value!r} (mlperf_reference: {FIELDS[path].value!r})",
    ]


def test_listed_validation_chains_make_it_open_and_are_named_with_their_rule(judge_preset, capsys):
    changes = {"validation_rule": "chain_ids", "validation_chain_ids": ("1abc_A",)}
    selection = dataclasses.replace(REFERENCE.selection, **changes)
    config = dataclasses.replace(REFERENCE, selection=selection)
    assert judge_preset(config, "--require", "closed") == 1
    head, cause, *_ = capsys.readouterr().out.split("\n\n")
    assert head == "preset changed: open division"
    named = [line.split(":")[0].strip() for line in cause.splitlines()[1:]]
    assert named == [f"selection.{name}" for name in changes]


def with_part(name: str, part: Any) -> Any:
    return dataclasses.replace(REFERENCE, **{name: part})


def test_a_new_field_without_a_mark_is_refused():
    grown = dataclasses.make_dataclass(
        "Grown", [("brand_new", int, 1)], bases=(LoaderConfig,), frozen=True, kw_only=True
    )
    with pytest.raises(
        ValueError, match="config field loader.brand_new has category None; expected one of"
    ):
        rules.compare(with_part("loader", grown()), REFERENCE)


def test_a_new_class_without_a_mark_is_refused():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class UnmarkedConfig:
        brand_new: int = 1

    with pytest.raises(ValueError, match="config field weight_average.brand_new has category None"):
        rules.compare(with_part("weight_average", UnmarkedConfig()), REFERENCE)


def test_a_class_has_one_mark_or_each_of_its_fields_has():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class MixedConfig:
        category: ClassVar[str] = "implementation"
        a: int = dataclasses.field(default=1, metadata={"category": "mathematical"})

    with pytest.raises(
        ValueError,
        match="'mathematical' but its class MixedConfig has 'implementation'; remove the category",
    ):
        list(config_fields(MixedConfig()))


def test_a_preset_cannot_change_categories():
    class CheatingConfig(OptimizerConfig):
        category: ClassVar[str] = "implementation"

    assert rules.preset_division(with_part("optimizer", CheatingConfig(clip_norm=1.0))) == "open"


def test_list_has_every_field_with_its_category(judge_preset, capsys):
    assert judge_preset(REFERENCE, "--list") == 0
    listed = capsys.readouterr().out.partition("every field:\n")[2].splitlines()
    assert [tuple(line.split(": ")[0].split()) for line in listed] == [
        (leaf.category, leaf.path) for leaf in FIELDS.values()
    ]


@pytest.mark.parametrize(
    ("path", "is_named"),
    [
        ("model.c_m", True),
        ("model.evoformer_stack.pair_dropout_rate", False),
        ("selection.validation_max_length", True),
        ("selection.train_max_release_date", False),
        ("optimizer.clip_norm", False),
        ("local_batch_size", False),
    ],
)
def test_another_model_or_validation_set_is_not_in_the_open_division(
    judge_preset, capsys, path, is_named
):
    judge_preset(change(path)[0])
    lines = capsys.readouterr().out.splitlines()
    found = [
        number
        for number, line in enumerate(lines)
        if line.startswith("not of the open division either")
    ]
    assert len(found) == is_named
    assert not found or lines[found[0] + 1] == f"  {path.partition('.')[0]}: 1 of the fields above"
