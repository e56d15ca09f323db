"""The command `python -m data_prep download`: data of MLCommons, the PDB and OpenProteinSet."""
