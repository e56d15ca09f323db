"""Write report.html, and the data of the chains next to it if they are many."""

from __future__ import annotations

import datetime
import html
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote

from openfold_opt.predict.report.chain_data import (
    chain_data,
    compress,
    compress_json,
    table_row,
)
from openfold_opt.predict.report.results import Results, read_results
from openfold_opt.predict.report.viewer import INSTALL, read_viewer
from openfold_opt.predict.summary import SUMMARY_FILE
from openfold_opt.protein.shard_format import write_atomically

REPORT_FILE = "report.html"
MAX_EMBEDDED_CHARACTERS = 40_000_000
"""If the data of all chains have more, each chain gets a file, which the page loads when needed."""
SCRIPTS = (
    "elements.js",
    "chain_data.js",
    "marking.js",
    "chain_table.js",
    "structure_view.js",
    "pae_map.js",
    "residue_plots.js",
    "chain_facts.js",
    "run_facts.js",
    "page.js",
)
"""The page's JavaScript. The files are joined in this order into one module."""


def write_report(
    folder: str | os.PathLike[str], *, out: str | os.PathLike[str] | None = None
) -> Path:
    """Write a page with all chains of an output directory of `openfold_opt.predict`.

    The page is one file with all data if these have less than MAX_EMBEDDED_CHARACTERS. Otherwise
    the data of the chains are in a directory next to it (report_files for report.html), which must
    stay with the page. Files are written under temporary names and renamed, the page last.

    Args:
        folder: the output directory.
        out: the page; None: report.html in `folder`.

    Returns:
        The path of the page.

    Raises:
        ValueError: the directory has no results that this version can read.
        OSError: a file cannot be read or written.
    """
    results = read_results(Path(folder))
    path = Path(out) if out is not None else results.folder / REPORT_FILE
    if path.is_dir():
        raise ValueError(f"{path} is a directory; name the file of the report")
    files = path.with_name(f"{path.stem}_files")
    embedded, written = _chains(results, files)
    data = _run_data(results, path=path, data_folder=files.name if written else None)
    page = _page(results, data, embedded)
    write_atomically(path, page.encode())
    _remove_others(files, keep=written)
    return path


def _chains(results: Results, files: Path) -> tuple[dict[str, str], set[str]]:
    """Return the compressed data of all chains by stem, or write each to a file.

    Returns:
        The data to embed, and the names of the written files; one of both is empty.
    """
    embedded: dict[str, str] = {}
    written: set[str] = set()
    num_characters = 0
    for record in results.records:
        embedded[record["stem"]] = compress_json(chain_data(results, record))
        num_characters += len(embedded[record["stem"]])
        if num_characters > MAX_EMBEDDED_CHARACTERS:
            # From here on every chain goes to its file at once: memory holds one limit at most.
            written |= set(_write_data(files, embedded))
            embedded = {}
    return embedded, written


def _write_data(files: Path, chains: Mapping[str, str]) -> Iterator[str]:
    """Write the file of each chain, which calls a function of the page, and yield its name."""
    files.mkdir(exist_ok=True)
    for stem, data in chains.items():
        # Stems have no quotes (file_names.py), and base64 has none.
        write_atomically(files / f"{stem}.js", f'receiveChain("{stem}", "{data}");\n'.encode())
        yield f"{stem}.js"


def _remove_others(files: Path, *, keep: Iterable[str]) -> None:
    """Remove the files of chains that an earlier report had."""
    for path in files.glob("*.js"):
        if path.name not in keep:
            path.unlink()
    if files.is_dir() and not any(files.iterdir()):
        files.rmdir()


def _run_data(results: Results, *, path: Path, data_folder: str | None) -> dict[str, object]:
    """Return what the page shows before a chain is selected.

    data_folder: name of the directory with the data of the chains; None: they are in the page.
    """
    summary = results.summary
    time = datetime.datetime.fromtimestamp((results.folder / SUMMARY_FILE).stat().st_mtime)
    link = os.path.relpath(results.folder.resolve(), path.parent.resolve())
    return {
        "name": results.folder.resolve().name,
        "written": time.isoformat(sep=" ", timespec="minutes"),
        "device": summary["device"],
        "pending": summary["pending"],
        "settings": summary["settings"],
        "weights": summary["weights"],
        "versions": summary["versions"],
        "rows": [table_row(results, record) for record in results.records],
        "results_link": quote(Path(link).as_posix()),
        "data_folder": None if data_folder is None else quote(data_folder),
        "install_viewer": INSTALL,
    }


def _page(results: Results, data: Mapping, chains: Mapping[str, str]) -> str:
    viewer = read_viewer()
    scripts = [
        _script("run-data", "application/json", json.dumps(data).replace("<", r"\u003c")),
        *(_script(f"chain-{stem}", "text/plain", text) for stem, text in chains.items()),
    ]
    if viewer is not None:
        scripts.append(_script("viewer-script", "text/plain", compress(viewer.script)))
    package = resources.files(__package__)
    template = Template((package / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(f"Structures of {results.folder.resolve().name}"),
        style=(package / "page.css").read_text(encoding="utf-8"),
        viewer_style=viewer.style if viewer is not None else "",
        data="\n".join(scripts),
        script="\n".join((package / name).read_text(encoding="utf-8") for name in SCRIPTS),
    )


def _script(name: str, kind: str, text: str) -> str:
    return f'<script id="{html.escape(name)}" type="{kind}">{text}</script>'
