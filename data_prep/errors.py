"""The error of this room that ends a command with a message and no traceback."""

from __future__ import annotations


class DataPrepError(RuntimeError):
    """Something the user can mend; the message says what and how."""
