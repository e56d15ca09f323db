"""Plain PyTorch definitions of every operation: slow, readable, and the truth that fused versions are tested against."""
