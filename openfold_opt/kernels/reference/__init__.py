"""PyTorch definitions of every operation. The other implementations are tested against them."""
