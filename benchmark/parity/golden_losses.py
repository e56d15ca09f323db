"""Translate the loss configuration of a golden directory to our LossConfig.

The field names are those of the MLCommons reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from openfold_opt.losses.config import (
    DistogramLossConfig,
    ExperimentallyResolvedLossConfig,
    FapeLossConfig,
    LossConfig,
    MaskedMSALossConfig,
    PLDDTLossConfig,
    SupervisedChiLossConfig,
    TMLossConfig,
    ViolationLossConfig,
)

_RESOLUTION = {
    "min_resolution_angstrom": "min_resolution",
    "max_resolution_angstrom": "max_resolution",
}
# Field of LossConfig -> our class, the field of the reference, and our names -> its names.
_TERMS = {
    "fape": (
        FapeLossConfig,
        "fape_loss_config",
        {
            "weight": "weight",
            "backbone_weight": "backbone_weight",
            "sidechain_weight": "sidechain_weight",
            "clamp_distance_angstrom": "backbone_clamp_distance",
            "length_scale_angstrom": "backbone_loss_unit_distance",
            "eps": "eps",
        },
    ),
    "supervised_chi": (
        SupervisedChiLossConfig,
        "supervised_chi_loss_config",
        {name: name for name in ("weight", "chi_weight", "angle_norm_weight", "eps")},
    ),
    "distogram": (
        DistogramLossConfig,
        "distogram_loss_config",
        {
            "weight": "weight",
            "min_bin_angstrom": "min_bin",
            "max_bin_angstrom": "max_bin",
            "eps": "eps",
        },
    ),
    "masked_msa": (
        MaskedMSALossConfig,
        "masked_msa_loss_config",
        {"weight": "weight", "eps": "eps"},
    ),
    "plddt": (
        PLDDTLossConfig,
        "plddt_loss_config",
        {"weight": "weight", "cutoff_angstrom": "cutoff", "eps": "eps"} | _RESOLUTION,
    ),
    "experimentally_resolved": (
        ExperimentallyResolvedLossConfig,
        "experimentally_resolved_loss_config",
        {"weight": "weight", "eps": "eps"} | _RESOLUTION,
    ),
    "violation": (
        ViolationLossConfig,
        "violation_loss_config",
        {
            "weight": "weight",
            "violation_tolerance_factor": "violation_tolerance_factor",
            "clash_overlap_tolerance_angstrom": "clash_overlap_tolerance",
            "eps": "eps",
        },
    ),
    "tm": (
        TMLossConfig,
        "tm_loss_config",
        {"weight": "weight", "max_bin_angstrom": "max_bin", "eps": "eps"} | _RESOLUTION,
    ),
}


def loss_config(golden: Mapping[str, Any] | None) -> LossConfig:
    """Return the losses of a golden config.json, or of initial training if golden is None.

    Every term is computed, also if its weight is 0. Raises ValueError if a field is missing, or has
    a value that our losses do not support.
    """
    if golden is None:
        return replace(LossConfig.initial_training(), report_zero_weight_violation=True)
    try:
        theirs = golden["loss_config"]
        fape = theirs["fape_loss_config"]
        for ours, other in (
            ("backbone_clamp_distance", "sidechain_clamp_distance"),
            ("backbone_loss_unit_distance", "sidechain_length_scale"),
        ):
            if fape[ours] != fape[other]:
                raise ValueError(
                    f"config.json has {ours} {fape[ours]} but {other} {fape[other]}; expected "
                    "equal values, as our FAPE has one for both"
                )
        terms = {
            name: config(**{field: theirs[group][source] for field, source in names.items()})
            for name, (config, group, names) in _TERMS.items()
        }
    except KeyError as error:
        raise ValueError(
            f"config.json has no field {error}; expected the configuration of the MLCommons "
            "reference"
        ) from error
    return LossConfig(**terms, report_zero_weight_violation=True)
