"""CUDA graphs of the training step and of evaluation, independent of the model code."""
