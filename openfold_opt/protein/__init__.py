"""Room 0: what a protein is to this benchmark (numpy and h5py only): residue constants, model features, shards."""
