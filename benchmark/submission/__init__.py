"""From the logs of ten runs to the directory that MLCommons takes: `submit` and `describe-system`."""
