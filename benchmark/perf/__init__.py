"""`perf`: measurements beside a named peer, one module each. A figure is a median with its spread, taken in one run for both sides."""
