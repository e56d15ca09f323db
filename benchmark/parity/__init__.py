"""Comparison with a golden directory: outputs, losses, gradients and steps of an implementation known to be right."""
