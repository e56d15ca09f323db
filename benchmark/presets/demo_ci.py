"""The demo cut short for CI: as far as a bar that a broken model, and any constant structure, stays below."""

from __future__ import annotations

import dataclasses

from benchmark.presets import demo
from openfold_opt.train.config import RunConfig


def build() -> RunConfig:
    """The demo until lDDT-Ca 0.5; the best constant structure has 0.47 (`python -m benchmark controls`)."""
    config = demo.build()
    return dataclasses.replace(
        config,
        evaluation=dataclasses.replace(config.evaluation, target_lddt_ca=0.5),
        max_steps=2500,
    )
