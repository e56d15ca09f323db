"""Settings that belong to weights, each with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from openfold_opt.model.config import ModelConfig
from openfold_opt.model.weights import WeightsError

Origin = Literal["weights", "run", "option", "default"]
"""The keys of the weights, the configuration of the run, an option, or a default."""

MAX_MSA_ROWS = 512
"""Rows of the clustered MSA of AlphaFold's and OpenFold's fine-tuned models, template rows
included."""
MAX_EXTRA_MSA = 1024
"""Rows of the extra MSA of AlphaFold's models 2 and 5. Models 1, 3 and 4 were trained with 5120."""
MAX_TEMPLATES = 4
NUM_RECYCLING_ITERATIONS = 3

_MINIMA = {
    "max_msa_clusters": 1,
    "max_extra_msa": 1,
    "max_templates": 0,
    "num_recycling_iterations": 0,
}
"""Settings that an option can change, with their smallest values."""
_RUN_FIELDS = {
    "max_msa_clusters": "max_msa_clusters",
    "max_extra_msa": "max_extra_msa",
    "max_templates": "max_templates",
    "num_recycling_iterations": "max_recycling_iterations",
}
"""Setting -> field of the samples in the configuration of a run."""
MASKING = (
    "masked_msa_fraction",
    "masked_msa_uniform_probability",
    "masked_msa_profile_probability",
    "masked_msa_same_probability",
)
"""Settings of the masking of the MSA, which prediction does as evaluation. Only a run has them, by
the names of its fields."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and where it comes from."""

    value: int | float | str | bool
    origin: Origin


def default_settings(config: ModelConfig, *, sizes: Setting) -> dict[str, Setting]:
    """Return the settings of weights that are not those of a run.

    config: the model of the weights. sizes: a name for its sizes.
    """
    num_template_rows = MAX_TEMPLATES if config.has_templates else 0
    defaults = {
        "max_msa_clusters": MAX_MSA_ROWS - num_template_rows,
        "max_extra_msa": MAX_EXTRA_MSA,
        "max_templates": num_template_rows,
        "num_recycling_iterations": NUM_RECYCLING_ITERATIONS,
    }
    return {
        "sizes": sizes,
        **_parts(config),
        **{name: Setting(value=value, origin="default") for name, value in defaults.items()},
    }


def run_settings(config: ModelConfig, samples: Mapping[str, object]) -> dict[str, Setting]:
    """Return the settings of the weights of a run.

    samples: the part of the run's configuration that describes samples. A field that it lacks has
    its default.
    """
    settings = default_settings(config, sizes=Setting(value="of the run", origin="run"))
    for name, field in _RUN_FIELDS.items():
        value = samples.get(field)
        # Without modules for templates, the number of templates has no effect.
        if isinstance(value, int) and (name != "max_templates" or config.has_templates):
            settings[name] = Setting(value=value, origin="run")
    for name in MASKING:
        value = samples.get(name)
        if isinstance(value, int | float):
            settings[name] = Setting(value=float(value), origin="run")
    return settings


def with_options(
    settings: Mapping[str, Setting], options: Mapping[str, int | None]
) -> dict[str, Setting]:
    """Return the settings with the values of options. None: the option was not given.

    Raises WeightsError for a value that is too small.
    """
    changed = dict(settings)
    for name, value in options.items():
        if value is None:
            continue
        if value < _MINIMA[name]:
            raise WeightsError(f"{name} is {value}; expected at least {_MINIMA[name]}")
        changed[name] = Setting(value=value, origin="option")
    return changed


def describe_settings(settings: Mapping[str, Setting]) -> str:
    """Return one line with every setting and its origin."""
    return ", ".join(
        f"{name} {_text(setting.value)} ({setting.origin})" for name, setting in settings.items()
    )


def _parts(config: ModelConfig) -> dict[str, Setting]:
    return {
        "templates": Setting(value=config.has_templates, origin="weights"),
        "tm_score_head": Setting(value=config.auxiliary_heads.has_tm_score, origin="weights"),
    }


def _text(value: int | float | str | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:,}"
