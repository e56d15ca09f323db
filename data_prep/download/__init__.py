"""`python -m data_prep download`: the published data, fetched once, checked, and resumed after an interruption."""
