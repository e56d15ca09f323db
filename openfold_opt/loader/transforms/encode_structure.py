"""Structures and templates on the wire: residue types, a bit for each atom, and the positions of the atoms that are resolved."""

import numpy as np

from openfold_opt.loader.raw_features import RawFeatures, Templates
from openfold_opt.loader.wire_format import ATOM_BYTES, pack_bits


def encode_structure(raw: RawFeatures, *, crop: slice) -> dict[str, np.ndarray]:
    """The wire features of the target's residues in the crop, unpadded; see loader.wire_format."""
    is_resolved = raw.all_atom_mask[crop] > 0
    return {
        "aatype": raw.aatype[crop],
        "atom_flags": pack_bits(is_resolved),
        "atom_positions": raw.all_atom_positions[crop][is_resolved],
    }


def encode_templates(
    templates: Templates, *, chosen: np.ndarray, crop: slice
) -> dict[str, np.ndarray]:
    """The wire features of the chosen templates, unpadded.

    Args:
        templates: of the whole chain.
        chosen: int64 [n], places in `templates`.
        crop: residues wanted; omega and phi reach back to the residue before it, which goes along.

    Returns:
        num_templates, and template_* of loader.wire_format [n, length of the crop + 1, ...]; the first residue is empty where the
        chain begins with the crop.
    """
    num_columns = crop.stop - crop.start + 1
    first = max(crop.start - 1, 0)
    context = templates.take(chosen, slice(first, crop.stop))
    is_resolved = context.all_atom_mask > 0
    place = slice(num_columns - (crop.stop - first), None)
    aatype = np.zeros((len(chosen), num_columns), np.uint8)
    flags = np.zeros((len(chosen), num_columns, ATOM_BYTES), np.uint8)
    aatype[:, place] = context.aatype
    flags[:, place] = pack_bits(is_resolved)
    return {
        "num_templates": np.array(len(chosen)),
        "template_aatype": aatype,
        "template_atom_flags": flags,
        "template_atom_positions": context.all_atom_positions[is_resolved],
    }
