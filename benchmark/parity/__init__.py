"""Compare outputs, losses, gradients and steps with stored results of the MLCommons reference."""
