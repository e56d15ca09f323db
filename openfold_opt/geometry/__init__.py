"""Rotations, rigid frames, atoms and torsions of residues, superposition. Everything works over any leading dims."""
