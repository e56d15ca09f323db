"""Conversion of rows of `_atom_site` to residues.

Alternative locations and point mutations are resolved as by Biopython 1.81. Rows are processed in
runs of one residue. Almost all runs are simple (no alternative location, no duplicate name) and are
added with one dictionary; the others are processed atom by atom.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from data_prep.errors import EntryRejected, FaultyEntry

ResidueKey = tuple[str, int, str]
"""(hetero flag, author's number, insertion code).

The flag is " " for ATOM records, "W" for water and "H_<residue name>" otherwise.
"""

_UNSET = (".", "?")
_WATERS = ("HOH", "WAT")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtomSites:
    """The columns of `_atom_site`, with one element per atom record."""

    atom_names: list[str]
    residue_names: list[str]
    author_chains: list[str]
    label_chains: list[str]
    label_numbers: list[str]
    models: list[str]
    keys: list[ResidueKey]
    altlocs: list[str]
    occupancies: np.ndarray
    coordinates: np.ndarray
    """float32 [num_atoms, 3], angstrom."""

    @classmethod
    def from_tags(cls, tags) -> AtomSites:
        """Read the columns from a mapping of mmCIF tags to columns of text.

        Raises:
            EntryRejected: a column is missing, or a value is not a number.
            FaultyEntry: a coordinate is not finite.
        """
        column = {name: tags[f"_atom_site.{name}"] for name in _COLUMNS}
        # Odd: B factors are never used, but one that is not a number rejects the entry.
        _numbers(column["B_iso_or_equiv"], "B_iso_or_equiv")
        _check_anisotropy(tags, num_atoms=len(column["group_PDB"]))
        return cls(
            atom_names=column["label_atom_id"],
            residue_names=column["label_comp_id"],
            author_chains=column["auth_asym_id"],
            label_chains=column["label_asym_id"],
            label_numbers=column["label_seq_id"],
            models=column["pdbx_PDB_model_num"],
            keys=_keys(column),
            altlocs=[" " if value in _UNSET else value for value in column["label_alt_id"]],
            occupancies=_numbers(column["occupancy"], "occupancy"),
            coordinates=_coordinates(column),
        )

    def label_to_author_chain(self) -> dict[str, str]:
        """Return the author chain of each label chain of model number 1, in the file's order."""
        pairs = dict.fromkeys(
            (label, author)
            for label, author, model in zip(self.label_chains, self.author_chains, self.models)
            if model == "1"
        )
        author_of: dict[str, str] = {}
        for label, author in pairs:
            if author_of.setdefault(label, author) != author:
                raise EntryRejected(
                    f"chain {label} belongs to author chains {author_of[label]} and {author}"
                )
        return author_of

    def residue_keys(self, labels: set[str]) -> dict[str, dict[int, ResidueKey]]:
        """Map the numbers in the polymer to residue keys, for each of the label chains.

        The keys are from model number 1. Odd: if a position has two residues, the last atom record
        determines the key, whatever the occupancies.
        """
        keys: dict[str, dict[int, ResidueKey]] = {label: {} for label in labels}
        rows = zip(self.label_chains, self.label_numbers, self.models, self.keys)
        distinct = {
            (label, number, key): None
            for label, number, model, key in rows
            if model == "1" and label in labels
        }
        keys_of = {}
        for label, number, key in distinct:
            keys_of.setdefault((label, number), []).append(key)
        for (label, number), candidates in keys_of.items():
            key = candidates[0] if len(candidates) == 1 else self._last_key(label, number)
            try:
                keys[label][int(number)] = key
            except ValueError as error:
                raise EntryRejected(
                    f"_atom_site.label_seq_id is {number!r} in protein chain {label}"
                ) from error
        return keys

    def _last_key(self, label: str, number: str) -> ResidueKey:
        rows = zip(self.label_chains, self.label_numbers, self.models, self.keys)
        return [
            k for chain, n, model, k in rows if model == "1" and chain == label and n == number
        ][-1]


_AXES = ("Cartn_x", "Cartn_y", "Cartn_z")
_COLUMNS = (
    "group_PDB",
    "label_atom_id",
    "label_alt_id",
    "label_comp_id",
    "label_asym_id",
    "label_seq_id",
    "pdbx_PDB_ins_code",
    *_AXES,
    "occupancy",
    "B_iso_or_equiv",
    "auth_seq_id",
    "auth_asym_id",
    "pdbx_PDB_model_num",
)


_ANISOTROPY = tuple(
    f"_atom_site_anisotrop.U[{i}][{j}]" for i, j in ("11", "12", "13", "22", "23", "33")
)


def _check_anisotropy(tags, num_atoms: int) -> None:
    """Reject an entry with a value that is not a number, if all six columns exist.

    Odd: as with the B factors, the values are never used.
    """
    columns = [tags.optional(tag) for tag in _ANISOTROPY]
    if all(columns):
        for tag, values in zip(_ANISOTROPY, columns):
            _numbers(values[:num_atoms], tag)


def _coordinates(column: dict[str, list[str]]) -> np.ndarray:
    values = np.stack([_numbers(column[name], name) for name in _AXES], axis=1)
    is_finite = np.abs(values) <= np.finfo(np.float32).max
    if not is_finite.all():
        row, axis = np.argwhere(~is_finite)[0]
        text = column[_AXES[axis]][row]
        raise FaultyEntry(f"_atom_site.{_AXES[axis]} is {text!r}, expected a finite number")
    return values.astype(np.float32)


def _numbers(values: list[str], name: str) -> np.ndarray:
    try:
        return np.fromiter(map(float, values), dtype=np.float64, count=len(values))
    except ValueError as error:
        tag = name if name.startswith("_") else f"_atom_site.{name}"
        raise EntryRejected(f"{tag}: {error}") from error


def _keys(column: dict[str, list[str]]) -> list[ResidueKey]:
    rows = zip(
        column["group_PDB"],
        column["label_comp_id"],
        column["auth_seq_id"],
        column["pdbx_PDB_ins_code"],
        strict=True,
    )
    key_of: dict[tuple[str, str, str, str], ResidueKey] = {}
    keys = []
    try:
        for row in rows:
            key = key_of.get(row)
            if key is None:
                group, name, number, insertion = row
                flag = " " if group != "HETATM" else "W" if name in _WATERS else f"H_{name}"
                key = key_of[row] = (flag, int(number), " " if insertion in _UNSET else insertion)
            keys.append(key)
    except ValueError as error:
        raise EntryRejected(f"_atom_site.auth_seq_id: {error}") from error
    return keys


class _Atom:
    """An atom with alternative locations: the record that is chosen among those read so far."""

    __slots__ = ("row", "occupancy")

    def __init__(self, row: int, occupancy: float) -> None:
        self.row, self.occupancy = row, occupancy

    def offer(self, row: int, occupancy: float) -> None:
        """Choose this record if its occupancy is higher than that of the chosen one."""
        if occupancy > self.occupancy:
            self.row, self.occupancy = row, occupancy


class Residue:
    """A residue: for each atom name the row of its only record, or an _Atom with alternatives."""

    __slots__ = ("name", "atoms", "has_blank_altloc")

    def __init__(self, name: str) -> None:
        self.name = name
        self.atoms: dict[str, _Atom | int] = {}
        self.has_blank_altloc = False

    def atom_rows(self) -> Iterator[tuple[str, int]]:
        """Yield the name and the row of `_atom_site` of every atom."""
        return (
            (name, atom if isinstance(atom, int) else atom.row) for name, atom in self.atoms.items()
        )

    def add_simple_run(self, names: list[str], first_row: int) -> bool:
        """Add a run of atoms without alternative locations to a new residue.

        Returns:
            False if a name occurs twice.
        """
        self.atoms = dict(zip(names, range(first_row, first_row + len(names))))
        self.has_blank_altloc = True
        return len(self.atoms) == len(names)

    def add(self, name: str, altloc: str, row: int, occupancies: np.ndarray) -> None:
        """Add one atom record."""
        present = self.atoms.get(name)
        if altloc == " ":
            if present is not None:
                raise EntryRejected(f"atom {name} comes twice in residue {self.name}")
            self.atoms[name] = row
            self.has_blank_altloc = True
        elif present is None:
            self.atoms[name] = _Atom(row, occupancies[row])
        elif isinstance(present, int):
            # Odd: a record with an alternative location that follows one without is chosen if their
            # occupancies are equal.
            self.atoms[name] = _Atom(row, occupancies[row])
            self.atoms[name].offer(present, occupancies[present])
        else:
            present.offer(row, occupancies[row])


class _Position:
    """The residues with the same key in a chain: one, or several for a point mutation."""

    __slots__ = ("residues",)

    def __init__(self, residue: Residue) -> None:
        self.residues = [residue]

    @property
    def chosen(self) -> Residue:
        """The residue whose first record comes last in the file, as chosen by Biopython."""
        return self.residues[-1]


def chain_residues(sites: AtomSites) -> dict[str, dict[ResidueKey, Residue]]:
    """Return the residues of the first model of the file by author chain and key.

    All models are checked: an error in any model rejects the entry.
    """
    first: dict[str, dict[ResidueKey, _Position]] | None = None
    chains: dict[str, dict[ResidueKey, _Position]] = {}
    model = None
    for begin, end in _runs(sites):
        if sites.models[begin] != model:
            model = sites.models[begin]
            chains = {}
            first = chains if first is None else first
        _add_run(sites, chains.setdefault(sites.author_chains[begin], {}), begin, end)
    return {
        chain: {key: position.chosen for key, position in residues.items()}
        for chain, residues in (first or {}).items()
    }


def _runs(sites: AtomSites) -> Iterator[tuple[int, int]]:
    """Yield ranges of records with the same model, author chain, key and residue name."""
    begin = 0
    previous = None
    rows = zip(sites.models, sites.author_chains, sites.keys, sites.residue_names)
    for i, row in enumerate(rows):
        if row != previous:
            if i:
                yield begin, i
            begin, previous = i, row
    yield begin, len(sites.keys)


def _add_run(sites: AtomSites, chain: dict[ResidueKey, _Position], begin: int, end: int) -> None:
    key, name = sites.keys[begin], sites.residue_names[begin]
    altlocs = sites.altlocs[begin:end]
    position = chain.get(key)
    is_simple = altlocs.count(" ") == len(altlocs)
    if position is None:
        residue = Residue(name)
        chain[key] = position = _Position(residue)
        if is_simple:
            if not residue.add_simple_run(sites.atom_names[begin:end], begin):
                raise EntryRejected(f"an atom comes twice in residue {name} {key[1]}")
            return
    else:
        residue = _continued(position, key, name)
    for row in range(begin, end):
        if len(position.residues) > 1 and sites.altlocs[row] == " ":
            raise EntryRejected(
                f"residue {name} {key[1]}: a point mutation with an atom that has no alternative "
                "location"
            )
        residue.add(sites.atom_names[row], sites.altlocs[row], row, sites.occupancies)


def _continued(position: _Position, key: ResidueKey, name: str) -> Residue:
    """Return the residue to which a later run with the same key belongs."""
    if key[0] != " ":
        raise EntryRejected(f"residue {name} {key[1]} comes twice")
    if name in [residue.name for residue in position.residues]:
        if len(position.residues) > 1:
            raise EntryRejected(
                f"residue {key[1]}: the records of two residue names are interleaved"
            )
        return position.chosen
    if len(position.residues) == 1 and position.chosen.has_blank_altloc:
        raise EntryRejected(
            f"residue {name} {key[1]}: a point mutation with an atom that has no alternative "
            "location"
        )
    position.residues.append(Residue(name))
    return position.chosen
