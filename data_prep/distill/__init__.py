"""Convert predicted structures to a distillation set."""
