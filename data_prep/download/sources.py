"""Where the published data are. Addresses as the benchmark's reference implementation gives them."""

from __future__ import annotations

import dataclasses

CHECKPOINT_SHA256 = "b518be4677048f2c0f94889c91e2da73655a73b825a8aa7f8b6f5e580d8ffbed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file, with its sha256 where it was published."""

    address: str
    path: str
    """Relative to the output directory."""
    sha256: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteFolder:
    """Everything below an address. kind "index": pages of links, as web servers list folders; "s3": a bucket's listing."""

    address: str
    path: str
    kind: str
    prefix: str = ""
    """For "s3": only keys that begin so."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
    """What one name on the command line fetches."""

    description: str
    files: tuple[RemoteFile, ...] = ()
    folders: tuple[RemoteFolder, ...] = ()


def published_data(processed_root: str) -> dict[str, DataSet]:
    """Data sets by name. processed_root: address of the processed data (a mirror of it may stand in)."""
    root = processed_root.rstrip("/")
    return {
        "checkpoint": DataSet(
            description="the checkpoint that the closed division starts from (1.1 GiB)",
            files=(
                RemoteFile(
                    address=f"{root}/mlperf_hpc_openfold_resumable_checkpoint.pt",
                    path="mlperf_hpc_openfold_resumable_checkpoint.pt",
                    sha256=CHECKPOINT_SHA256,
                ),
            ),
        ),
        "processed": DataSet(
            description="the data set as MLCommons distributes it (616 GiB; about 1,100 files)",
            folders=(
                RemoteFolder(
                    address=f"{root}/pdb_mmcif/processed/", path="pdb_mmcif/processed", kind="index"
                ),
                RemoteFolder(
                    address=f"{root}/open_protein_set/processed/",
                    path="open_protein_set/processed",
                    kind="index",
                ),
            ),
        ),
        "raw-pdb": DataSet(
            description="all entries of the PDB as they are today, with cluster and obsolete tables (more than 55 GiB)",
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
        ),
        "raw-alignments": DataSet(
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
        ),
    }


DEFAULT_PROCESSED_ROOT = "https://portal.nersc.gov/cfs/m4291/openfold"
