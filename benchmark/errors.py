"""The error that ends a command with a message and without a traceback."""


class BenchmarkError(Exception):
    """An error that the user can fix. It says what was found, what was expected, and the fix."""
