"""Predictor: load weights once, then predict chains; the Python interface of the package.

The command uses the same class (command_parts.py).
"""

from __future__ import annotations

import datetime
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from openfold_opt.kernels.interface import KernelConfig, KernelSet, Precision
from openfold_opt.kernels.select import build_kernel_set
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights import (
    PublishedWeights,
    build_model,
)
from openfold_opt.model.published_weights.weight_settings import MASKING
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.predict.chain_input import (
    ChainInput,
    FeatureSettings,
    PreparedChain,
)
from openfold_opt.predict.chain_results import chain_result
from openfold_opt.predict.command import choose_device
from openfold_opt.predict.device_memory import PeakMeter, synchronize
from openfold_opt.predict.device_model import DeviceModel
from openfold_opt.predict.fasta import check_sequence
from openfold_opt.predict.file_names import weights_names
from openfold_opt.predict.forward import RowSinks, predict_chain
from openfold_opt.predict.graphs import (
    graph_length,
    longest_with_graphs,
    obstacle_to_graphs,
)
from openfold_opt.predict.inputs import prepare_chain, read_chains
from openfold_opt.predict.memory_plan import MemoryPlan, plan_memory
from openfold_opt.predict.models import TimedPrediction
from openfold_opt.predict.predicted_chain import PredictedChain, RowArray
from openfold_opt.predict.predictor_settings import (
    PathLike,
    PredictorSettings,
    read_chosen_weights,
)
from openfold_opt.predict.run_settings import RunSetting, WeightsFacts
from openfold_opt.predict.scores import rank_predictions
from openfold_opt.train.precision import low_precision_names, matmul_precision
from openfold_opt.train.process_memory import return_freed_memory


