"""The training step, the training loop, checkpoints, evaluation and the observer of a run."""
