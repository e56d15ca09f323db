"""Wire features of structures and templates: residue types, atom bits, resolved atom positions."""

import numpy as np

from openfold_opt.loader.raw_features import RawFeatures, Templates
from openfold_opt.loader.wire_format import ATOM_BYTES, pack_bits


def encode_structure(raw: RawFeatures, *, crop: slice) -> dict[str, np.ndarray]:
    """Return the wire features of the target's residues in the crop, unpadded."""
    is_resolved = raw.all_atom_mask[crop] > 0
    return {
        "aatype": raw.aatype[crop],
        "atom_flags": pack_bits(is_resolved),
        "atom_positions": raw.all_atom_positions[crop][is_resolved],
    }


def encode_templates(
    templates: Templates, *, chosen: np.ndarray, crop: slice
) -> dict[str, np.ndarray]:
    """Return the wire features of the chosen templates, unpadded.

    Args:
        templates: of the whole chain.
        chosen: int64 [n], indices into `templates`.
        crop: residues to encode. The residue before the crop is added, because the torsion angles
            omega and phi of the first residue depend on it.

    Returns:
        num_templates, and template_* of loader.wire_format [n, length of the crop + 1, ...]. The
        first residue is empty if the crop starts at the first residue of the chain.
    """
    num_columns = crop.stop - crop.start + 1
    first = max(crop.start - 1, 0)
    context = templates.take(chosen, slice(first, crop.stop))
    is_resolved = context.all_atom_mask > 0
    # If there is no residue before the crop, column 0 stays empty.
    target = slice(num_columns - (crop.stop - first), None)
    aatype = np.zeros((len(chosen), num_columns), np.uint8)
    flags = np.zeros((len(chosen), num_columns, ATOM_BYTES), np.uint8)
    aatype[:, target] = context.aatype
    flags[:, target] = pack_bits(is_resolved)
    return {
        "num_templates": np.array(len(chosen)),
        "template_aatype": aatype,
        "template_atom_flags": flags,
        "template_atom_positions": context.all_atom_positions[is_resolved],
    }
