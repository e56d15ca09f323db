"""The table of wire features: what travels from the worker that makes a sample to the process that uses it.

A model feature is 49 floats per MSA position where the loader knows a token, two flags and a few counts. On the wire are these alone,
as small integers; `loader.expand` makes the features of openfold_opt.protein.features from them on the device.

Two kinds of arrays:

    fixed     one value per place, padded with zeros to the sizes of the batch: one sample [...], a batch [batch, ...]
    packed    values of those places only that a flag of a fixed array marks, in the order of the places (pass, row, residue, ...),
              end to end for all passes and samples: [number of flags that are set, ...]

Per-pass arrays have a dim of passes behind that of the batch. Packed integers have the smallest type that holds the largest of them,
of uint8, int16, int32 and int64: deletions reach several hundred, counts of a cluster tens of thousands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CLASS_BITS = 0b0001_1111
"""Of a byte of `msa` or `extra_msa`: the class, 0..22."""
IS_CHOSEN = 0b0010_0000
"""The position was chosen for masked-MSA prediction; its replacement is in `masked_classes`."""
HAS_DELETION = 0b0100_0000
"""Residues were deleted before this one; their number is in `deletions` or `extra_deletions`."""
CLUSTER_HAS_DELETION = 0b1000_0000
"""Some row of the cluster has deletions here; their total is in `cluster_deletions`."""
ATOM_BYTES = 5
"""Bytes with a bit for each of 37 atoms, bit i % 8 of byte i // 8."""
PACKED_INTEGERS = tuple(np.dtype(kind) for kind in ("uint8", "int16", "int32", "int64"))


@dataclass(frozen=True, kw_only=True)
class WireSpec:
    """One wire feature: symbolic shape without the dims of batch and passes, and its possible dtypes."""

    name: str
    shape: tuple[str | int, ...]
    """Of a packed feature without the dim of its values."""
    dtypes: tuple[np.dtype, ...]
    per_pass: bool
    is_packed: bool
    description: str


_BYTE, _COUNT, _FLOAT = (np.dtype(np.uint8),), (np.dtype(np.int32),), (np.dtype(np.float32),)

# Columns: name, shape, dtypes, per pass, description.
_FIXED = (
    ("aatype", ("N_res",), _BYTE, False, "residue type, 0..20"),
    ("crop_start", (), _COUNT, False, "first residue of the crop, counted in the chain from 0"),
    ("seq_length", (), _COUNT, False, "residues that exist, after cropping"),
    ("resolution", (), _FLOAT, False, "angstrom, NaN where there is none"),
    ("use_clamped_fape", (), _BYTE, False, "0 or 1"),
    ("atom_flags", ("N_res", ATOM_BYTES), _BYTE, False, "a bit for each atom37 that is resolved"),
    ("num_templates", (), _COUNT, False, "templates that exist"),
    (
        "template_aatype",
        ("N_templ", "N_res + 1"),
        _BYTE,
        False,
        "0..21; first the residue before the crop, for its torsions",
    ),
    (
        "template_atom_flags",
        ("N_templ", "N_res + 1", ATOM_BYTES),
        _BYTE,
        False,
        "likewise a bit for each resolved atom37",
    ),
    ("num_clusters", (), _COUNT, False, "rows of the clustered MSA that exist"),
    ("num_extra", (), _COUNT, False, "rows of the extra MSA that exist"),
    ("msa", ("N_clust", "N_res"), _BYTE, True, "class before masking, and three flags"),
    ("cluster_size", ("N_clust",), _COUNT, True, "rows of the cluster, its center included"),
    (
        "profile_flags",
        ("N_clust", "N_res", 3),
        _BYTE,
        True,
        "a bit for each class that occurs in the cluster beside its center",
    ),
    ("extra_msa", ("N_extra", "N_res"), _BYTE, True, "class and a flag"),
)
_PACKED = (
    ("atom_positions", (3,), _FLOAT, False, "angstrom, of the atoms in atom_flags"),
    (
        "template_atom_positions",
        (3,),
        _FLOAT,
        False,
        "angstrom, of the atoms in template_atom_flags",
    ),
    (
        "masked_classes",
        (),
        _BYTE,
        True,
        "class 0..22 after masking, of the positions that were chosen",
    ),
    (
        "deletions",
        (),
        PACKED_INTEGERS,
        True,
        "number of residues deleted, of flagged positions of msa",
    ),
    (
        "cluster_deletions",
        (),
        PACKED_INTEGERS,
        True,
        "their total over the rows of the cluster, of flagged positions of msa",
    ),
    (
        "profile_counts",
        (),
        PACKED_INTEGERS,
        True,
        "how often each class in profile_flags occurs, the center not counted",
    ),
    (
        "extra_deletions",
        (),
        PACKED_INTEGERS,
        True,
        "number of residues deleted, of flagged positions of extra_msa",
    ),
)


