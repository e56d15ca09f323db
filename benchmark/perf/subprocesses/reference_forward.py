"""Measure a forward pass of the MLCommons reference for `perf predict`.

    PYTHONPATH=CHECKOUT:PROJECT python -m benchmark.perf.subprocesses.reference_forward SETTINGS

The interpreter of `perf predict --reference-python` runs this module with the checkout of
mlcommons/hpc (folder openfold) that --reference names. It copies nothing from the reference, and of
this project it imports only the measurement. SETTINGS is the JSON of ForwardSettings; there is one
variant, as the reference evaluates without chunks.
"""

import warnings

import torch

from benchmark.perf.subprocesses.forward_measurement import (
    Features,
    ForwardSettings,
    Model,
    main,
)
from benchmark.perf.subprocesses.reference_samples import make_dataclasses_hashable
from benchmark.perf.subprocesses.reference_step import accept_newshape


def build(settings: ForwardSettings) -> Model:
    """Build the reference's model with the weights of the settings."""
    make_dataclasses_hashable()
    accept_newshape()
    warnings.simplefilter("ignore")
    from openfold.config import AlphaFoldConfig
    from openfold.model.alphafold import AlphaFold

    if settings.precision != "fp32":
        raise ValueError(f"the MLCommons reference runs in fp32, not in {settings.precision}")
    config = AlphaFoldConfig.from_preset(stage="initial_training")
    config.evoformer_stack_config.num_blocks = settings.blocks
    config.extra_msa_stack_config.num_blocks = settings.extra_blocks
    model = AlphaFold(config=config).eval()
    model.load_state_dict(torch.load(settings.weights, weights_only=True))
    model = model.to(settings.device)

    def run(batch):
        outputs = model(dict(batch))
        return {
            "positions": outputs["final_atom_positions"][0],
            "plddt": outputs["plddt"][0],
            "pair": outputs["pair"][0],
            "distogram": outputs["distogram_logits"][0],
        }

    return Model(run=run, prepare=lambda features: batch_of_one(features, settings.device))


def batch_of_one(features: Features, device: str) -> Features:
    """Return the features on the device with a first dim of samples and a last dim of passes."""
    return {name: value.to(device)[None, ..., None] for name, value in features.items()}


if __name__ == "__main__":
    main(build)
