"""The distillation set of a run: its chains, and the check that none of them is a validation chain.

A distillation set is a data directory of predicted structures (`python -m data_prep distill`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from openfold_opt.loader.sampler import WeightedChains
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.records import FIRST_OWN_CLUSTER
from openfold_opt.protein.same_chain import SequenceTable, comparable_id
from openfold_opt.protein.selection import training_chains
from openfold_opt.train.dataset_split import (
    DataSelectionConfig,
    held_out_chains,
    name_chains,
    select_validation,
)

_ANY_DATE = "9999-12-31"


def check_distillation(selection: DataSelectionConfig, distillation_dir: Path | None) -> None:
    """Raise ValueError if a probability is set without a distillation set, or the reverse."""
    probability = selection.distillation_probability
    if distillation_dir is None and probability > 0:
        raise ValueError(
            f"selection.distillation_probability is {probability:g}, but there is no distillation "
            "set; name its shards with --distillation-data-dir, or set the probability to 0"
        )
    if distillation_dir is not None and probability == 0:
        raise ValueError(
            f"the distillation set {distillation_dir} would not be used, because "
            "selection.distillation_probability is 0; set it (OpenFold: 0.75), or leave out "
            "--distillation-data-dir"
        )


def data_checksum(data_dir: Path, distillation_dir: Path | None) -> str:
    """Return the checksum of the index, with that of the distillation set after a plus sign."""
    folders = [data_dir] if distillation_dir is None else [data_dir, distillation_dir]
    return "+".join(ShardIndex.load(folder).checksum for folder in folders)


def open_distillation(
    data_dir: Path,
    distillation_dir: Path,
    selection: DataSelectionConfig,
    *,
    is_checked: bool = False,
) -> WeightedChains:
    """Return the chains of the distillation set with their sampling weights.

    The conditions and weights are those of the training set, except that chains of any release
    date are used: the date of a prediction says nothing about its sequence.

    is_checked: whether an earlier call, or another rank, has looked for leaks.

    Raises ValueError if no chain can be used, or if a chain has the id or the sequence of a
    validation chain or of one that is held out, or is in the cluster of a held-out chain.
    """
    distilled = ShardReader(distillation_dir)
    chains = training_chains(distilled.index, max_release_date=_ANY_DATE)
    if not chains:
        raise ValueError(
            f"no chain of the distillation set {distillation_dir} can be used: in all of its "
            f"{len(distilled.index.chains):,} chains one letter is too frequent; distill others"
        )
    leaks = [] if is_checked else list(find_leaks(ShardReader(data_dir), distilled, selection))
    if leaks:
        raise ValueError(
            f"the distillation set {distillation_dir} has {len(leaks):,} chains that this run must "
            f"not train on: {name_chains(leaks)}; make the distillation set again "
            "without them (`python -m data_prep distill --validation-data-dir DIR` leaves them out)"
        )
    return WeightedChains([chain.chain_id for chain in chains], [chain.weight for chain in chains])


def find_leaks(
    reader: ShardReader, distilled: ShardReader, selection: DataSelectionConfig
) -> Iterator[str]:
    """Yield a description of each distilled chain that the run must not train on.

    Such a chain is a validation chain or held out, or has the sequence of one, or is in the cluster
    of a chain that is held out. Sequences are read only of chains that have the length of one.
    """
    held_out = held_out_chains(reader.index, selection)
    validation = set(select_validation(reader.index, selection))
    excluded = sorted(held_out | validation)
    kinds = {name: "validation" if name in validation else "held-out" for name in excluded}
    sequences = SequenceTable({name: reader.sequence(name) for name in excluded})
    ids = {comparable_id(chain_id): chain_id for chain_id in excluded}
    clusters = _clusters(reader.index, held_out)
    for chain in distilled.index.chains:
        same_id = ids.get(comparable_id(chain.chain_id))
        if same_id is not None:
            yield f"{chain.chain_id} ({kinds[same_id]} chain {same_id} has this id)"
            continue
        same = None
        if sequences.has_length(chain.sequence_length):
            same = sequences.find(distilled.sequence(chain.chain_id))
        if same is not None:
            yield f"{chain.chain_id} (has the sequence of {kinds[same]} chain {same})"
        elif chain.cluster_id in clusters:
            mate = clusters[chain.cluster_id]
            yield f"{chain.chain_id} (in the cluster of {mate}, which is held out)"


def _clusters(index: ShardIndex, chain_ids: Collection[str]) -> dict[int, str]:
    """Map the clusters of chains to one chain each, without the ids that are no common cluster."""
    return {
        index.by_id[chain_id].cluster_id: chain_id
        for chain_id in sorted(chain_ids)
        if 0 <= index.by_id[chain_id].cluster_id < FIRST_OWN_CLUSTER
    }
