"""Faults that the test of random input adds to the files of an entry."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import os
import random
from pathlib import Path

from data_prep.errors import escaped

_ERRORS = (errno.EACCES, errno.EIO, errno.ESTALE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
    """The raw files of a data set, and the entry to which a fault is added."""

    root: Path
    pdb_id: str
    draw: random.Random

    @property
    def entry(self) -> Path:
        return self.root / "pdb_mmcif" / "raw" / self.pdb_id[1:3] / f"{self.pdb_id}.cif.gz"

    @property
    def folder(self) -> Path:
        return self.root / "open_protein_set" / "pdb" / f"{self.pdb_id}_A"

    @property
    def a3m(self) -> Path:
        return self.folder / "a3m" / self.draw.choice(["uniref90_hits.a3m", "mgnify_hits.a3m"])

    def fault(self, name: str, expected_text: object = None, **options) -> Fault:
        return Fault(
            name=name,
            pdb_id=self.pdb_id,
            expected_text=None if expected_text is None else escaped(expected_text),
            **options,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault and its expected report."""

    name: str
    pdb_id: str
    expected_text: str | None
    """Text that must be in a listing, or in the error if `stops`; None if the files are read."""
    stops: bool = False
    is_faulty: bool = False
    denied: dict[Path, int] = dataclasses.field(default_factory=dict)
    """Maps the paths that the system refuses to open to the error numbers."""


def entry_truncated(tree: Tree) -> Fault:
    contents = tree.entry.read_bytes()
    tree.entry.write_bytes(contents[: tree.draw.randrange(len(contents))])
    return tree.fault("entry truncated", tree.pdb_id, is_faulty=True)


def entry_truncated_before_compression(tree: Tree) -> Fault:
    text = gzip.decompress(tree.entry.read_bytes())
    tree.entry.write_bytes(gzip.compress(text[: -tree.draw.randrange(10, 50)]))
    return tree.fault("entry text truncated", tree.pdb_id, is_faulty=True)


def entry_with_other_suffix(tree: Tree) -> Fault:
    suffix = tree.draw.choice([".ent.gz", ".CIF.gz", ".cif.Z", ".cif.gz.part", ".pdb"])
    path = tree.entry.rename(tree.entry.with_name(tree.pdb_id + suffix))
    return tree.fault("entry with another suffix", path)


def entry_under_another_id(tree: Tree) -> Fault:
    tree.entry.rename(tree.entry.with_name("9" + tree.entry.name[1:]))
    return tree.fault("entry under another id", "9" + tree.pdb_id[1:])


def entry_with_long_id(tree: Tree) -> Fault:
    tree.entry.rename(tree.entry.with_name(f"pdb_0000{tree.entry.name}"))
    return tree.fault("entry with a long id", f"pdb_0000{tree.pdb_id}")


def entry_not_utf8(tree: Tree) -> Fault:
    name = os.fsdecode(tree.pdb_id.encode() + b"\xe9.cif.gz")
    tree.entry.rename(tree.entry.with_name(name))
    return tree.fault("entry name not UTF-8", f"{tree.pdb_id}\\xe9", is_faulty=True)


def entry_one_folder_higher(tree: Tree) -> Fault:
    tree.entry.rename(tree.entry.parents[1] / tree.entry.name)
    return tree.fault("entry one folder higher")


def entry_too_deep(tree: Tree) -> Fault:
    (tree.entry.parent / "sub").mkdir(exist_ok=True)
    return tree.fault(
        "entry too deep", tree.entry.rename(tree.entry.parent / "sub" / tree.entry.name)
    )


def entry_plain(tree: Tree) -> Fault:
    tree.entry.with_suffix("").write_bytes(gzip.decompress(tree.entry.read_bytes()))
    tree.entry.unlink()
    return tree.fault("entry not compressed")


def entry_in_two_forms(tree: Tree) -> Fault:
    tree.entry.with_suffix("").write_bytes(b"data_X\n")
    return tree.fault("uncompressed entry next to the compressed one", tree.entry.with_suffix(""))


def entry_unreadable(tree: Tree) -> Fault:
    path = tree.draw.choice([tree.entry, tree.entry.parent])
    return tree.fault(
        "entry unreadable", path, stops=True, denied={path: tree.draw.choice(_ERRORS)}
    )


def entry_dangling(tree: Tree) -> Fault:
    tree.entry.unlink()
    tree.entry.symlink_to("nowhere")
    return tree.fault("entry a dangling link", tree.entry, stops=True)


def entry_linked(tree: Tree) -> Fault:
    target = tree.entry.rename(tree.root / tree.entry.name)
    tree.entry.symlink_to(target)
    return tree.fault("entry a link")


def other_file_among_entries(tree: Tree) -> Fault:
    path = (
        tree.draw.choice([tree.entry.parent, tree.entry.parents[1]])
        / f"{tree.pdb_id}.{tree.draw.choice(['txt', 'md5', 'html'])}"
    )
    path.write_text("x")
    return tree.fault("other file among the entries", path)


