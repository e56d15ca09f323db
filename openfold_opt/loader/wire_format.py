"""The wire format: the features that workers send to the process that trains or evaluates.

The model features of the clustered MSA are 49 floats per position, but they follow from a token,
two flags and a few counts. The wire format contains only these, as small integers. `loader.decode`
computes the features of openfold_opt.protein.features from them on the device.

There are two kinds of arrays:

    fixed     one value per position, padded with zeros to the sizes of the batch: [...] in a
              sample, [batch, ...] in a batch
    packed    values only for the positions that a flag of a fixed array marks, in row-major order
              (pass, row, residue, ...), concatenated over all passes and samples:
              [number of set flags, ...]

Per-pass arrays have a pass dim after the batch dim. Packed integers have the smallest type of
uint8, int16, int32 and int64 that holds all values: deletions reach several hundred, cluster counts
tens of thousands.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CLASS_BITS = 0b0001_1111
"""Bits of a byte of `msa` or `extra_msa` that hold the class, 0..22."""
IS_CHOSEN = 0b0010_0000
"""Flag: the position was chosen for masking; its replacement is in `masked_classes`."""
HAS_DELETION = 0b0100_0000
"""Flag: residues were deleted before this one; `deletions` or `extra_deletions` has the count."""
CLUSTER_HAS_DELETION = 0b1000_0000
"""Flag: a row of the cluster has deletions here; `cluster_deletions` has the total."""
ATOM_BYTES = 5
"""Bytes that hold one bit for each of 37 atoms: atom i is bit i % 8 of byte i // 8."""
PACKED_INTEGERS = tuple(np.dtype(kind) for kind in ("uint8", "int16", "int32", "int64"))


@dataclass(frozen=True, kw_only=True)
class WireSpec:
    """One wire feature: its possible dtypes, and its symbolic shape without batch and pass dims."""

    name: str
    shape: tuple[str | int, ...]
    """For a packed feature, also without the dim of values."""
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
        "0..21; starts with the residue before the crop, for torsion angles",
    ),
    (
        "template_atom_flags",
        ("N_templ", "N_res + 1", ATOM_BYTES),
        _BYTE,
        False,
        "a bit for each atom37 that is resolved",
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
        "a bit for each class that occurs in the cluster, center not counted",
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
        "class 0..22 after masking, of the chosen positions",
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
        "total over the rows of the cluster, of flagged positions of msa",
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
    """Convert nonnegative integers to the smallest type of PACKED_INTEGERS that holds them."""
    largest = int(values.max(initial=0))
    return values.astype(next(dtype for dtype in PACKED_INTEGERS if np.iinfo(dtype).max >= largest))


def pack_bits(flags: np.ndarray) -> np.ndarray:
    """Pack bool [..., n] into uint8 [..., ceil(n / 8)]: flag i is bit i % 8 of byte i // 8."""
    return np.packbits(flags, axis=-1, bitorder="little")


def pad_wire(
    features: Mapping[str, np.ndarray], *, sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Pad the fixed features of one sample to N_res, N_clust, N_extra and N_templ.

    Packed features are returned unchanged.

    Raises:
        ValueError: a feature is larger than its target size.
    """
    sizes = {**sizes, "N_res + 1": sizes["N_res"] + 1}
    return {name: _pad(WIRE_FEATURES[name], array, sizes) for name, array in features.items()}


def _pad(spec: WireSpec, array: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    if spec.is_packed:
        return array
    target = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
    target = array.shape[:1] + target if spec.per_pass else target
    if len(target) != array.ndim or any(size > limit for size, limit in zip(array.shape, target)):
        raise ValueError(
            f"wire feature {spec.name}: found shape {list(array.shape)}, "
            f"expected at most {list(target)} to pad to"
        )
    if array.shape == target:
        return array.astype(spec.dtypes[0], copy=False)
    padded = np.zeros(target, spec.dtypes[0])
    padded[tuple(map(slice, array.shape))] = array
    return padded


def stack_samples(samples: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Combine samples into a batch: fixed features are stacked, packed ones concatenated."""
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
    """Check the names, dtypes and shapes of a batch of wire features against the table.

    Returns:
        the sizes of all symbolic dims, and of num_passes and batch.

    Raises:
        ValueError: a feature is missing, unknown, or has another dtype or shape; the message
            names it.
    """
    if set(arrays) != set(WIRE_FEATURES):
        missing, unknown = set(WIRE_FEATURES) - set(arrays), set(arrays) - set(WIRE_FEATURES)
        raise ValueError(
            "wire features do not match the table of openfold_opt.loader.wire_format: "
            f"missing {sorted(missing) or 'none'}, unknown {sorted(unknown) or 'none'}; "
            "pass the result of stack_samples"
        )
    sizes: dict[str, int] = {}
    for name, spec in WIRE_FEATURES.items():
        array = arrays[name]
        if array.dtype not in spec.dtypes:
            raise ValueError(
                f"wire feature {name}: found dtype {array.dtype}, "
                f"expected one of {[str(kind) for kind in spec.dtypes]}"
            )
        leading = () if spec.is_packed else ("batch", "num_passes") if spec.per_pass else ("batch",)
        dims = (("values",) if spec.is_packed else leading) + spec.shape
        _check_shape(name, array.shape, dims, sizes)
    return sizes


def _check_shape(
    name: str, found: tuple[int, ...], dims: tuple[str | int, ...], sizes: dict[str, int]
) -> None:
    """Compare a shape with the dims and the sizes found so far, and add new sizes to `sizes`."""
    for dim, size in zip(dims, found):
        if isinstance(dim, str) and dim != "values":
            # The first feature with a symbolic dim defines its size.
            sizes.setdefault(dim, sizes["N_res"] + 1 if dim == "N_res + 1" else size)
    expected = [size if dim == "values" else sizes.get(dim, dim) for dim, size in zip(dims, found)]
    if len(found) != len(dims) or list(found) != expected:
        raise ValueError(
            f"wire feature {name}: found shape {list(found)}, "
            f"expected {list(dims)} with sizes {sizes}"
        )
