"""`convert-mlperf`: the processed data set that MLCommons distributes, to shards."""
