"""`python -m data_prep synthesize`: families of proteins that never were, as files like those of real ones."""
