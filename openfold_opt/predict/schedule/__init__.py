"""The forward pass of a prediction: in place, in blocks, and sharded over rows."""
