"""Write a text file as a whole, and append to a file."""

from __future__ import annotations

from pathlib import Path

from openfold_opt.protein.replace_file import replacing


def replace_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file as `replacing` does.

    A path that is not a regular file, such as /dev/stdout or a pipe, is written directly.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    with replacing(path) as file:
        file.write(text.encode())


def append_bytes(path: Path, content: bytes) -> None:
    """Append to a file.

    Raises OSError, which names the file: the error of a failed write does not have its name.
    """
    try:
        with open(path, "ab") as file:
            file.write(content)
    except OSError as error:
        error.filename = str(path)
        raise
