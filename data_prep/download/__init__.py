"""The command `python -m data_prep download`: resumable, checked download of published data."""
