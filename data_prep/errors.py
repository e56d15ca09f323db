"""The error of data preparation that ends a command with a message and no traceback."""

from __future__ import annotations


class DataPrepError(RuntimeError):
    """Something the user can correct; the message says what and how."""
