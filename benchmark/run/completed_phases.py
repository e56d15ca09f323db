"""Which phases of a run are complete. The checkpoints decide, as they do when a run is resumed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.run.state_file import read_state
from openfold_opt.model.published_weights.run_directory import CHECKPOINT_FOLDER
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig, CheckpointStore
from openfold_opt.train.errors import CheckpointError
from openfold_opt.train.phases import Phase


def completed_phases(run_dir: Path, phases: Sequence[Phase], *, verify: bool) -> tuple[str, ...]:
    """Return the names of the phases that earlier processes of a run have completed, in order.

    verify: read the newest checkpoint if phases are complete by its description, and fall back to
    the one before if it is damaged. Raises BenchmarkError if none is complete.
    """
    names = tuple(phase.name for phase in phases)
    state = read_state(run_dir) if run_dir.is_dir() else None
    if state is None:
        return ()
    if state.status == "finished" and state.outcome == "success":
        return names
    store = CheckpointStore(run_dir / CHECKPOINT_FOLDER, CheckpointConfig())
    described = [record.content for record in store.records() if record.content is not None]
    number = _index_of_phase(described[-1]["facts"]) if described else 0
    if number and verify:
        try:
            newest = store.load_newest(
                warn=lambda message: print(f"WARNING: {message}", file=sys.stderr)
            )
        except CheckpointError as error:
            raise BenchmarkError(str(error)) from error
        number = 0 if newest is None else _index_of_phase(newest.snapshot.facts)
    return names[:number]


def _index_of_phase(facts: dict) -> int:
    """Return the index of the phase of a checkpoint; all phases before it are complete."""
    return facts.get("phase", {}).get("index", 0)
