"""Write a predicted structure as ModelCIF, with pLDDT in the B factor of every atom.

ModelCIF is mmCIF with the categories `ma_*`, which say how a structure was predicted and how
reliable it is. The file has the whole sequence, so that readers find residues without atoms
(unknown residues, X) as well. Columns of mmCIF have no fixed width: a chain may have any number of
residues and atoms. The same prediction always gives the same text; it has no date.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import ihm
import modelcif
import modelcif.data
import modelcif.dumper
import modelcif.model
import modelcif.protocol
import modelcif.qa_metric
import numpy as np

from openfold_opt.predict.chain_structure import ChainStructure
from openfold_opt.predict.file_names import safe_stem
from openfold_opt.predict.run_settings import PACKAGE, package_version
from openfold_opt.protein.residue_constants import atom_order, atom_types, restype_1to3

CHAIN_ID = "A"
UNKNOWN_RESIDUE = "UNK"
# Other texts are written between semicolons, which need no escapes.
_PLAIN_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,.:()/|+=_-]*")
_RESERVED_WORD = re.compile(r"(data|save|loop|stop|global)_.*", re.IGNORECASE)
_ALPHABET = ihm.LPeptideAlphabet()
# The usual order of the atoms of a residue has O before CB; atom37 has it after CB.
_ATOM_SLOTS = np.array(
    [atom_order[name] for name in ("N", "CA", "C", "O", "CB")]
    + [slot for name, slot in atom_order.items() if name not in ("N", "CA", "C", "O", "CB")]
)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """How a structure was predicted; part of its file."""

    weights: str
    """Name of the weights."""
    weights_sha256: str
    seed: int
    num_recycling_iterations: int
    num_alignment_rows: int
    """Rows of the alignment without duplicates, the query included."""
    templates: tuple[str, ...]
    """Chains that were used as templates, best first."""
    ptm: float | None
    """Predicted TM-score, 0..1; None if the weights do not predict it."""
    refinement: str | None = None
    """What changed the predicted coordinates afterwards; None: nothing."""


class _GlobalPLDDT(modelcif.qa_metric.Global, modelcif.qa_metric.PLDDT):
    """Mean of the predicted lDDT-CA over the residues, 0 to 100"""

    name = "pLDDT"
    software = None


class _LocalPLDDT(modelcif.qa_metric.Local, modelcif.qa_metric.PLDDT):
    """Predicted lDDT-CA of the residue, 0 to 100"""

    name = "pLDDT"
    software = None


class _GlobalPTM(modelcif.qa_metric.Global, modelcif.qa_metric.PTM):
    """Predicted TM-score, 0 to 1"""

    name = "pTM"
    software = None


class _Alignment(modelcif.data.Data):
    data_content_type = "coevolution MSA"


class _Model(modelcif.model.AbInitioModel):
    """Model whose atoms are made when they are written."""

    def __init__(self, assembly: modelcif.Assembly, structure: ChainStructure) -> None:
        super().__init__(assembly, name="predicted structure")
        self._structure, self._unit = structure, assembly[0]

    def get_atoms(self) -> Iterator[modelcif.model.Atom]:
        for residue, slot in atom_places(self._structure):
            x, y, z = self._structure.positions[residue, slot].tolist()
            name = atom_types[slot]
            yield modelcif.model.Atom(
                asym_unit=self._unit,
                seq_id=residue + 1,
                atom_id=name,
                type_symbol=name[0],
                x=f"{x:.3f}",
                y=f"{y:.3f}",
                z=f"{z:.3f}",
                biso=f"{self._structure.plddt[residue]:.2f}",
                occupancy="1.00",
            )


def atom_places(structure: ChainStructure) -> Iterator[tuple[int, int]]:
    """Yield index of the residue and slot of atom37 of each atom, in the usual order of files."""
    residues, columns = np.nonzero(structure.atom_mask[:, _ATOM_SLOTS])
    return zip(residues.tolist(), _ATOM_SLOTS[columns].tolist())


def residue_names(structure: ChainStructure) -> list[str]:
    """Return the three-letter code of each residue; UNK for a letter that is no amino acid."""
    return [restype_1to3.get(letter, UNKNOWN_RESIDUE) for letter in structure.sequence]


def structure_text(structure: ChainStructure, facts: ModelFacts) -> str:
    """Return the content of a ModelCIF file.

    Coordinates have three decimals. The B factor of an atom is the pLDDT of its residue, with two
    decimals.

    Args:
        structure: with pLDDT. Its name becomes the title.
        facts: how the structure was predicted.
    """
    system = modelcif.System(
        title=_text(f"Predicted structure of {structure.name}"), id=safe_stem(structure.name)
    )
    entity = modelcif.Entity(
        [_component(name) for name in residue_names(structure)], description=_text(structure.name)
    )
    unit = modelcif.AsymUnit(entity, id=CHAIN_ID)
    model = _Model(modelcif.Assembly([unit], name="chain"), structure)
    software = _software(facts)
    model.qa_metrics.extend(_metrics(unit, structure, facts))
    for metric in model.qa_metrics:
        metric.software = software
    for index in np.flatnonzero(~structure.atom_mask.any(1)).tolist():
        model.not_modeled_residue_ranges.append(
            modelcif.model.NotModeledResidueRange(unit, index + 1, index + 1)
        )
    system.model_groups.append(modelcif.model.ModelGroup([model], name="prediction"))
    system.protocols.append(_protocol(entity, model, software, facts))
    text = io.StringIO()
    modelcif.dumper.write(text, [system])
    return text.getvalue()


def _component(name: str) -> ihm.ChemComp:
    """Return the chemical component of a three-letter code."""
    return _ALPHABET[_LETTERS.get(name, name)]


_LETTERS = {name: letter for letter, name in restype_1to3.items()}


def _metrics(
    unit: modelcif.AsymUnit, structure: ChainStructure, facts: ModelFacts
) -> Iterator[modelcif.qa_metric.MetricMode]:
    yield _GlobalPLDDT(f"{structure.plddt.mean():.2f}")
    if facts.ptm is not None:
        yield _GlobalPTM(f"{facts.ptm:.4f}")
    for number, value in enumerate(structure.plddt.tolist(), start=1):
        yield _LocalPLDDT(unit.residue(number), f"{value:.2f}")


def _software(facts: ModelFacts) -> modelcif.SoftwareGroup:
    """Return this program with the parameters that change its result."""
    program = modelcif.Software(
        name=PACKAGE,
        classification="model building",
        description="Structure prediction with AlphaFold2 weights",
        location=None,
        version=package_version(PACKAGE),
    )
    values = {
        "weights": _text(facts.weights),
        "weights_sha256": facts.weights_sha256,
        "seed": facts.seed,
        "num_recycling_iterations": facts.num_recycling_iterations,
    }
    parameters = [modelcif.SoftwareParameter(name, value) for name, value in values.items()]
    return modelcif.SoftwareGroup([modelcif.SoftwareWithParameters(program, parameters)])


def _protocol(
    entity: modelcif.Entity,
    model: modelcif.model.Model,
    software: modelcif.SoftwareGroup,
    facts: ModelFacts,
) -> modelcif.protocol.Protocol:
    """Return the steps of the prediction.

    The templates are named in the details of a step. The categories of templates need their
    sequences and alignments, which are not kept.
    """
    alignment = _Alignment("multiple sequence alignment")
    templates = f"Templates: {', '.join(facts.templates)}" if facts.templates else "No templates"
    protocol = modelcif.protocol.Protocol()
    protocol.steps += [
        modelcif.protocol.CoevolutionMSAStep(
            entity,
            alignment,
            name="alignment",
            details=f"Given alignment; rows without duplicates: {facts.num_alignment_rows}",
        ),
        modelcif.protocol.TemplateSelectionStep(
            entity, None, name="templates", details=_text(templates)
        ),
        modelcif.protocol.ModelingStep(
            modelcif.data.DataGroup([entity, alignment]),
            model,
            name="prediction",
            details=_text(f"AlphaFold2 network with the weights {facts.weights}"),
            software=software,
        ),
    ]
    if facts.refinement is not None:
        step = modelcif.protocol.ModelRefinementStep(
            model, model, name="refinement", details=_text(facts.refinement)
        )
        protocol.steps.append(step)
    return protocol


def _text(value: str) -> str:
    """Return a text so that the writer of modelcif keeps it.

    mmCIF is ASCII text, so other characters become escapes. The writer quotes in the way of Python,
    which readers of mmCIF do not reverse; it writes a text with a line break between semicolons.
    """
    value = value.encode("ascii", "backslashreplace").decode()
    is_plain = _PLAIN_TEXT.fullmatch(value) and not _RESERVED_WORD.fullmatch(value)
    return value if is_plain else f"{value}\n"
