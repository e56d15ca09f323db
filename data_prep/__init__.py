"""Raw PDB and OpenProteinSet files to shards. Runs once, before any training; serial or under MPI."""
