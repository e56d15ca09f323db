"""Resumable transfer of one file over HTTP. A file is checked and renamed when it is complete."""

from __future__ import annotations

import dataclasses
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from data_prep.download.addresses import RemoteFile
from data_prep.errors import DataPrepError
from data_prep.progress import Progress
from openfold_opt.protein.shard_format import sha256_of_file

_BLOCK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60
_ATTEMPTS = 5
_PART_SUFFIX = ".part"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fetched:
    """A completely fetched file."""

    path: str
    size_bytes: int
    sha256: str


def read_page(address: str) -> bytes:
    """Return the contents of a small page.

    Raises:
        DataPrepError: the page cannot be read.
    """
    return _retrying(lambda: _read(address), address)


def fetch(file: RemoteFile, out: Path, progress: Progress) -> Fetched:
    """Fetch a file to a path below `out`. A partial file is continued with an HTTP range request.

    Raises:
        DataPrepError: the file cannot be fetched, or its sha256 is wrong and it was removed.
    """
    target = out / file.path
    part = target.with_name(target.name + _PART_SUFFIX)
    target.parent.mkdir(parents=True, exist_ok=True)
    _retrying(lambda: _continue(file.address, part, progress), file.address)
    sha256 = sha256_of_file(part)
    if file.sha256 is not None and sha256 != file.sha256:
        part.unlink()
        raise DataPrepError(
            f"{file.address} has sha256 {sha256}, expected {file.sha256}; it was removed, try again"
        )
    os.replace(part, target)
    return Fetched(path=file.path, size_bytes=target.stat().st_size, sha256=sha256)


def _retrying(action, address: str):
    """Call an action up to five times until it succeeds. An HTTP status below 500 is final."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return action()
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == _ATTEMPTS:
                raise DataPrepError(
                    f"{address}: the server responds {error.code} {error.reason}"
                ) from error
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
        ) as error:
            if attempt == _ATTEMPTS:
                raise DataPrepError(
                    f"{address} cannot be read ({error}); the same command resumes"
                ) from error
        time.sleep(2.0 ** (attempt - 2))  # 0.5, 1, 2 and 4 seconds.
    raise AssertionError("unreachable")


def _read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as response:
        return response.read()


def _continue(address: str, part: Path, progress: Progress) -> None:
    """Append the missing bytes to a partial file."""
    present = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={present}-"} if present else {}
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if (
            error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
            and _total_size(error.headers) == present
        ):
            return  # The partial file is already complete.
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise ConnectionError(
                f"part of {present} bytes does not fit the file at {address}"
            ) from error
        raise
    with response:
        is_continued = response.status == http.HTTPStatus.PARTIAL_CONTENT
        expected = int(response.headers.get("Content-Length", -1))
        received = 0
        with open(part, "ab" if is_continued else "wb") as out:
            while block := response.read(_BLOCK_BYTES):
                out.write(block)
                received += len(block)
                progress.update(len(block))
        if expected >= 0 and received != expected:
            raise ConnectionError(f"connection ended after {received} of {expected} bytes")


def _total_size(headers) -> int:
    """Return the size of the whole file from `Content-Range: bytes */<size>`, -1 if unknown."""
    size = (headers.get("Content-Range") or "").rpartition("/")[2]
    return int(size) if size.isdigit() else -1


def is_as_recorded(recorded: Fetched, out: Path, *, check_contents: bool) -> bool:
    """Return whether a recorded file still exists with its size, or its sha256 if checked."""
    path = out / recorded.path
    if not path.is_file() or path.stat().st_size != recorded.size_bytes:
        return False
    return not check_contents or sha256_of_file(path) == recorded.sha256
