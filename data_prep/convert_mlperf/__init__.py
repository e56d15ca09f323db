"""The command `convert-mlperf`: the processed data set of MLCommons to shards."""
