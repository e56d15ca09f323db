"""From shards to batches: samplers, transforms, worker processes.

A sample is a pure function of (chain, seed).
"""
