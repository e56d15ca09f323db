"""CPU kernels: tiles fit the processor's cache, and the backward pass saves little but inputs."""