def a3m_truncated(tree: Tree) -> Fault:
    path = tree.a3m
    path.write_bytes(path.read_bytes()[: -tree.draw.randrange(2, 15)])
    return tree.fault("a3m truncated", path, is_faulty=True)


def a3m_gzip_truncated(tree: Tree) -> Fault:
    path = tree.a3m
    contents = gzip.compress(path.read_bytes())
    path.unlink()
    path = path.with_name(path.name + ".gz")
    path.write_bytes(contents[: tree.draw.randrange(1, len(contents))])
    return tree.fault("a3m.gz truncated", path, is_faulty=True)


def a3m_compressed(tree: Tree) -> Fault:
    path = tree.a3m
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return tree.fault("a3m compressed")


def a3m_empty(tree: Tree) -> Fault:
    path = tree.a3m
    path.write_bytes(b"")
    return tree.fault("a3m empty", path)


def a3m_with_other_name(tree: Tree) -> Fault:
    path = tree.a3m
    name = tree.draw.choice(
        ["bfd_uniref_hits.a3m", f"{tree.pdb_id}_A.a3m", "uniref90_hits.txt", "Uniref90_hits.a3m"]
    )
    return tree.fault("a3m with another name", path.rename(path.with_name(name)))


def all_a3m_with_other_names(tree: Tree) -> Fault:
    for name, other in (("uniref90_hits.a3m", "custom_1.a3m"), ("mgnify_hits.a3m", "custom_2.a3m")):
        (tree.folder / "a3m" / name).rename(tree.folder / other)
    return tree.fault("all a3m with other names")


def a3m_of_another_chain(tree: Tree) -> Fault:
    path = tree.a3m
    path.write_text(">q\nMKTAYIAKQRMKTAYIAKQRMKTAYIAKQRMKTAYIAKQR\n")
    return tree.fault("a3m of another chain", path, is_faulty=True)


def a3m_with_many_other_letters(tree: Tree) -> Fault:
    path = tree.a3m
    header, query, *rest = path.read_text().split("\n")
    path.write_text("\n".join([header, "WW" + query[2:], *rest]))
    return tree.fault("a3m with two other letters", path, is_faulty=True)


def a3m_with_one_other_letter(tree: Tree) -> Fault:
    path = tree.a3m
    header, query, *rest = path.read_text().split("\n")
    place = tree.draw.randrange(len(query))
    letter = "C" if query[place] != "C" else "D"
    path.write_text("\n".join([header, query[:place] + letter + query[place + 1 :], *rest]))
    return tree.fault("a3m with one other letter", f"{tree.pdb_id}_A {place + 1} ")


def a3m_unreadable(tree: Tree) -> Fault:
    path = tree.draw.choice([tree.a3m, tree.folder / "a3m", tree.folder])
    return tree.fault(
        "alignment unreadable", path, stops=True, denied={path: tree.draw.choice(_ERRORS)}
    )


def a3m_dangling(tree: Tree) -> Fault:
    path = tree.a3m
    path.unlink()
    path.symlink_to("nowhere")
    return tree.fault("a3m a dangling link", path, stops=True)


def folder_dangling(tree: Tree) -> Fault:
    tree.folder.rename(tree.root / f"moved_{tree.pdb_id}")
    tree.folder.symlink_to("nowhere")
    return tree.fault("alignment folder a dangling link", tree.folder, stops=True)


def flat_folder(tree: Tree) -> Fault:
    for path in list(tree.folder.glob("*/*")):
        path.rename(tree.folder / path.name)
    return tree.fault("flat alignment folder")


def folder_in_another_case(tree: Tree) -> Fault:
    return tree.fault(
        "alignment folder in upper case",
        tree.folder.rename(tree.folder.with_name(f"{tree.pdb_id.upper()}_A")),
    )


def folder_too_deep(tree: Tree) -> Fault:
    (tree.folder.parent / "more").mkdir(exist_ok=True)
    tree.folder.rename(tree.folder.parent / "more" / tree.folder.name)
    return tree.fault("alignment folder too deep", tree.folder.parent / "more")


def file_one_folder_higher(tree: Tree) -> Fault:
    path = tree.a3m
    return tree.fault(
        "a3m outside of the folder",
        path.rename(tree.folder.parent / f"{tree.pdb_id}_A_{path.name}"),
    )


def file_too_deep(tree: Tree) -> Fault:
    path = tree.a3m
    (path.parent / "old").mkdir()
    return tree.fault("a3m too deep", path.rename(path.parent / "old" / path.name))


def hhr_truncated(tree: Tree) -> Fault:
    path = tree.folder / "hhr" / "pdb70_hits.hhr"
    path.parent.mkdir(exist_ok=True)
    path.write_text("Query         q\nMatch_columns 22\n")
    return tree.fault("hhr truncated", path, is_faulty=True)


FAULTS = [
    value
    for value in list(globals().values())
    if callable(value)
    and getattr(value, "__module__", "") == __name__
    and not isinstance(value, type)
]
