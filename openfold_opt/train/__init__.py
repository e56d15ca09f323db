"""The training step, the loop around it, checkpoints, evaluation and the observer of a run."""
