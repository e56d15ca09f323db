"""The first steps of demo_2x2, to test a job of four ranks."""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo_2x2
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """Return demo_2x2 with 100 steps. It ends below the target (`check --below-target`)."""
    return dataclasses.replace(demo_2x2.build(), max_steps=100)
