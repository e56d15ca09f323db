"""What parsers raise."""

from __future__ import annotations

from pathlib import Path


class EntryRejected(ValueError):
    """A PDB entry that the benchmark leaves out; the message is the reason that goes into rejected.csv."""


class BrokenFile(ValueError):
    """An input file that cannot be used: conversion of what needs it stops until it is mended."""

    def __init__(self, path: Path, message: str, *, line: int | None = None) -> None:
        super().__init__(f"{path}{'' if line is None else f':{line}'}: {message}")
