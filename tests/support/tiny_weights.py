"""Files of weights of a tiny model in every published form, and their sizes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from torch import Tensor

from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights import write_weights
from openfold_opt.model.published_weights.checkpoint_folder import Snapshot
from openfold_opt.train.checkpoint.checkpoint_store import (
    CheckpointConfig,
    CheckpointStore,
)
from tests.support.tiny_model import randomized, tiny_model


def tiny_weights(**changes: bool) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return the sizes and random parameters of a tiny model.

    changes: fields of ModelConfig, such as has_templates=False.
    """
    config = dataclasses.replace(tiny_model(), **changes)
    state = {name: x.detach() for name, x in randomized(config).state_dict().items()}
    return config, state


def sizes_file(folder: Path, config: ModelConfig) -> Path:
    """Write the sizes in the form of a run's config.json, and return the path."""
    path = folder / "sizes.json"
    path.write_text(json.dumps({"config": {"model": dataclasses.asdict(config)}}))
    return path


def weights_file(path: Path, config: ModelConfig, state: dict[str, Tensor], *, form: str) -> Path:
    """Write the parameters in one of the published forms, and return the path."""
    with path.open("wb") as file:
        write_weights(file, state, config, form=form)
    return path


def tiny_run(
    folder: Path, config: ModelConfig, steps: dict[int, float | None], *, num_updates: int = 1
) -> dict[int, dict[str, Tensor]]:
    """Write the output directory of a run, and return the averaged weights of each checkpoint.

    steps: step of each checkpoint -> its lDDT-Ca.
    """
    samples = {"max_msa_clusters": 9, "max_extra_msa": 17, "max_templates": 2}
    folder.mkdir()
    content = {"config": {"model": dataclasses.asdict(config), "data": samples}}
    (folder / "config.json").write_text(json.dumps(content))
    store = CheckpointStore(folder / "checkpoints", CheckpointConfig(keep_last=9))
    averages = {}
    for step, score in steps.items():
        state = {name: x.detach() for name, x in randomized(config, seed=step).named_parameters()}
        layout, start = {}, 0
        for name, tensor in state.items():
            layout[name] = (start, tuple(tensor.shape))
            start += tensor.numel()
        flat = torch.cat([tensor.flatten() for tensor in state.values()])
        store.save(
            Snapshot(
                step=step,
                samples_seen=step,
                lddt_ca=score,
                facts={"num_updates": num_updates},
                layout=layout,
                tensors={"average": flat, "values": 2.0 * flat},
            )
        )
        averages[step] = state
    return averages
