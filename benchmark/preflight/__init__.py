"""`python -m benchmark preflight`: is everything there that a run will need? Asked before anything expensive starts."""
