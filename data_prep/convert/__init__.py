"""The command `python -m data_prep convert`: entries and alignments to shards and an index."""
