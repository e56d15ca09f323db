"""Checkpoints of a pretended run."""

from pathlib import Path

import torch

from openfold_opt.model.published_weights.checkpoint_folder import Snapshot
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig, CheckpointStore


def write_checkpoint(run_dir: Path, *, step: int, phase: int) -> None:
    """Write a complete checkpoint of a run. phase: index of the phase that comes next."""
    snapshot = Snapshot(
        step=step,
        samples_seen=step,
        lddt_ca=None,
        facts={"phase": {"index": phase}},
        layout={"weight": (0, (2,))},
        tensors={"values": torch.zeros(2)},
    )
    CheckpointStore(run_dir / "checkpoints", CheckpointConfig()).save(snapshot)
