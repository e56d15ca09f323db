"""Lists of the files below an address: folder pages of a web server, or an S3 bucket."""

from __future__ import annotations

import html.parser
import urllib.parse
import xml.etree.ElementTree
from collections.abc import Iterator

from data_prep.download.addresses import RemoteFile, RemoteFolder
from data_prep.download.transfer import read_page
from data_prep.errors import DataPrepError


def list_folder(folder: RemoteFolder) -> Iterator[RemoteFile]:
    """Yield all files below a folder in the order of the listing."""
    if folder.kind == "s3":
        return _list_bucket(folder)
    return _list_pages(folder.address, folder.path)


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets.extend(
            value for name, value in attrs if tag == "a" and name == "href" and value
        )


def _list_pages(address: str, path: str) -> Iterator[RemoteFile]:
    """Yield the files below a folder page.

    Only links to direct children are followed, not those for sorting (?C=...) or to the parent.
    """
    links = _Links()
    links.feed(read_page(address).decode("utf-8", errors="replace"))
    names = dict.fromkeys(_name_below(address, target) for target in links.targets)
    names.pop("", None)
    if not names:
        raise DataPrepError(f"{address} lists no files; expected a folder page with links")
    for name in names:
        file_name = urllib.parse.unquote(name)
        if name.endswith("/"):
            yield from _list_pages(address + name, f"{path}/{file_name.rstrip('/')}")
        else:
            yield RemoteFile(address=address + name, path=f"{path}/{file_name}")


def _name_below(address: str, target: str) -> str:
    """Return the last part of a link to a direct child of the address, "" for other links."""
    absolute = urllib.parse.urljoin(address, target)
    if not absolute.startswith(address) or "?" in absolute or "#" in absolute:
        return ""
    name = absolute[len(address) :]
    return (
        "" if "/" in name[:-1] or urllib.parse.unquote(name).strip("/") in ("", ".", "..") else name
    )


def _list_bucket(folder: RemoteFolder) -> Iterator[RemoteFile]:
    token = None
    while True:
        query = {"list-type": "2", "prefix": folder.prefix}
        if token:
            query["continuation-token"] = token
        page = xml.etree.ElementTree.fromstring(
            read_page(f"{folder.address}?{urllib.parse.urlencode(query)}")
        )
        for key in page.iterfind("{*}Contents/{*}Key"):
            if key.text and not key.text.endswith("/") and ".." not in key.text.split("/"):
                yield RemoteFile(
                    address=folder.address + urllib.parse.quote(key.text),
                    path=f"{folder.path}/{key.text}",
                )
        token = page.findtext("{*}NextContinuationToken")
        if not token:
            return
