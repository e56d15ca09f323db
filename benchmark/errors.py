"""The error that ends a command with a message instead of a traceback."""


class BenchmarkError(Exception):
    """Something that the person at the keyboard can put right; the text says what was found, expected and to do."""
