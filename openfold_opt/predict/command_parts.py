"""The functions that the command puts together: inputs, weights and the memory plan."""

from __future__ import annotations

from dataclasses import replace

import torch

from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights.model_sizes import read_model_config
from openfold_opt.model.published_weights.reading import read_weights
from openfold_opt.model.published_weights.weight_settings import (
    Setting,
    default_settings,
    with_options,
)
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.chain_input import ChainFailure, ChainInput
from openfold_opt.predict.command import Parts, choose_device
from openfold_opt.predict.inputs import hash_inputs, read_chains
from openfold_opt.predict.memory_plan import describe_plan
from openfold_opt.predict.options import OptionError, PredictOptions
from openfold_opt.predict.predictor import Predictor, PredictorSettings
from openfold_opt.predict.progress import print_line
from openfold_opt.predict.scores import describe_failure


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
            use_templates=bool(options.value("use_templates")),
            max_template_date=options.value("max_template_date"),
            excluded_templates=frozenset(excluded.split(",")) - {""},
        ),
        dap=dap,
    )


def _read_inputs(options: PredictOptions) -> tuple[list[ChainInput], list[ChainFailure]]:
    inputs = options.inputs
    return read_chains(
        inputs.paths,
        alignments=inputs.alignments,
        template_structures=inputs.template_structures,
        # A memory plan depends on the lengths only.
        single_sequence=options.plan_only or bool(options.value("single_sequence")),
        data_dir=inputs.data_dir,
        chain_names=inputs.chains,
    )


def _print_plan(options: PredictOptions) -> int:
    """Print the plans of --plan-only. Return 0 if all chains can be predicted and fit, else 1.

    Without weights, the model is AlphaFold2. Chains have templates if --template-structures or
    --data-dir is given. Of several sets of weights, the first one counts.
    """
    lengths, unusable = options.lengths, []
    if not lengths:
        lengths, unusable = _read_lengths(options)
    device = str(options.value("device"))
    if device in ("auto", "cuda"):
        device = choose_device(device, local_rank=0)
    dtype = str(options.value("dtype"))
    if dtype == "auto":
        dtype = "fp32" if str(device) == "cpu" else "bf16"
    config, sizes = _planned_model(options)
    num_templates = sizes["max_templates"] if options.value("use_templates") else 0
    lines, all_fit = describe_plan(
        lengths,
        config=config,
        device=device,
        dtype=dtype,
        dap_size=options.dap or 1,
        # The rows of the templates are added to those that are drawn, as in a prediction.
        max_msa_clusters=sizes["max_msa_clusters"] + num_templates,
        max_extra_msa=sizes["max_extra_msa"],
        num_templates=num_templates,
        num_passes=sizes["num_recycling_iterations"] + 1,
    )
    lines += [f"FAILED (input): {describe_failure(failure)}" for failure in unusable]
    for line in lines:
        print_line(line)
    return 0 if all_fit and not unusable else 1


def _read_lengths(options: PredictOptions) -> tuple[tuple[int, ...], list[ChainFailure]]:
    """Return the lengths of the chains of the input, and the chains that cannot be used.

    Raises:
        ValueError: there is no chain that can be used.
    """
    if not options.inputs.paths and options.inputs.data_dir is None:
        raise OptionError("--plan-only has no lengths; give --length N, or INPUT")
    chains, unusable = _read_inputs(options)
    if not chains:
        raise OptionError("; ".join(map(describe_failure, unusable)) or "the input has no chains")
    return tuple(sorted({len(chain.sequence) for chain in chains}, reverse=True)), unusable


def _planned_model(options: PredictOptions) -> tuple[ModelConfig, dict[str, int]]:
    """Return the sizes of the model, and the values of the settings that a plan depends on."""
    given = options.weights
    if given.paths:
        weights = read_weights(
            given.paths[0], model_config=given.model_config, checkpoint=given.checkpoint
        )
        config, settings = weights.config, weights.settings
    else:
        path = given.model_config
        config = ModelConfig() if path is None else read_model_config(path)
        config = replace(config, has_templates=bool(options.value("use_templates")))
        settings = default_settings(config, sizes=Setting(value="", origin="default"))
    names = ("max_msa_clusters", "max_extra_msa", "num_recycling_iterations")
    settings = with_options(settings, {name: getattr(given, name) for name in names})
    return config, {name: int(settings[name].value) for name in (*names, "max_templates")}


PARTS = Parts(
    read_inputs=_read_inputs,
    load_models=_load_models,
    hash_inputs=hash_inputs,
    print_plan=_print_plan,
)
"""The parts of the command."""
