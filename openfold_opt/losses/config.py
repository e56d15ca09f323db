"""Weights and constants of the losses (AF2 suppl. 1.9).

`category` says whether a field changes the mathematics of training (docs/glossary.md). `eps` is
added to denominators and below square roots. Bins have equal width: min_bin_angstrom and
max_bin_angstrom are the upper limit of the first and the lower limit of the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class FapeLossConfig:
    """Frame aligned point error of backbone and side chains."""

    category: ClassVar[str] = "mathematical"

    weight: float = 1.0
    backbone_weight: float = 0.5
    sidechain_weight: float = 0.5
    clamp_distance_angstrom: float = 10.0
    length_scale_angstrom: float = 10.0
    """Errors are divided by this length."""
    eps: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class SupervisedChiLossConfig:
    """Side-chain torsion angles."""

    category: ClassVar[str] = "mathematical"

    weight: float = 1.0
    chi_weight: float = 0.5
    angle_norm_weight: float = 0.01
    """Weight of the deviation of the unnormalized angle vectors from unit length."""
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class DistogramLossConfig:
    """Binned distances between pseudo-beta atoms."""

    category: ClassVar[str] = "mathematical"

    weight: float = 0.3
    min_bin_angstrom: float = 2.3125
    max_bin_angstrom: float = 21.6875
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class MaskedMSALossConfig:
    """Prediction of the masked positions of the clustered MSA."""

    category: ClassVar[str] = "mathematical"

    weight: float = 2.0
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class PLDDTLossConfig:
    """Predicted lDDT-Ca of each residue."""

    category: ClassVar[str] = "mathematical"

    weight: float = 0.01
    cutoff_angstrom: float = 15.0
    min_resolution_angstrom: float = 0.1
    max_resolution_angstrom: float = 3.0
    """The loss of samples with a resolution outside the range is 0."""
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class ExperimentallyResolvedLossConfig:
    """Prediction of experimentally resolved atoms; used in fine-tuning."""

    category: ClassVar[str] = "mathematical"

    weight: float = 0.0
    min_resolution_angstrom: float = 0.1
    max_resolution_angstrom: float = 3.0
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class ViolationLossConfig:
    """Bond lengths, bond angles and clashes; used in fine-tuning."""

    category: ClassVar[str] = "mathematical"

    weight: float = 0.0
    violation_tolerance_factor: float = 12.0
    """Deviations of a bond up to this number of standard deviations have no loss."""
    clash_overlap_tolerance_angstrom: float = 1.5
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class TMLossConfig:
    """Predicted aligned error; used if the model has the TM-score head."""

    category: ClassVar[str] = "mathematical"

    weight: float = 0.0
    max_bin_angstrom: float = 31.0
    min_resolution_angstrom: float = 0.1
    max_resolution_angstrom: float = 3.0
    eps: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """All terms. The defaults are those of initial training, as in the benchmark."""

    fape: FapeLossConfig = FapeLossConfig()
    supervised_chi: SupervisedChiLossConfig = SupervisedChiLossConfig()
    distogram: DistogramLossConfig = DistogramLossConfig()
    masked_msa: MaskedMSALossConfig = MaskedMSALossConfig()
    plddt: PLDDTLossConfig = PLDDTLossConfig()
    experimentally_resolved: ExperimentallyResolvedLossConfig = ExperimentallyResolvedLossConfig()
    violation: ViolationLossConfig = ViolationLossConfig()
    tm: TMLossConfig = TMLossConfig()
    report_zero_weight_violation: bool = field(
        default=False, metadata={"category": "implementation"}
    )
    """Whether to compute and report the violation term, the slowest one, if its weight is zero."""

    @classmethod
    def initial_training(cls) -> LossConfig:
        """Return the weights of initial training (AF2 suppl. eq. 7, first line)."""
        return cls()

    @classmethod
    def finetuning(cls) -> LossConfig:
        """Return the weights of fine-tuning (AF2 suppl. eq. 7, second line).

        They include violations and experimentally resolved atoms.
        """
        return replace(
            cls(),
            experimentally_resolved=ExperimentallyResolvedLossConfig(weight=0.01),
            violation=ViolationLossConfig(weight=1.0),
        )

    @classmethod
    def finetuning_ptm(cls) -> LossConfig:
        """Return the weights of fine-tuning with the TM-score head (AF2 suppl. 1.9.7)."""
        return replace(cls.finetuning(), tm=TMLossConfig(weight=0.1))
