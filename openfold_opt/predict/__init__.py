"""Prediction of structures: inputs, memory plan, forward pass and output files."""
