"""Find the JavaScript of the 3-D view: Mol*, which the package ipymolstar has as one ES module."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "ipymolstar"
INSTALL = "pip install ipymolstar"


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """The files of the viewer."""

    script: bytes
    """ES module whose default export has `render({model, el})`."""
    style: str
    """Style sheet."""


def read_viewer() -> Viewer | None:
    """Return the viewer; None if the package is not installed.

    The package is not imported, because that would load Jupyter's widgets.

    Raises:
        ValueError: the package has no such files.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "static"
    script, style = folder / "molviewspec.js", folder / "molviewspec.css"
    if not script.is_file() or not style.is_file():
        raise ValueError(
            f"the package {PACKAGE} has no {script.name} and {style.name} in {folder}; install "
            f"the version that this package needs: {INSTALL}"
        )
    return Viewer(script=script.read_bytes(), style=style.read_text(encoding="utf-8"))
