"""The benchmark around the training: presets, the timed run, its MLPerf log, rules and compliance."""
