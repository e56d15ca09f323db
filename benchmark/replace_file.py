"""Write a file or a picture as a whole, and append to a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from openfold_opt.protein.replace_file import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 120
"""Of pictures that are PNG files."""


def replace_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file as `replace_bytes` does."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file as `replacing` does.

    A path that is not a regular file, such as /dev/stdout or a pipe, is written directly.

    Raises OSError, which names the file.
    """
    if path.exists() and not path.is_file():
        with _naming_errors(path):
            path.write_bytes(content)
        return
    with replacing(path) as file:
        file.write(content)


def append_bytes(path: Path, content: bytes) -> None:
    """Append to a file.

    Raises OSError, which names the file: the error of a failed write does not have its name.
    """
    with _naming_errors(path), open(path, "ab") as file:
        file.write(content)


def save_picture(figure: Figure, path: Path) -> None:
    """Draw a figure, and write the file as `replace_bytes` does.

    The file is SVG if its name ends with .svg, else PNG.
    """
    content = io.BytesIO()
    kind = "svg" if path.suffix == ".svg" else "png"
    figure.savefig(content, format=kind, dpi=DOTS_PER_INCH)
    replace_bytes(path, content.getvalue())


@contextmanager
def _naming_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
