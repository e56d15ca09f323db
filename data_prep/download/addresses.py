"""Addresses of the data of MLCommons, the PDB and OpenProteinSet, from the MLCommons reference."""

from __future__ import annotations

import dataclasses

DEFAULT_PROCESSED_ROOT = "https://portal.nersc.gov/cfs/m4291/openfold"
CHECKPOINT_SHA256 = "b518be4677048f2c0f94889c91e2da73655a73b825a8aa7f8b6f5e580d8ffbed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file, with its sha256 if its source publishes one."""

    address: str
    path: str
    """Relative to the output directory."""
    sha256: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteFolder:
    """All files below an address."""

    address: str
    path: str
    """Relative to the output directory."""
    kind: str
    """"index": HTML folder pages of a web server; "s3": listing of an S3 bucket."""
    prefix: str = ""
    """For "s3": only keys with this prefix."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """The files and folders of one value of --what."""

    description: str
    files: tuple[RemoteFile, ...] = ()
    folders: tuple[RemoteFolder, ...] = ()


def published_data(processed_root: str) -> dict[str, DataSet]:
    """Return the data sets by name.

    Args:
        processed_root: address of the processed data and the checkpoint, or of a mirror.
    """
    root = processed_root.rstrip("/")
    return {
        "checkpoint": _checkpoint(root),
        "processed": _processed(root),
        "raw-pdb": _RAW_PDB,
        "raw-alignments": _RAW_ALIGNMENTS,
    }


def _checkpoint(root: str) -> DataSet:
    name = "mlperf_hpc_openfold_resumable_checkpoint.pt"
    return DataSet(
        description="the initial checkpoint of the closed division (1.1 GiB)",
        files=(RemoteFile(address=f"{root}/{name}", path=name, sha256=CHECKPOINT_SHA256),),
    )


def _processed(root: str) -> DataSet:
    paths = ("pdb_mmcif/processed", "open_protein_set/processed")
    return DataSet(
        description="the data set as distributed by MLCommons (616 GiB; about 1,100 files)",
        folders=tuple(
            RemoteFolder(address=f"{root}/{path}/", path=path, kind="index") for path in paths
        ),
    )


_RAW_PDB = DataSet(
    description="all current entries of the PDB, with cluster and obsolete tables (more than "
    "55 GiB)",
    files=(
        RemoteFile(
            address="https://files.wwpdb.org/pub/pdb/data/status/obsolete.dat",
            path="pdb_mmcif/obsolete.dat",
        ),
        RemoteFile(
            address="https://cdn.rcsb.org/resources/sequence/clusters/clusters-by-entity-40.txt",
            path="pdb_mmcif/clusters-by-entity-40.txt",
        ),
    ),
    folders=(
        RemoteFolder(
            address="https://files.wwpdb.org/pub/pdb/data/structures/divided/mmCIF/",
            path="pdb_mmcif/raw",
            kind="index",
        ),
    ),
)

_RAW_ALIGNMENTS = DataSet(
    description="OpenProteinSet: alignments of all chains (606 GiB; 524,000 files)",
    files=(
        RemoteFile(
            address="https://openfold.s3.amazonaws.com/LICENSE",
            path="open_protein_set/LICENSE",
        ),
        RemoteFile(
            address="https://openfold.s3.amazonaws.com/duplicate_pdb_chains.txt",
            path="open_protein_set/duplicate_pdb_chains.txt",
        ),
    ),
    folders=(
        RemoteFolder(
            address="https://openfold.s3.amazonaws.com/",
            path="open_protein_set",
            kind="s3",
            prefix="pdb/",
        ),
    ),
)
