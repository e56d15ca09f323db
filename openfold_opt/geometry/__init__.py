"""Rotations, rigid frames, atoms and torsions of residues, and superposition.

All functions accept any leading dims.
"""
