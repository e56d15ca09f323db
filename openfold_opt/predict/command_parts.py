"""The functions that the command puts together: inputs, weights and the memory plan."""

from __future__ import annotations

import torch

from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.chain_input import ChainFailure, ChainInput
from openfold_opt.predict.command import Parts
from openfold_opt.predict.inputs import read_chains
from openfold_opt.predict.memory_plan import print_plan
from openfold_opt.predict.options import InputOptions, PredictOptions
from openfold_opt.predict.predictor import Predictor, PredictorSettings


def _load_models(options: PredictOptions, device: torch.device, dap: AxisGroup) -> Predictor:
    excluded = str(options.value("exclude_templates"))
    return Predictor(
        options.weights.paths,
        device=device,
        dtype=str(options.value("dtype")),
        settings=PredictorSettings(
            checkpoint=options.weights.checkpoint,
            model_config=options.weights.model_config,
            max_msa_clusters=options.weights.max_msa_clusters,
            max_extra_msa=options.weights.max_extra_msa,
            num_recycling_iterations=options.weights.num_recycling_iterations,
            recycling_tolerance=options.value("recycling_tolerance"),
            seed=options.value("seed"),
            use_templates=_has_templates(options.inputs),
            max_template_date=options.value("max_template_date"),
            excluded_templates=frozenset(excluded.split(",")) - {""},
        ),
        dap=dap,
    )


def _has_templates(inputs: InputOptions) -> bool:
    return inputs.template_structures is not None or inputs.data_dir is not None


def _read_inputs(options: PredictOptions) -> tuple[list[ChainInput], list[ChainFailure]]:
    inputs = options.inputs
    return read_chains(
        inputs.paths,
        alignments=inputs.alignments,
        template_structures=inputs.template_structures,
        single_sequence=bool(options.value("single_sequence")),
        data_dir=inputs.data_dir,
        chain_names=inputs.chains,
    )


PARTS = Parts(read_inputs=_read_inputs, load_models=_load_models, print_plan=print_plan)
"""The parts of the command."""
