"""The predicted structures to distill: structure files, with the name and the id of their chain."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from data_prep.convert.entry_files import unused_item
from data_prep.convert.findings import Unused
from data_prep.convert.plan import file_fingerprint
from data_prep.errors import BrokenFile, DataPrepError, escaped
from data_prep.parsers.file_access import Item, exists, list_folder, read_file
from data_prep.progress import tracked

SUFFIXES = (".cif", ".cif.gz")
RECORD_SUFFIX = ".json"
_OTHER_SUFFIXES = ("_confidence.json", "_predicted_aligned_error.json")
"""Ends of other files of JSON in the output directory of a prediction."""
_RECORD_KEYS = frozenset({"schema_version", "name", "status", "structure"})
"""Keys of the file STEM.json that prediction writes for each chain."""
_CHAIN_ID = re.compile(r"[A-Za-z0-9-]+_\w+", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionFile:
    """A predicted structure."""

    path: Path
    size_bytes: int
    modified: float
    """Time of the last change, seconds since 1970."""
    name: str
    """Name of the chain in the prediction."""
    chain_id: str
    fingerprint: list[Any]
    """JSON values that identify the input; if they change, the shard is built again."""


def chain_id_of(name: str) -> str:
    """Return the chain id of a name, in the form <id>_<chain> that all data sets have.

    A name of this form is its own id. In any other name, each run of other characters than
    letters, digits and hyphens becomes a hyphen, and `_A` is added.
    """
    if _CHAIN_ID.fullmatch(name):
        return name
    return f"{re.sub(r'[^A-Za-z0-9-]+', '-', name).strip('-') or 'chain'}_A"


def find_predictions(paths: Sequence[Path]) -> tuple[list[PredictionFile], list[Unused]]:
    """Return the predicted structures, sorted by chain id, and what is not used.

    Args:
        paths: output directories of `openfold_opt.predict`, of which the best structure of each
            finished chain is used; other directories with .cif or .cif.gz files; and such files.
            Without records of chains, the name of a chain is that of its file.

    Raises:
        DataPrepError: a path does not exist, there is no structure, or two structures have the
            same chain id.
        CannotRead: the operating system reports an error.
    """
    found: list[PredictionFile] = []
    unused: list[Unused] = []
    for path in paths:
        if not exists(path):
            raise DataPrepError(
                f"the predictions {escaped(path)} do not exist; expected a directory or a file"
            )
        items = list_folder(path) if path.is_dir() else _item_of(path)
        records = [] if not path.is_dir() else _records(items)
        if records:
            found.extend(_from_records(records, items, unused))
        else:
            found.extend(_from_files(items))
    if not found:
        reasons = f"; {unused[0].path}: {unused[0].reason}" if unused else ""
        raise DataPrepError(
            f"no predicted structure in {', '.join(map(escaped, paths))}{reasons}; expected the "
            "output directory of `python -m openfold_opt.predict`, or .cif files"
        )
    found.sort(key=lambda prediction: prediction.chain_id)
    _refuse_equal_ids(found)
    return found, unused


def _item_of(path: Path) -> list[Item]:
    if not path.name.endswith(SUFFIXES):
        raise DataPrepError(f"{escaped(path)} is no structure; expected .cif or .cif.gz")
    return [item for item in list_folder(path.parent) if item.name == path.name]


def _records(items: Sequence[Item]) -> list[tuple[Item, dict[str, Any]]]:
    """Return the records of chains among the files of a folder."""
    names = {item.name for item in items}
    files = [item for item in items if _may_be_record(item, names)]
    records = []
    for item in tracked(files, what="listing", unit="record"):
        try:
            content = json.loads(read_file(item.path))
        except (ValueError, RecursionError):
            continue
        if isinstance(content, dict) and content.keys() >= _RECORD_KEYS:
            records.append((item, content))
    return records


def _may_be_record(item: Item, names: Collection[str]) -> bool:
    """Return whether a file may be a record. The other files of a chain can be large.

    A chain may have a name that ends like that of another file; then it has a structure.
    """
    if item.is_folder or not item.name.endswith(RECORD_SUFFIX):
        return False
    has_structure = item.name.removesuffix(RECORD_SUFFIX) + ".cif" in names
    return has_structure or not item.name.endswith(_OTHER_SUFFIXES)


def _from_records(
    records: Sequence[tuple[Item, dict[str, Any]]], items: Sequence[Item], unused: list[Unused]
) -> list[PredictionFile]:
    by_name = {item.name: item for item in items}
    found = []
    for record, content in records:
        if content["status"] != "finished":
            unused.append(unused_item(record, "the chain has no structure"))
            continue
        structure = by_name.get(str(content["structure"]))
        if structure is None:
            raise BrokenFile(
                record.path,
                f"names the structure {content['structure']}, which does not exist; predict the "
                "chain again, or remove the record",
            )
        found.append(_prediction(structure, str(content["name"])))
    return found


def _from_files(items: Sequence[Item]) -> list[PredictionFile]:
    files = [item for item in items if item.name.endswith(SUFFIXES) and not item.is_folder]
    return [_prediction(item, re.sub(r"\.cif(\.gz)?$", "", item.name)) for item in files]


def _prediction(item: Item, name: str) -> PredictionFile:
    status = item.stat()
    return PredictionFile(
        path=item.path,
        size_bytes=status.st_size,
        modified=status.st_mtime,
        name=name,
        chain_id=chain_id_of(name),
        fingerprint=[name, file_fingerprint(item.path, item.path.parent, status)],
    )


def _refuse_equal_ids(predictions: Sequence[PredictionFile]) -> None:
    first_of: dict[str, PredictionFile] = {}
    for prediction in predictions:
        # Ids that differ only in case would be one chain in tables of other programs.
        first = first_of.setdefault(prediction.chain_id.lower(), prediction)
        if first is not prediction:
            both = f"{escaped(first.path)} and {escaped(prediction.path)}"
            raise DataPrepError(
                f"two structures of chain {prediction.chain_id}: {both}; keep one of them, or "
                "rename a chain"
            )
