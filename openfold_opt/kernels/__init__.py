"""The expensive operations of the model: reference, CPU and Triton versions, and selection."""
