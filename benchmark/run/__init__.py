"""A timed run: command, records, status and export."""
