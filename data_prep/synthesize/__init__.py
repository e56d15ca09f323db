"""The command `python -m data_prep synthesize`: synthetic protein families as raw files."""
