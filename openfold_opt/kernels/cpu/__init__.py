"""Every operation for a CPU: worked through in pieces that stay in its cache, keeping for the backward pass little more than inputs."""