class Predictor:
    """One or several sets of weights, ready to predict chains.

    The weights stay in host memory as float32; those that predict are on the device.
    """

    prepare = staticmethod(prepare_chain)

    def __init__(
        self,
        weights: PathLike | Sequence[PathLike],
        *,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        settings: PredictorSettings | None = None,
        dap: AxisGroup = AxisGroup.single("dap"),
    ) -> None:
        """Read and check the weights.

        Args:
            weights: one or several files or run directories.
            device: "auto", "cpu", "cuda", or a device of PyTorch.
            dtype: "auto" (bf16 on a GPU, fp32 on a CPU), "fp32" or "bf16".
            settings: seed, recycling, templates and what the files do not say; None: the defaults.
            dap: the ranks that share a chain; all must make the same calls.

        Raises:
            ValueError: a file cannot be read, or has no weights of an AlphaFold2 model.
        """
        settings = settings or PredictorSettings()
        single = isinstance(weights, str | os.PathLike)
        paths = tuple(Path(path) for path in ([weights] if single else weights))
        if not paths:
            raise ValueError("no weights are given; name at least one file or run directory")
        self.names = weights_names(paths)
        self.dap, self.settings = dap, settings
        is_chosen = isinstance(device, torch.device)
        self.device = device if is_chosen else choose_device(device, local_rank=dap.rank)
        is_gpu = self.device.type == "cuda"
        automatic = "bf16" if is_gpu else "fp32"
        self.dtype = automatic if dtype == "auto" else dtype
        if self.device.type == "cpu":
            return_freed_memory()
        self._weights = [read_chosen_weights(path, settings) for path in paths]
        _refuse_same_weights(self._weights)
        self._models = [_in_precision(build_model(x), self.dtype) for x in self._weights]
        self._kernels = [self._build_kernels(weights.config) for weights in self._weights]
        self._plans: dict[tuple[int, int], MemoryPlan] = {}
        self._on_device = DeviceModel(self._models, self.device, copies_weights=is_gpu)
        configs = [weights.config for weights in self._weights]
        self._no_graphs = obstacle_to_graphs(self.device, dap.size, configs)
        self._longest_with_graphs = longest_with_graphs(settings.graphs, self._no_graphs)

    @property
    def device_name(self) -> str:
        """Model of the GPU, or cpu."""
        is_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if is_gpu else "cpu"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the weights."""
        notes = []
        without = [n for n, w in zip(self.names, self._weights) if not w.config.has_templates]
        if without and self.settings.use_templates:
            notes.append(
                f"templates are not used by {', '.join(without)}: these weights have no templates"
            )
        if self.device.type == "cuda" and self.settings.graphs != "off" and self._no_graphs:
            notes.append(f"CUDA graphs are not used: {self._no_graphs}")
        return tuple(notes)

    def predict(
        self,
        sequence: str,
        *,
        name: str = "query",
        alignments: PathLike | Sequence[PathLike] = (),
        template_structures: PathLike | None = None,
        rank_by: str = "plddt",
    ) -> PredictedChain:
        """Predict one chain with every set of weights.

        Args:
            sequence: one-letter codes.
            name: name of the chain, one word; alignments are searched by it.
            alignments: a directory, or .a3m, .sto and .hhr files; without any, the sequence alone
                is the MSA.
            template_structures: directory of mmCIF files for the templates of .hhr files.
            rank_by: "plddt" or "ptm".

        Raises:
            ValueError: the sequence or an alignment is wrong, or the chain does not fit.
            FloatingPointError: an output is not finite.
        """
        if rank_by not in ("plddt", "ptm"):
            raise ValueError(f"rank_by is {rank_by!r}; expected 'plddt' or 'ptm'")
        single = isinstance(alignments, str | os.PathLike)
        paths = [Path(path) for path in ([alignments] if single else alignments)]
        templates = None if template_structures is None else Path(template_structures)
        chain = _chain(name, sequence, alignments=paths, template_structures=templates)
        predictions, matrices, results = {}, {}, {}
        prepared: dict[FeatureSettings, PreparedChain] = {}
        for index, weights in enumerate(self.weights_facts()):
            plan = self.plan(chain, index)
            if not plan.fits:
                raise ValueError(f"{name}: {plan.refusal()}")
            settings = self.feature_settings(index)
            if settings not in prepared:
                prepared[settings] = self.prepare(chain, settings)
            # The forward copies blocks of the features to the device, as the plan assumes.
            batch = prepared[settings].features()
            rows = RowArray() if self.has_pae(index) else None
            timed = self.predict_features(batch, index, plan=plan, sinks=RowSinks(pae=rows))
            predictions[weights.name] = timed
            matrices[weights.name] = None if rows is None else rows.matrix()
            results[weights.name] = chain_result(
                chain,
                timed.prediction,
                weights=weights,
                seed=self.settings.seed,
                prepared=prepared[settings],
            )
        return PredictedChain(
            chain=chain,
            ranking=tuple(rank_predictions(predictions, by=rank_by)),
            predictions=predictions,
            pae_matrices=matrices,
            results=results,
        )

    def predict_features(
        self,
        batch: FeatureBatch,
        index: int,
        *,
        plan: MemoryPlan,
        sinks: RowSinks = RowSinks(),
        on_pass: Callable[[int, float | None], None] | None = None,
    ) -> TimedPrediction:
        """Predict one chain from its features with one set of weights."""
        model = self._on_device.load(index)
        synchronize(self.device)
        meter = PeakMeter(self.device, held_bytes=plan.weight_bytes + plan.feature_bytes)
        started = time.perf_counter()
        division = plan.prediction_plan(kernels=self._kernels[index], dap=self.dap)
        with matmul_precision(self.dtype):
            compute, warnings = self._on_device.passes(batch, division, has_graphs=plan.has_graphs)
            prediction = predict_chain(
                model,
                batch,
                division,
                num_recycling_iterations=self.num_passes(index) - 1,
                recycling_tolerance=self.settings.recycling_tolerance,
                compute=compute,
                sinks=sinks,
                on_pass=on_pass,
            )
        synchronize(self.device)
        seconds = time.perf_counter() - started
        return TimedPrediction(
            prediction=prediction,
            seconds=seconds,
            peak_bytes=meter.peak_bytes(has_graphs=plan.has_graphs),
            warnings=warnings,
        )

    def has_pae(self, index: int) -> bool:
        """Return whether a set of weights predicts aligned errors and a TM-score."""
        return self._weights[index].config.auxiliary_heads.has_tm_score

    def num_passes(self, index: int) -> int:
        """Return the maximum number of passes: recycling iterations and the last one."""
        return int(self._weights[index].settings["num_recycling_iterations"].value) + 1

    def feature_settings(self, index: int) -> FeatureSettings:
        """Return how features are made for a set of weights."""
        weights, settings = self._weights[index], self.settings
        sizes = {
            name: int(weights.settings[name].value)
            for name in (
                "num_recycling_iterations",
                "max_msa_clusters",
                "max_extra_msa",
                "max_templates",
            )
        }
        masking: dict[str, Any] = {
            name: float(weights.settings[name].value)
            for name in MASKING
            if name in weights.settings
        }
        return FeatureSettings(
            **sizes,
            **masking,
            seed=settings.seed,
            use_templates=settings.use_templates and weights.config.has_templates,
            max_template_date=settings.max_template_date or datetime.date.today().isoformat(),
            excluded_templates=settings.excluded_templates,
        )

    def plan(self, chain: ChainInput, index: int) -> MemoryPlan:
        """Return the memory plan of a chain. It depends on the length only, so it is kept.

        If the chain uses CUDA graphs, the plan is that of the end of its range of lengths.
        """
        key = (len(chain.sequence), index)
        if key not in self._plans:
            self._plans[key] = self._plan(*key)
        return self._plans[key]

    def _plan(self, num_residues: int, index: int) -> MemoryPlan:
        features = self.feature_settings(index)
        plan_of = partial(
            plan_memory,
            config=self._weights[index].config,
            # The rows of the templates are part of the MSA representation.
            max_msa_clusters=features.max_msa_clusters + features.num_template_slots,
            max_extra_msa=features.max_extra_msa,
            num_templates=features.num_template_slots,
            num_passes=self.num_passes(index),
            dtype=self.dtype,
            device=self.device,
            dap_size=self.dap.size,
        )
        if num_residues <= self._longest_with_graphs:
            plan = plan_of(num_residues=graph_length(num_residues), uses_graphs=True)
            if plan.fits and not plan.division.offload_pairs:
                return plan
        return plan_of(num_residues=num_residues)

    def cost(self, chain: ChainInput) -> float:
        """Return a number that is proportional to the expected time of a chain.

        The work on pairs grows with the square of the length, triangles with its cube; at 3,000
        residues both take the same time. The memory plan knows more, but takes a second.
        """
        num_residues = len(chain.sequence)
        return num_residues**2 * (1.0 + num_residues / 3000.0)

    def weights_facts(self) -> tuple[WeightsFacts, ...]:
        """Return name, path, kind, SHA-256 and settings of every set of weights."""
        return tuple(
            WeightsFacts(
                name=name,
                path=str(weights.path),
                kind=weights.kind,
                sha256=weights.sha256,
                settings={
                    key: RunSetting(value=setting.value, origin=setting.origin)
                    for key, setting in weights.settings.items()
                },
            )
            for name, weights in zip(self.names, self._weights)
        )

    def _build_kernels(self, config: ModelConfig) -> KernelSet:
        return build_kernel_set(
            KernelConfig.all("auto"), self.device, config.kernel_shapes(), precision=self.dtype
        )


def _chain(
    name: str, sequence: str, *, alignments: Sequence[Path], template_structures: Path | None
) -> ChainInput:
    """Return the chain of a sequence. Raises ValueError if it cannot be predicted."""
    if name.split() != [name]:
        raise ValueError(f"the name of the chain is {name!r}; expected one word")
    letters = "".join(sequence.split())
    try:
        check_sequence(letters)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "sequence.fasta"
        fasta.write_text(f">{name}\n{letters}\n", encoding="utf-8")
        chains, failures = read_chains(
            [fasta],
            alignments=alignments,
            template_structures=template_structures,
            single_sequence=not alignments,
        )
    if failures:
        _, _, reason = failures[0].message.partition(": ")
        raise ValueError(f"{name}: {reason}")
    return replace(chains[0], origin="a Python call")


def _refuse_same_weights(weights: Sequence[PublishedWeights]) -> None:
    """Raise ValueError if two files or runs have the same weights."""
    first_of: dict[str, PublishedWeights] = {}
    for item in weights:
        first = first_of.setdefault(item.sha256, item)
        if first is not item:
            raise ValueError(
                f"{item.path} has the same weights as {first.path} (SHA-256 {item.sha256[:12]}), "
                "so both predict the same structure; name each set of weights once"
            )


def _in_precision(model: AlphaFold, dtype: Precision) -> AlphaFold:
    """Return the model with the parameters of its trunk in bfloat16, if that is the precision."""
    parameters = dict(model.named_parameters())
    for name in low_precision_names(model, dtype):
        parameters[name].data = parameters[name].data.bfloat16()
    return model
