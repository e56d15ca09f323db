"""The benchmark around training: presets, the timed run, its MLPerf log, and compliance checks."""
