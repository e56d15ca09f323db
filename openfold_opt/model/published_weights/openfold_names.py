"""Parameter names of OpenFold's checkpoints, and of our model, which has those of MLCommons.

OpenFold changed names with its second version. Both versions are read, and the current names are
written. The tensors are the same in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from openfold_opt.model.weights import WeightsError

# Our pattern -> the current name of OpenFold.
_CURRENT = (
    (r"^evoformer_stack\.(blocks\.\d+)\.msa_att_col\.", r"evoformer.\1.msa_att_col._msa_att."),
    (r"^evoformer_stack\.", "evoformer."),
    (r"\.core\.(msa_transition|outer_product_mean)\.", r".\1."),
    (r"\.core\.", ".pair_stack."),
    (r"^auxiliary_heads\.", "aux_heads."),
    (r"^structure_module\.transition\.linear_", "structure_module.transition.layers.0.linear_"),
    (r"^structure_module\.ipa\.(linear_k?[qv]_points)\.", r"structure_module.ipa.\1.linear."),
    (r"^template_angle_embedder\.", "template_embedder.template_single_embedder."),
    (r"^template_pointwise_attention\.", "template_embedder.template_pointwise_att."),
    (r"^(template_pair_(?:embedder|stack))\.", r"template_embedder.\1."),
)
# A name of the first version -> the current name.
_FIRST_VERSION = (
    (r"\.core\.(msa_transition|outer_product_mean)\.", r".\1."),
    (r"\.core\.", ".pair_stack."),
    (
        r"^structure_module\.ipa\.(linear_k?[qv]_points)\.(weight|bias)$",
        r"structure_module.ipa.\1.linear.\2",
    ),
    (r"^template_angle_embedder\.", "template_embedder.template_single_embedder."),
    (r"^(template_(?:pointwise_att|pair_embedder|pair_stack))\.", r"template_embedder.\1."),
)


def openfold_name(name: str) -> str:
    """Return the current name in OpenFold of one of our parameters."""
    return _renamed(name, _CURRENT)


def current_names(names: Iterable[str]) -> dict[str, str]:
    """Return the current name of each name of either version of OpenFold.

    Raises WeightsError if two names mean the same parameter.
    """
    current = {name: _renamed(name, _FIRST_VERSION) for name in names}
    seen: dict[str, str] = {}
    for name, new_name in current.items():
        other = seen.setdefault(new_name, name)
        if other != name:
            raise WeightsError(
                f"{other} and {name} are two versions of the name of one parameter; expected each "
                "parameter once"
            )
    return current


def _renamed(name: str, patterns: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in patterns:
        name = re.sub(pattern, replacement, name)
    return name
