"""The MLPerf log and the rules of the benchmark."""
