"""demo_2x2 as far as the bar of demo_ci."""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo_2x2, demo_ci
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """The same steps, fewer of them."""
    short = demo_ci.build()
    return dataclasses.replace(demo_2x2.build(), evaluation=short.evaluation, max_steps=short.max_steps)
