"""The beginning of demo_2x2: enough to see a job of four ranks work, too little to learn much."""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo_2x2
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """100 steps with an evaluation; the target is not reached, which `check --below-target` accepts."""
    return dataclasses.replace(demo_2x2.build(), max_steps=100)
