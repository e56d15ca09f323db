"""Programs that a measurement runs in a separate process."""
