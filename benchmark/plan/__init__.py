"""`python -m benchmark plan`: time, memory and cost of a run before its job is queued.

Nothing here needs a GPU. Systems are JSON files of systems/, or files of a user with the same
fields. The counts of a training step come from a stored table (step_counts.json).
"""
