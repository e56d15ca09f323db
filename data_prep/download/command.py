"""The command `python -m data_prep download`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from data_prep.download.addresses import DEFAULT_PROCESSED_ROOT, DataSet, RemoteFile, published_data
from data_prep.download.listing import list_folder
from data_prep.download.transfer import Fetched, fetch, is_as_recorded
from data_prep.progress import Progress
from openfold_opt.protein.shard_format import write_atomically

MANIFEST_NAME = "download_manifest.jsonl"
"""One line per completely fetched file: path, size, sha256."""
DEFAULT_DATA_SETS = ("checkpoint", "processed")


def add_parser(subparsers) -> None:
    names = published_data(DEFAULT_PROCESSED_ROOT)
    parser = subparsers.add_parser(
        "download",
        help="fetch the published data",
        description="Fetch published data over HTTPS. After an interruption the same command "
        f"resumes. The sha256 of every file is written to {MANIFEST_NAME} and compared with the "
        "published one if there is one. Sets: "
        + "; ".join(f"{name}: {data_set.description}" for name, data_set in names.items()),
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the output directory"
    )
    parser.add_argument(
        "--what",
        nargs="+",
        choices=tuple(names),
        default=DEFAULT_DATA_SETS,
        help="data sets to fetch (default: checkpoint processed)",
    )
    parser.add_argument(
        "--processed-root",
        default=DEFAULT_PROCESSED_ROOT,
        metavar="URL",
        help="a mirror of the processed data and the checkpoint (default: %(default)s)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="hash files that were fetched earlier, and fetch changed ones again",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    data_sets = published_data(arguments.processed_root)
    num_fetched = 0
    for name in arguments.what:
        num_fetched += download(
            data_sets[name], arguments.out, name=name, check_contents=arguments.check
        )
    print(
        f"{arguments.out}: {num_fetched} files fetched, all files are complete; {MANIFEST_NAME} "
        "has the checksums"
    )
    return 0


def download(data_set: DataSet, out: Path, *, name: str, check_contents: bool) -> int:
    """Fetch the missing files of a data set and return their number.

    Args:
        check_contents: hash files that were fetched earlier, instead of comparing their sizes.

    Raises:
        DataPrepError: a file cannot be fetched.
    """
    out.mkdir(parents=True, exist_ok=True)
    recorded = read_manifest(out)
    lines = "".join(json.dumps(dataclasses.asdict(fetched)) + "\n" for fetched in recorded.values())
    write_atomically(out / MANIFEST_NAME, lines.encode("utf-8"))
    num_fetched = 0
    with (
        Progress(None, what=name, unit="B") as progress,
        open(out / MANIFEST_NAME, "a", encoding="utf-8") as manifest,
    ):
        for file in _all_files(data_set):
            known = recorded.get(file.path)
            if known is not None and is_as_recorded(known, out, check_contents=check_contents):
                continue
            fetched = fetch(file, out, progress)
            manifest.write(json.dumps(dataclasses.asdict(fetched)) + "\n")
            manifest.flush()
            num_fetched += 1
    return num_fetched


def _all_files(data_set: DataSet) -> Iterator[RemoteFile]:
    yield from data_set.files
    for folder in data_set.folders:
        yield from list_folder(folder)


def read_manifest(out: Path) -> dict[str, Fetched]:
    """Return the recorded files by path.

    The last of several lines with the same path counts. Incomplete lines are skipped: a crash
    leaves them.
    """
    path = out / MANIFEST_NAME
    if not path.is_file():
        return {}
    recorded = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.endswith("}"):
            fetched = Fetched(**json.loads(line))
            recorded[fetched.path] = fetched
    return recorded