def _table() -> dict[str, WireSpec]:
    rows = [(row, False) for row in _FIXED] + [(row, True) for row in _PACKED]
    return {
        name: WireSpec(
            name=name,
            shape=shape,
            dtypes=dtypes,
            per_pass=per_pass,
            is_packed=is_packed,
            description=text,
        )
        for (name, shape, dtypes, per_pass, text), is_packed in rows
    }


WIRE_FEATURES: dict[str, WireSpec] = _table()
"""All wire features by name."""


def smallest_integers(values: np.ndarray) -> np.ndarray:
    """Integers of 0 or more as the smallest type for packed integers that holds them."""
    largest = int(values.max(initial=0))
    return values.astype(next(dtype for dtype in PACKED_INTEGERS if np.iinfo(dtype).max >= largest))


def pack_bits(flags: np.ndarray) -> np.ndarray:
    """bool [..., n] to uint8 [..., ceil(n / 8)]: flag i is bit i % 8 of byte i // 8."""
    return np.packbits(flags, axis=-1, bitorder="little")


def pad_wire(
    features: Mapping[str, np.ndarray], *, sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Pads the fixed features of one sample to N_res, N_clust, N_extra and N_templ; packed ones stay.

    Raises:
        ValueError: a feature is larger than the size to pad to.
    """
    sizes = {**sizes, "N_res + 1": sizes["N_res"] + 1}
    return {name: _pad(WIRE_FEATURES[name], array, sizes) for name, array in features.items()}


def _pad(spec: WireSpec, array: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    if spec.is_packed:
        return array
    target = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
    target = array.shape[:1] + target if spec.per_pass else target
    if len(target) != array.ndim or any(have > want for have, want in zip(array.shape, target)):
        raise ValueError(
            f"wire feature {spec.name}: found shape {list(array.shape)}, expected at most {list(target)} to pad to"
        )
    if array.shape == target:
        return array.astype(spec.dtypes[0], copy=False)
    padded = np.zeros(target, spec.dtypes[0])
    padded[tuple(map(slice, array.shape))] = array
    return padded


def stack_samples(samples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """A batch of wire features: fixed ones get the batch dim in front, packed ones lie end to end."""
    if len(samples) == 1:
        return {
            name: array if WIRE_FEATURES[name].is_packed else array[None]
            for name, array in samples[0].items()
        }
    return {
        name: (np.concatenate if spec.is_packed else np.stack)([sample[name] for sample in samples])
        for name, spec in WIRE_FEATURES.items()
    }


def check_wire(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Checks names, dtypes and shapes of a batch of wire features against the table.

    Returns:
        the sizes N_res, N_clust, N_extra, N_templ, num_passes and batch.

    Raises:
        ValueError: a feature is missing, unknown, or of another dtype or shape; the message names it.
    """
    if set(arrays) != set(WIRE_FEATURES):
        missing, unknown = set(WIRE_FEATURES) - set(arrays), set(arrays) - set(WIRE_FEATURES)
        raise ValueError(
            f"wire features do not match the table of openfold_opt.loader.wire_format: missing {sorted(missing) or 'none'}, "
            f"unknown {sorted(unknown) or 'none'}; give what stack_samples returns"
        )
    sizes: dict[str, int] = {}
    for name, spec in WIRE_FEATURES.items():
        array = arrays[name]
        if array.dtype not in spec.dtypes:
            raise ValueError(
                f"wire feature {name}: found dtype {array.dtype}, expected one of {[str(kind) for kind in spec.dtypes]}"
            )
        leading = () if spec.is_packed else ("batch", "num_passes") if spec.per_pass else ("batch",)
        dims = (("values",) if spec.is_packed else leading) + spec.shape
        _check_shape(name, array.shape, dims, sizes)
    return sizes


def _check_shape(
    name: str, found: tuple[int, ...], dims: tuple[str | int, ...], sizes: dict[str, int]
) -> None:
    for dim, size in zip(dims, found):
        if isinstance(dim, str) and dim != "values":
            sizes.setdefault(dim, sizes["N_res"] + 1 if dim == "N_res + 1" else size)
    expected = [size if dim == "values" else sizes.get(dim, dim) for dim, size in zip(dims, found)]
    if len(found) != len(dims) or list(found) != expected:
        raise ValueError(
            f"wire feature {name}: found shape {list(found)}, expected {list(dims)} with sizes {sizes}"
        )
