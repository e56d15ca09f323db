"""Measure a forward pass of OpenFold (aqlaboratory/openfold) for `perf predict`.

    PYTHONPATH=CHECKOUT:PROJECT python -m benchmark.perf.subprocesses.openfold_forward SETTINGS

The interpreter of `perf predict --openfold-python` runs this module with the checkout that
--openfold names. It copies nothing from OpenFold, and of this project it imports only the
measurement. SETTINGS is the JSON of ForwardSettings; its variant is "4", "tuned" or
"unchunked". The model and its configuration are those of OpenFold's own inference, except the
number of blocks and the chunks.
"""

import importlib.machinery
import importlib.util
import logging
import sys
import types
import warnings

import torch
from torch import Tensor

from benchmark.perf.subprocesses.forward_measurement import (
    Features,
    ForwardSettings,
    Model,
    main,
)

PRESET = "model_1"
"""OpenFold's configuration for a model with templates and without a TM-score head."""
CHUNK_SIZES = {"4": 4, "tuned": 4, "unchunked": None}
SOFTMAX_EXTENSION = "attn_core_inplace_cuda"
OUTPUT_PACKAGES = (
    "modelcif",
    *(
        f"modelcif.{name}"
        for name in ("model", "dumper", "reference", "protocol", "alignment", "qa_metric")
    ),
)
"""Modules that OpenFold imports only to write files."""
TREE_PACKAGE = "tree"
"""dm-tree, which OpenFold imports for multimers only."""


def provide_modules() -> None:
    """Replace modules that are not installed and that a forward pass does not need.

    The softmax extension, which OpenFold compiles for GPUs, is replaced by PyTorch's softmax, also
    in place.
    """
    for name in (*OUTPUT_PACKAGES, TREE_PACKAGE):
        if not _is_installed(name):
            _add_module(name)
    if not _is_installed(SOFTMAX_EXTENSION):
        _add_module(SOFTMAX_EXTENSION).forward_ = softmax_in_place


def softmax_in_place(logits: Tensor, num_rows: int, num_columns: int) -> None:
    """Replace logits by their softmax over the last dim, which has num_columns elements."""
    torch.softmax(logits, dim=-1, out=logits)


def build(settings: ForwardSettings) -> Model:
    """Build OpenFold's model with the weights and chunks of the settings."""
    provide_modules()
    warnings.simplefilter("ignore")
    logging.disable()
    from openfold.config import model_config
    from openfold.model.model import AlphaFold

    config = model_config(PRESET, low_prec=settings.precision == "bf16")
    stacks = (
        config.model.evoformer_stack,
        config.model.extra_msa.extra_msa_stack,
        config.model.template.template_pair_stack,
    )
    stacks[0].no_blocks, stacks[1].no_blocks = settings.blocks, settings.extra_blocks
    config.globals.chunk_size = CHUNK_SIZES[settings.variant]
    for stack in stacks:
        stack.tune_chunk_size = settings.variant == "tuned"
    model = AlphaFold(config).eval()
    model.load_state_dict(torch.load(settings.weights, weights_only=True))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.precision]
    model = model.to(settings.device, dtype)

    def run(batch: Features) -> dict[str, Tensor]:
        outputs = model(dict(batch))
        return {
            "positions": outputs["final_atom_positions"],
            "plddt": outputs["plddt"],
            "pair": outputs["pair"],
            "distogram": outputs["distogram_logits"],
        }

    return Model(run=run, prepare=lambda features: with_passes(features, settings.device))


def with_passes(features: Features, device: str) -> Features:
    """Return the features on the device with a last dim for the only pass."""
    return {name: value.to(device).unsqueeze(-1) for name, value in features.items()}


def _is_installed(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _add_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = module
    return module


if __name__ == "__main__":
    main(build)
