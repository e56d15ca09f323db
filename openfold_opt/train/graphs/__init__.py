"""CUDA graphs around the training step; the model does not know of them."""
