"""`python -m benchmark preflight`: check data, checkpoint, disk, nodes and GPUs before a run."""
