"""Decoding of wire features to model features, on the device that uses them.

On a CPU the result is bit-identical to loader.reference.reference_sample; on other devices it
differs by rounding. Decoding never synchronizes with the device: all sizes follow from shapes.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from openfold_opt.loader import wire_format
from openfold_opt.loader.transforms.msa_features import (
    NUM_MSA_CLASSES,
    NUM_RESIDUE_CLASSES,
    deletion_value,
)
from openfold_opt.loader.transforms.structure_features import structure_features
from openfold_opt.loader.transforms.template_features import template_features
from openfold_opt.loader.wire_buffer import pack_wire, unpack_wire
from openfold_opt.protein.features import FEATURES
from openfold_opt.protein.residue_constants import atom_types


def decode_batch(
    arrays: Mapping[str, np.ndarray], *, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """Return all features of openfold_opt.protein.features for a batch of wire features.

    Args:
        arrays: the result of wire_format.stack_samples.
        device: device of the features. The wire features are copied to it as one buffer.

    Returns:
        name -> tensor on the device; shared features [batch, ...], per-pass features
        [batch, num_passes, ...].

    Raises:
        ValueError: the arrays do not match the table of wire features.
    """
    wire_format.check_wire(arrays)
    device = torch.device(device)
    if device.type == "cpu":
        # The tensors are views of the arrays, or copies of read-only arrays.
        return decode_wire(
            {
                name: torch.from_numpy(np.require(array, requirements="W"))
                for name, array in arrays.items()
            }
        )
    buffer, layout = pack_wire(arrays, pin_memory=True)
    return decode_wire(unpack_wire(buffer.to(device, non_blocking=True), layout))


def decode_wire(wire: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Decode wire features that are already on the device and match the table."""
    features = (
        _residue_features(wire)
        | _template_features(wire)
        | _clustered_features(wire)
        | _extra_features(wire)
    )
    return {name: features[name] for name in FEATURES}


