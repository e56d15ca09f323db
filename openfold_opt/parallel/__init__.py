"""Axes of processes, the collectives over them, and the averaging of gradients."""
