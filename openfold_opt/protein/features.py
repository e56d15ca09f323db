"""The table of model features: the names, shapes, dtypes and units of the arrays of a sample.

The loader builds these arrays, the model's `FeatureBatch` holds them, and the model and the losses
read them. A batch contains no other arrays. The names are those of the benchmark. Shapes are
symbolic and exclude the leading dims:

    one sample   shared feature [...]               per-pass feature [num_passes, ...]
    a batch      shared feature [batch, ...]        per-pass feature [batch, num_passes, ...]

A *per-pass* feature has one slice for each recycling iteration and one for the last pass, because
MSA sampling, masking and clustering are random and repeated for each pass. All passes share the
structure, the templates, the crop and the random choice whether the backbone FAPE is clamped.

    N_res    residues of the crop (training) or of the whole chain (evaluation)
    N_clust  rows of the clustered MSA
    N_extra  rows of the extra MSA
    N_templ  templates

Every feature is padded with zeros; the masks are 0 there. Residue classes: 0..19 as in
`residue_constants.restypes`, 20 unknown, 21 gap, 22 masked (MSA only). The deletion value of n
deleted residues is 2/pi atan(n / 3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

FLOAT = np.dtype(np.float32)
INTEGER = np.dtype(np.int64)


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """The symbolic shape (without batch and pass dims), dtype, unit and meaning of a feature."""

    name: str
    shape: tuple[str | int, ...]
    dtype: np.dtype
    unit: str
    pad_value: float
    per_pass: bool
    description: str

    def leading_dims(self, *, batched: bool) -> tuple[str, ...]:
        """Return the names of the dims before `shape`: batch if batched, num_passes if per pass."""
        return (("batch",) if batched else ()) + (("num_passes",) if self.per_pass else ())


# Columns: name, shape, dtype, unit, description.
_SHARED = (
    ("aatype", ("N_res",), INTEGER, "class 0..20", "residue type"),
    (
        "residue_index",
        ("N_res",),
        INTEGER,
        "position",
        "position in the chain, 0-based, before cropping",
    ),
    (
        "seq_length",
        (),
        INTEGER,
        "residues",
        "number of residues after cropping and before padding",
    ),
    ("seq_mask", ("N_res",), FLOAT, "0 or 1", "residue exists (is not padding)"),
    (
        "target_feat",
        ("N_res", 22),
        FLOAT,
        "one-hot",
        "a domain-break flag (always 0 for chains), then one-hot aatype",
    ),
    ("resolution", (), FLOAT, "angstrom", "resolution of the experiment; NaN if it has none"),
    (
        "use_clamped_fape",
        (),
        FLOAT,
        "0 or 1",
        "backbone FAPE of this sample is clamped; 0 in evaluation",
    ),
    (
        "all_atom_positions",
        ("N_res", 37, 3),
        FLOAT,
        "angstrom",
        "ground truth, atom37, not centered; 0 where unresolved",
    ),
    ("all_atom_mask", ("N_res", 37), FLOAT, "0 or 1", "atom is resolved in the experiment"),
    ("atom37_atom_exists", ("N_res", 37), FLOAT, "0 or 1", "atom belongs to the residue type"),
    (
        "atom14_atom_exists",
        ("N_res", 14),
        FLOAT,
        "0 or 1",
        "atom14 slot is used by the residue type",
    ),
    (
        "residx_atom14_to_atom37",
        ("N_res", 14),
        INTEGER,
        "index 0..36",
        "atom37 slot of each atom14 slot",
    ),
    (
        "residx_atom37_to_atom14",
        ("N_res", 37),
        INTEGER,
        "index 0..13",
        "atom14 slot of each atom37 slot",
    ),
    ("atom14_gt_positions", ("N_res", 14, 3), FLOAT, "angstrom", "ground truth, atom14"),
    ("atom14_gt_exists", ("N_res", 14), FLOAT, "0 or 1", "atom14 atom is resolved"),
    (
        "atom14_alt_gt_positions",
        ("N_res", 14, 3),
        FLOAT,
        "angstrom",
        "ground truth with ambiguous atoms renamed",
    ),
    ("atom14_alt_gt_exists", ("N_res", 14), FLOAT, "0 or 1", "mask of atom14_alt_gt_positions"),
    (
        "atom14_atom_is_ambiguous",
        ("N_res", 14),
        FLOAT,
        "0 or 1",
        "atom name is ambiguous: it can be exchanged with that of another atom",
    ),
    (
        "rigidgroups_gt_frames",
        ("N_res", 8, 4, 4),
        FLOAT,
        "angstrom",
        "frames of the eight rigid groups, as homogeneous matrices",
    ),
    (
        "rigidgroups_alt_gt_frames",
        ("N_res", 8, 4, 4),
        FLOAT,
        "angstrom",
        "rigidgroups_gt_frames with ambiguous atoms renamed",
    ),
    (
        "rigidgroups_gt_exists",
        ("N_res", 8),
        FLOAT,
        "0 or 1",
        "all atoms that define the group are resolved",
    ),
    ("backbone_rigid_tensor", ("N_res", 4, 4), FLOAT, "angstrom", "frame of group 0"),
    ("backbone_rigid_mask", ("N_res",), FLOAT, "0 or 1", "group 0 exists"),
    ("pseudo_beta", ("N_res", 3), FLOAT, "angstrom", "CB, or CA of glycine"),
    ("pseudo_beta_mask", ("N_res",), FLOAT, "0 or 1", "pseudo beta is resolved"),
    ("chi_angles_sin_cos", ("N_res", 4, 2), FLOAT, "sin, cos", "side-chain torsions chi1..chi4"),
    (
        "chi_mask",
        ("N_res", 4),
        FLOAT,
        "0 or 1",
        "torsion is defined and its four atoms are resolved",
    ),
    ("template_mask", ("N_templ",), FLOAT, "0 or 1", "template exists"),
    (
        "template_aatype",
        ("N_templ", "N_res"),
        INTEGER,
        "class 0..21",
        "template residue aligned to each query residue; 21 if none",
    ),
    (
        "template_all_atom_positions",
        ("N_templ", "N_res", 37, 3),
        FLOAT,
        "angstrom",
        "relative to the mean of all resolved atoms of the template chain",
    ),
    (
        "template_all_atom_mask",
        ("N_templ", "N_res", 37),
        FLOAT,
        "0 or 1",
        "template atom is resolved",
    ),
    ("template_pseudo_beta", ("N_templ", "N_res", 3), FLOAT, "angstrom", "CB, or CA of glycine"),
    (
        "template_pseudo_beta_mask",
        ("N_templ", "N_res"),
        FLOAT,
        "0 or 1",
        "template's pseudo beta is resolved",
    ),
    (
        "template_torsion_angles_sin_cos",
        ("N_templ", "N_res", 7, 2),
        FLOAT,
        "sin, cos",
        "omega, phi, psi, chi1..chi4",
    ),
    (
        "template_alt_torsion_angles_sin_cos",
        ("N_templ", "N_res", 7, 2),
        FLOAT,
        "sin, cos",
        "the same angles with pi-periodic chi angles rotated by pi",
    ),
    (
        "template_torsion_angles_mask",
        ("N_templ", "N_res", 7),
        FLOAT,
        "0 or 1",
        "torsion is defined and resolved",
    ),
)

_PER_PASS = (
    (
        "msa_feat",
        ("N_clust", "N_res", 49),
        FLOAT,
        "dimensionless",
        "one-hot masked MSA (23), has deletion, deletion value, cluster profile (23), "
        "mean deletion value of the cluster",
    ),
    ("msa_mask", ("N_clust", "N_res"), FLOAT, "0 or 1", "row and residue exist"),
    ("msa_row_mask", ("N_clust",), FLOAT, "0 or 1", "row exists"),
    ("true_msa", ("N_clust", "N_res"), INTEGER, "class 0..21", "clustered MSA before masking"),
    (
        "bert_mask",
        ("N_clust", "N_res"),
        FLOAT,
        "0 or 1",
        "position was selected for masked-MSA prediction",
    ),
    ("extra_msa", ("N_extra", "N_res"), INTEGER, "class 0..21", "extra MSA"),
    ("extra_msa_mask", ("N_extra", "N_res"), FLOAT, "0 or 1", "row and residue exist"),
    (
        "extra_has_deletion",
        ("N_extra", "N_res"),
        FLOAT,
        "0 or 1",
        "residues were deleted before this one",
    ),
    ("extra_deletion_value", ("N_extra", "N_res"), FLOAT, "dimensionless", "deletion value"),
)


def _table() -> dict[str, FeatureSpec]:
    rows = [(row, False) for row in _SHARED] + [(row, True) for row in _PER_PASS]
    return {
        name: FeatureSpec(
            name=name,
            shape=shape,
            dtype=dtype,
            unit=unit,
            pad_value=0,
            per_pass=per_pass,
            description=text,
        )
        for (name, shape, dtype, unit, text), per_pass in rows
    }


FEATURES: dict[str, FeatureSpec] = _table()
"""All model features by name, in the order of the fields of a batch."""


class Array(Protocol):
    """A NumPy array or a torch tensor."""

    @property
    def shape(self) -> Sequence[int]: ...
    @property
    def dtype(self) -> object: ...


def check_features(features: Mapping[str, Array], *, batched: bool) -> dict[str, int]:
    """Check the names, dtypes and shapes of all model features against the table.

    A symbolic dim must have the same size in all features.

    Args:
        features: name -> numpy array or torch tensor (anything with `.shape` and `.dtype`).
        batched: whether the arrays have a leading batch dim.

    Returns:
        The size of each symbolic dim: N_res, N_clust, N_extra, N_templ, num_passes and, if batched,
        batch.

    Raises:
        ValueError: A feature is missing or unknown, or has an unexpected shape or dtype. The
            message gives the feature, what was found and what was expected.
    """
    missing = [name for name in FEATURES if name not in features]
    unknown = [name for name in features if name not in FEATURES]
    if missing or unknown:
        raise ValueError(
            "features do not match the table of openfold_opt.protein.features: "
            f"missing {missing or 'none'}, unknown {unknown or 'none'}; "
            f"pass exactly the {len(FEATURES)} features of FEATURES"
        )
    sizes: dict[str, int] = {}
    first_seen: dict[str, str] = {}
    for name, spec in FEATURES.items():
        _check_dtype(spec, features[name])
        _check_shape(
            spec, tuple(features[name].shape), batched=batched, sizes=sizes, first_seen=first_seen
        )
    return sizes


def _check_dtype(spec: FeatureSpec, array: Array) -> None:
    # str() of a torch dtype is "torch.float32". Comparing names avoids an import of torch.
    found = str(array.dtype).removeprefix("torch.")
    if found != spec.dtype.name:
        raise ValueError(
            f"feature {spec.name}: found dtype {found}, expected {spec.dtype.name}; "
            "convert it before batching"
        )


def _check_shape(
    spec: FeatureSpec,
    found: tuple[int, ...],
    *,
    batched: bool,
    sizes: dict[str, int],
    first_seen: dict[str, str],
) -> None:
    dims = spec.leading_dims(batched=batched) + spec.shape
    expected = (
        "[" + ", ".join(f"{dim}={sizes[dim]}" if dim in sizes else str(dim) for dim in dims) + "]"
    )
    if len(found) != len(dims):
        raise ValueError(
            f"feature {spec.name}: found shape {list(found)}, expected {expected}: "
            f"{len(dims)} dims, not {len(found)}"
        )
    for dim, size in zip(dims, found):
        if isinstance(dim, str) and dim not in sizes:
            sizes[dim], first_seen[dim] = size, spec.name
        expected_size = sizes[dim] if isinstance(dim, str) else dim
        if size != expected_size:
            source = (
                f" ({dim} is {expected_size} in feature {first_seen[dim]})"
                if isinstance(dim, str)
                else ""
            )
            raise ValueError(
                f"feature {spec.name}: found shape {list(found)}, expected {expected}{source}"
            )