def _residue_features(wire: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the features of the target."""
    aatype = wire["aatype"].long()
    index = torch.arange(aatype.shape[1], device=aatype.device)
    exists = index < wire["seq_length"][:, None]
    mask = _unpack_bits(wire["atom_flags"], len(atom_types))
    positions = _scatter_values(mask, wire["atom_positions"])
    one_hot = torch.nn.functional.one_hot(aatype, NUM_RESIDUE_CLASSES).float()
    features = structure_features(aatype, positions, mask.float()) | {
        "residue_index": index + wire["crop_start"][:, None],
        "seq_mask": exists.float(),
        # Channel 0 is the domain-break flag, always 0.
        "target_feat": torch.nn.functional.pad(one_hot, (1, 0)),
    }
    return {name: _zero_padding(tensor, exists) for name, tensor in features.items()} | {
        "seq_length": wire["seq_length"].long(),
        "resolution": wire["resolution"],
        "use_clamped_fape": wire["use_clamped_fape"].float(),
    }


def _template_features(wire: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the features of the templates.

    The residue before the crop is needed for torsion angles and dropped afterwards.
    """
    aatype = wire["template_aatype"].long()
    mask = _unpack_bits(wire["template_atom_flags"], len(atom_types))
    positions = _scatter_values(mask, wire["template_atom_positions"])
    template_exists = (
        torch.arange(aatype.shape[1], device=aatype.device) < wire["num_templates"][:, None]
    )
    residue_exists = (
        torch.arange(aatype.shape[2] - 1, device=aatype.device) < wire["seq_length"][:, None]
    )
    exists = template_exists[:, :, None] & residue_exists[:, None, :]
    features = template_features(aatype, positions, mask.float())
    return {name: _zero_padding(tensor[:, :, 1:], exists) for name, tensor in features.items()} | {
        "template_mask": template_exists.float()
    }


def _clustered_features(wire: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the features of the clustered MSA."""
    tokens = wire["msa"]
    row_exists, exists = _existence_masks(tokens, wire["num_clusters"], wire["seq_length"])
    true_msa = tokens & wire_format.CLASS_BITS
    is_chosen = (tokens & wire_format.IS_CHOSEN) != 0
    masked = true_msa.masked_scatter(is_chosen, wire["masked_classes"])
    one_hot = torch.nn.functional.one_hot(masked.long(), NUM_MSA_CLASSES).float()
    has_deletion = (tokens & wire_format.HAS_DELETION) != 0
    # The MLCommons reference adds 1e-6. It is added in float64, as in loader.reference.clustering.
    cluster_size = (wire["cluster_size"].double() + 1e-6).float()[..., None]
    # Occurrences of each class among the members of a cluster, without the center.
    member_counts = _scatter_values(
        _unpack_bits(wire["profile_flags"], NUM_MSA_CLASSES), wire["profile_counts"].float()
    )
    cluster_deletions = _scatter_values(
        (tokens & wire_format.CLUSTER_HAS_DELETION) != 0, wire["cluster_deletions"].float()
    )
    parts = [
        one_hot,
        has_deletion.float()[..., None],
        _scatter_values(has_deletion, _deletion_value(wire["deletions"].float()))[..., None],
        (member_counts + one_hot) / cluster_size[..., None],
        _deletion_value(cluster_deletions / cluster_size)[..., None],
    ]
    return {
        "msa_feat": _zero_padding(torch.cat(parts, dim=-1), exists),
        "msa_mask": exists.float(),
        "msa_row_mask": row_exists.float(),
        "true_msa": true_msa.long(),
        "bert_mask": is_chosen.float(),
    }


def _extra_features(wire: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the features of the extra MSA."""
    tokens = wire["extra_msa"]
    _, exists = _existence_masks(tokens, wire["num_extra"], wire["seq_length"])
    has_deletion = (tokens & wire_format.HAS_DELETION) != 0
    return {
        "extra_msa": (tokens & wire_format.CLASS_BITS).long(),
        "extra_msa_mask": exists.float(),
        "extra_has_deletion": has_deletion.float(),
        "extra_deletion_value": _scatter_values(
            has_deletion, _deletion_value(wire["extra_deletions"].float())
        ),
    }


def _existence_masks(tokens: Tensor, num_rows: Tensor, seq_length: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows and positions are not padding.

    Returns:
        bool [batch, num_passes, rows], and bool of the shape of `tokens`.
    """
    _, num_passes, rows, num_res = tokens.shape
    row_exists = torch.arange(rows, device=tokens.device) < num_rows[:, None]
    residue_exists = torch.arange(num_res, device=tokens.device) < seq_length[:, None]
    row_exists = row_exists[:, None].expand(-1, num_passes, -1)
    return row_exists, row_exists[..., None] & residue_exists[:, None, None]


def _unpack_bits(packed: Tensor, count: int) -> Tensor:
    """Unpack uint8 [..., ceil(count / 8)] to bool [..., count]; inverts wire_format.pack_bits."""
    bits = (1 << torch.arange(8, device=packed.device)).to(torch.uint8)
    return ((packed[..., None] & bits) != 0).flatten(-2)[..., :count]


def _scatter_values(flags: Tensor, values: Tensor) -> Tensor:
    """Scatter packed values, in order, to the positions where `flags` is set; zeros elsewhere.

    Args:
        flags: bool [...].
        values: [number of set flags, *value shape].

    Returns:
        [*flags.shape, *value shape].
    """
    mask = flags.reshape(flags.shape + (1,) * (values.ndim - 1)).expand(
        flags.shape + values.shape[1:]
    )
    return values.new_zeros(mask.shape).masked_scatter_(mask, values)


def _zero_padding(tensor: Tensor, exists: Tensor) -> Tensor:
    """Set padding to zero; `exists` is bool and has the leading dims of the tensor."""
    return tensor.masked_fill(~exists.reshape(exists.shape + (1,) * (tensor.ndim - exists.ndim)), 0)


def _deletion_value(counts: Tensor) -> Tensor:
    """Return 2/pi atan(count / 3).

    On the CPU this uses numpy, as the reference path does: its arc tangent differs from torch's by
    rounding in one of three values.
    """
    if counts.device.type == "cpu":
        return torch.from_numpy(deletion_value(counts.numpy()))
    return torch.atan(counts / 3) * (2 / torch.pi)
