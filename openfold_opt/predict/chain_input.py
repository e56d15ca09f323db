"""Types of the input of a prediction: chains, failures, settings and prepared features."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.loader.wire_passes import cut_to_pass
from openfold_opt.model.batch import FeatureBatch


class InputError(ValueError):
    """An input cannot be used. The message names the file and says how to fix it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChainInput:
    """One chain to predict. Its files are read by `chain_features`. Can be sent to processes."""

    name: str
    """As given: the first word of the FASTA header, the name of the .a3m file, or the chain id."""
    sequence: str
    """One letter per residue, the 20 amino acids and X: the residues that the model predicts."""
    letters: str
    """The sequence as given, in upper case. It has B, J, O, U and Z where `sequence` has X."""
    origin: str
    """File and record, for messages."""
    warnings: tuple[str, ...] = ()
    msa_paths: tuple[Path, ...] = ()
    """Alignment files in the order of their rows; without any, the sequence is the only row."""
    hits_paths: tuple[Path, ...] = ()
    """Template hits (.hhr)."""
    template_structures: Path | None = None
    """Folder of mmCIF files; None: no templates."""
    data_dir: Path | None = None
    """Converted data that contain the chain; None: the chain is given by files."""

    @property
    def num_residues(self) -> int:
        """N_res."""
        return len(self.sequence)


@dataclass(frozen=True, kw_only=True)
class ChainFailure:
    """A chain that cannot be predicted."""

    name: str
    """Name of the chain, or its file and record if it has no name."""
    message: str


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """Everything except the chain that its features depend on."""

    num_recycling_iterations: int
    """The features have one slice of MSA rows for each iteration, and one for the last pass."""
    seed: int
    """0 gives the random draws of evaluation."""
    max_msa_clusters: int
    """Rows of the clustered MSA, without the rows of templates."""
    max_extra_msa: int
    use_templates: bool
    """False for weights without templates."""
    max_templates: int = 4
    max_template_date: str
    """ISO date; templates released later are not used."""
    excluded_templates: frozenset[str] = frozenset()
    """PDB ids (1abc) or chains (1abc_A) that are not used as templates."""
    masked_msa_fraction: float = DataConfig.masked_msa_fraction
    """This and the next three: as in DataConfig."""
    masked_msa_uniform_probability: float = DataConfig.masked_msa_uniform_probability
    masked_msa_profile_probability: float = DataConfig.masked_msa_profile_probability
    masked_msa_same_probability: float = DataConfig.masked_msa_same_probability

    def __post_init__(self) -> None:
        minima = {
            "num_recycling_iterations": 0,
            "seed": 0,
            "max_msa_clusters": 1,
            "max_extra_msa": 0,
            "max_templates": 0,
        }
        for name, minimum in minima.items():
            if getattr(self, name) < minimum:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least {minimum}")
        try:
            is_iso = (
                datetime.date.fromisoformat(self.max_template_date).isoformat()
                == self.max_template_date
            )
        except ValueError:
            is_iso = False
        if not is_iso:
            raise InputError(
                f"max_template_date is {self.max_template_date!r}, expected a date such as "
                "2021-09-30"
            )

    @property
    def num_template_slots(self) -> int:
        """N_templ of the features: unused slots are masked."""
        return self.max_templates if self.use_templates else 0

    def data_config(self) -> DataConfig:
        """Return the sizes and probabilities of the sample."""
        return DataConfig(
            max_msa_clusters=self.max_msa_clusters,
            max_extra_msa=self.max_extra_msa,
            max_templates=self.num_template_slots,
            max_recycling_iterations=self.num_recycling_iterations,
            masked_msa_fraction=self.masked_msa_fraction,
            masked_msa_uniform_probability=self.masked_msa_uniform_probability,
            masked_msa_profile_probability=self.masked_msa_profile_probability,
            masked_msa_same_probability=self.masked_msa_same_probability,
        )

    def excludes(self, chain_id: str) -> bool:
        """Return whether a template chain `<pdb id>_<chain>` is excluded."""
        pdb_id, _, chain = chain_id.partition("_")
        for excluded in self.excluded_templates:
            excluded_pdb_id, _, excluded_chain = excluded.partition("_")
            if excluded_pdb_id.lower() == pdb_id.lower() and excluded_chain in ("", chain):
                return True
        return False


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedChain:
    """The features of one chain in the compact wire format, and what was used to make them."""

    name: str
    wire: Mapping[str, np.ndarray]
    """Wire features of one sample (loader/wire_format.py), about a tenth of the model features."""
    num_alignment_rows: int
    """Rows of the alignment without duplicates, the query included."""
    alignment_depth: tuple[int, ...]
    """Rows without a gap at each residue, of the alignment without duplicates."""
    templates: tuple[str, ...]
    """Chains that are used as templates, best first."""
    warnings: tuple[str, ...]
    input_hash: str
    """Hash of the alignments and template hits (inputs.hash_inputs)."""

    def features(self, device: torch.device | str = "cpu") -> FeatureBatch:
        """Return the model features, a batch of one, on a device."""
        return FeatureBatch.from_features(decode_batch(stack_samples([self.wire]), device=device))

    def features_of_pass(self, pass_index: int, device: torch.device | str = "cpu") -> FeatureBatch:
        """Return the features of one pass: those of `features` with a single slice.

        They need 1 / num_passes of the memory of all passes.
        """
        wire = stack_samples([cut_to_pass(self.wire, pass_index)])
        return FeatureBatch.from_features(decode_batch(wire, device=device))
