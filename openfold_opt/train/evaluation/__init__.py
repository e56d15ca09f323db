"""Evaluation on the training ranks or on separate ranks."""
