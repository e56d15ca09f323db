"""Parser of PDB entries (.cif.gz or .cif) to protein chains with atom37 coordinates.

Entries are read as by the benchmark's preprocessing, which uses Biopython. Biopython's choices of
alternative locations, residue names and errors determine the training data. This parser makes the
same choices; "Odd:" marks those that are surprising. Any error rejects the whole entry, never a
single chain.

A label or label id is an mmCIF chain id (`_struct_asym.id`, `label_asym_id`); an author chain is
named by `auth_asym_id` and may consist of several labels.
"""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import math
import re
from pathlib import Path

import gemmi
import numpy as np

from data_prep.errors import EntryRejected, FaultyEntry, escaped
from data_prep.parsers.file_access import is_utf8, read_file
from data_prep.parsers.input_files import DAMAGED_GZIP
from data_prep.parsers.mmcif_atoms import AtomSites, chain_residues
from data_prep.parsers.residue_letters import LETTER_OF, UNKNOWN_LETTER
from openfold_opt.protein.residue_constants import atom_order, atom_type_num

_ID_LENGTH = 4
_ID = re.compile(r"[A-Za-z0-9-]+")
"""An underscore is not allowed: it separates the id of the entry from that of the chain."""
_FIRST_YEAR = 1900
"""Earlier revision dates are errors: the PDB was founded in 1971."""
_RESOLUTION_TAGS = (
    "_refine.ls_d_res_high",
    "_em_3d_reconstruction.resolution",
    "_reflns.d_resolution_high",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedChain:
    """A protein chain."""

    author_chain_id: str
    mmcif_chain_ids: tuple[str, ...]
    entity_keys: tuple[str, ...]
    """`<ID>_<entity>` of every entity of this author chain in upper case, as in the cluster
    file."""
    sequence: str
    positions: np.ndarray
    """float32 [N_res, 37, 3], angstrom; zero where the mask is False."""
    mask: np.ndarray
    """bool [N_res, 37]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedEntry:
    """A PDB entry with at least one protein chain."""

    pdb_id: str
    release_date: str
    resolution: float | None
    method: str
    chains: tuple[ParsedChain, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Polymer:
    """The protein polymer of one label id."""

    monomers: tuple[str, ...]
    """Residue names, one for each row of `_entity_poly_seq`."""
    first_number: int
    """Smallest `_entity_poly_seq.num`."""


class Tags:
    """The columns of an mmCIF block by tag, as lists of unquoted text."""

    def __init__(self, block: gemmi.cif.Block) -> None:
        self._block = block

    def optional(self, tag: str) -> list[str]:
        values = list(self._block.find_values(tag))
        # One search of the joined text is fast: most columns have no quote, and some are long.
        joined = "".join(values)
        if "'" in joined or '"' in joined or ";" in joined:
            return [unquoted(value) for value in values]
        return values

    def __getitem__(self, tag: str) -> list[str]:
        values = self.optional(tag)
        if not values:
            raise EntryRejected(f"mmCIF has no {tag}")
        return values


def unquoted(value: str) -> str:
    """Return the text of a CIF value.

    '?' and '.' stay unchanged, quoted or not, as in the benchmark.
    """
    return gemmi.cif.as_string(value) if value[:1] in ("'", '"', ";") else value


def parse_mmcif(path: Path, *, own_data: bool = False) -> ParsedEntry:
    """Read `<id>.cif.gz` or `<id>.cif`.

    Args:
        own_data: accept ids whose length is not four, and files without `_chem_comp.type`, in
            which `_entity_poly.type` says which polymers are proteins.

    Raises:
        EntryRejected: the entry has no protein or breaks a rule of the benchmark.
        FaultyEntry: the file is damaged.
        CannotRead: the file cannot be read.
    """
    try:
        return _parse_entry(path, own_data)
    except EntryRejected:
        raise
    except ValueError as error:
        # The text is not UTF-8, or columns of one category have different lengths.
        raise FaultyEntry(f"cannot be read: {error}") from error


def _parse_entry(path: Path, own_data: bool) -> ParsedEntry:
    pdb_id = _pdb_id(path, own_data)
    tags = Tags(read_block(path))
    entry_ids = [value.lower() for value in tags["_entry.id"]]
    if entry_ids != [pdb_id]:
        raise EntryRejected(
            f"_entry.id is {', '.join(entry_ids)}, but the file is named {path.name}"
        )
    entity_chains = entity_to_label_chains(tags)
    polymers = protein_polymers(tags, entity_chains, own_data)
    if not polymers:
        raise EntryRejected("no protein: none of the polymers has a monomer of a peptide type")
    sites = AtomSites.from_tags(tags)
    author_of = sites.label_to_author_chain()
    sequence_of = chain_sequences(polymers, author_of)
    release_date = _release_date(tags)
    atoms = chain_coordinates(sites, polymers, author_of)
    return ParsedEntry(
        pdb_id=pdb_id,
        release_date=release_date,
        resolution=_resolution(tags),
        method=";".join(tags["_exptl.method"]),
        chains=tuple(
            ParsedChain(
                author_chain_id=author,
                mmcif_chain_ids=tuple(
                    label for label, owner in author_of.items() if owner == author
                ),
                entity_keys=_entity_keys(pdb_id, author, author_of, entity_chains),
                sequence=sequence,
                positions=atoms[author][0],
                mask=atoms[author][1],
            )
            for author, sequence in sequence_of.items()
        ),
    )


def _pdb_id(path: Path, own_data: bool) -> str:
    """Return the id in the name of the file.

    Odd: the benchmark accepts only four characters, so the PDB's longer ids are rejected.
    """
    if not is_utf8(path.name):
        raise FaultyEntry(f"the name of the file {escaped(path.name)} is not UTF-8; rename it")
    pdb_id = path.name.split(".")[0].lower()
    if not own_data and len(pdb_id) != _ID_LENGTH:
        raise EntryRejected(f"id {pdb_id!r} has {len(pdb_id)} characters, expected {_ID_LENGTH}")
    if not _ID.fullmatch(pdb_id):
        raise EntryRejected(f"id {pdb_id!r}, expected letters, digits and hyphens only")
    return pdb_id


def read_block(path: Path) -> gemmi.cif.Block:
    """Return the first data block of a CIF file, uncompressed or .gz.

    Raises:
        FaultyEntry: the file is damaged.
        CannotRead: the file cannot be read.
    """
    contents = read_file(path)
    try:
        document = gemmi.cif.read_string(
            gzip.decompress(contents) if path.suffix == ".gz" else contents
        )
    except DAMAGED_GZIP as error:
        raise FaultyEntry(f"damaged file: {error}; fetch it again") from error
    except (ValueError, RuntimeError) as error:
        raise FaultyEntry(f"not a valid CIF file: {error}") from error
    if len(document) == 0:
        raise FaultyEntry("damaged file: no data block; fetch it again")
    return document[0]


def _release_date(tags: Tags) -> str:
    """Return the earliest revision date as an ISO date. All of them must be dates."""
    return min(
        parse_date(text) for text in tags["_pdbx_audit_revision_history.revision_date"]
    ).isoformat()


def parse_date(text: str) -> datetime.date:
    """Parse a date. Odd: strptime also accepts 2001-2-3.

    Raises:
        EntryRejected: the text is not a date.
        FaultyEntry: the year is impossible.
    """
    try:
        date = datetime.datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise EntryRejected(f"revision date {text!r} is not a date") from error
    if date.year < _FIRST_YEAR:
        raise FaultyEntry(f"revision date {text!r}, expected {_FIRST_YEAR} or later")
    return date


def _resolution(tags: Tags) -> float | None:
    """Return the largest number under the first tag that exists, or None.

    Odd: if its value is '?', the result is None and the other tags are not tried.
    """
    for tag in _RESOLUTION_TAGS:
        values = tags.optional(tag)
        if values:
            numbers = [number for number in map(_number, values) if not math.isnan(number)]
            return max(numbers, default=None)
    return None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def entity_to_label_chains(tags: Tags) -> dict[str, list[str]]:
    """Return the label ids of each entity, in the order of `_struct_asym`."""
    chains: dict[str, list[str]] = {}
    for label, entity in zip(tags["_struct_asym.id"], tags["_struct_asym.entity_id"], strict=True):
        chains.setdefault(entity, []).append(label)
    return chains


def protein_polymers(
    tags: Tags, entity_chains: dict[str, list[str]], own_data: bool
) -> dict[str, Polymer]:
    """Return protein polymers by label id.

    Entities are in the order of `_entity_poly_seq`, label ids in that of `_struct_asym`.
    """
    monomers: dict[str, list[tuple[int, str]]] = {}
    columns = [tags[f"_entity_poly_seq.{name}"] for name in ("entity_id", "num", "mon_id")]
    for entity, number, name in zip(*columns, strict=True):
        monomers.setdefault(entity, []).append((_integer(number, "_entity_poly_seq.num"), name))
    proteins = _protein_entities(
        {entity: [name for _, name in rows] for entity, rows in monomers.items()}, tags, own_data
    )
    polymers: dict[str, Polymer] = {}
    for entity, rows in monomers.items():
        if entity not in proteins:
            continue
        if entity not in entity_chains:
            raise EntryRejected(f"entity {entity} is a polymer without a chain in _struct_asym")
        polymer = Polymer(
            monomers=tuple(name for _, name in rows), first_number=min(number for number, _ in rows)
        )
        polymers.update(dict.fromkeys(entity_chains[entity], polymer))
    return polymers


def _protein_entities(monomers: dict[str, list[str]], tags: Tags, own_data: bool) -> set[str]:
    """Return the polymers that are proteins according to the types of their monomers.

    With own_data, the type of the polymer decides in a file without types of monomers.
    """
    if own_data and not any(value not in ("?", ".") for value in tags.optional("_chem_comp.type")):
        return _proteins_by_polymer_type(monomers, tags)
    type_of = dict(zip(tags["_chem_comp.id"], tags["_chem_comp.type"], strict=True))
    return {entity for entity, names in monomers.items() if _is_protein(names, type_of)}


def _proteins_by_polymer_type(monomers: dict[str, list[str]], tags: Tags) -> set[str]:
    columns = tags["_entity_poly.entity_id"], tags["_entity_poly.type"]
    type_of = {entity: text.lower() for entity, text in zip(*columns, strict=True)}
    return {entity for entity in monomers if "polypeptide" in type_of.get(entity, "")}


def _is_protein(names: list[str], type_of: dict[str, str]) -> bool:
    """Return whether the type of any monomer contains "peptide". Odd: only in lower case."""
    for name in names:
        if name not in type_of:
            raise EntryRejected(f"monomer {name} is not in _chem_comp")
        if "peptide" in type_of[name]:
            return True
    return False


def _integer(text: str, tag: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise EntryRejected(f"{tag} is {text!r}, expected an integer") from error


def chain_sequences(polymers: dict[str, Polymer], author_of: dict[str, str]) -> dict[str, str]:
    """Return sequences by author chain, with one letter per row of `_entity_poly_seq`.

    Odd: a residue with microheterogeneity has several rows, so that letters and atoms are shifted
    against each other after it.
    """
    sequences: dict[str, str] = {}
    for label, polymer in polymers.items():
        if label not in author_of:
            raise EntryRejected(f"protein chain {label} has no atoms in model 1")
        author = author_of[label]
        if author in sequences:
            raise EntryRejected(f"author chain {author} has two protein polymers")
        sequences[author] = "".join(
            LETTER_OF.get(name, UNKNOWN_LETTER) for name in polymer.monomers
        )
    return sequences


def _entity_keys(
    pdb_id: str, author: str, author_of: dict[str, str], entity_chains: dict[str, list[str]]
) -> tuple[str, ...]:
    entities = [
        entity
        for label, owner in author_of.items()
        if owner == author
        for entity, labels in entity_chains.items()
        if label in labels
    ]
    return tuple(f"{pdb_id}_{entity}".upper() for entity in dict.fromkeys(entities))


def chain_coordinates(
    sites: AtomSites, polymers: dict[str, Polymer], author_of: dict[str, str]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return positions and masks by author chain.

    Odd: keys of residues come from model number 1, coordinates from the first model of the file.
    """
    residues = chain_residues(sites)
    keys = sites.residue_keys(set(polymers))
    coordinates = {}
    for label, polymer in polymers.items():
        author = author_of[label]
        positions = np.zeros((len(polymer.monomers), atom_type_num, 3), dtype=np.float32)
        mask = np.zeros((len(polymer.monomers), atom_type_num), dtype=bool)
        for number, key in keys[label].items():
            # The index counts from the smallest polymer number. Author numbers and insertion codes
            # are only keys.
            index = number - polymer.first_number
            if not 0 <= index < len(polymer.monomers):
                raise EntryRejected(
                    f"chain {label} has residue number {number} outside of its sequence"
                )
            residue = residues.get(author, {}).get(key)
            if residue is None:
                raise EntryRejected(
                    f"residue {key} of author chain {author} is not in the first model"
                )
            for name, row in residue.atom_rows():
                column = atom_order.get(name)
                if column is None and name.upper() == "SE" and residue.name == "MSE":
                    column = atom_order["SD"]
                if column is not None:
                    positions[index, column] = sites.coordinates[row]
                    mask[index, column] = True
        coordinates[author] = positions, mask
    return coordinates
