"""Whether the search would have found NVIDIA's split of 2,080 GPUs from smaller results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.plan.fitting import fit_factors
from benchmark.plan.published import SETUPS, Published
from benchmark.plan.search import SearchSpace, Split, search_splits
from benchmark.plan.step_counts import NVIDIA, CountTable
from benchmark.plan.systems import load_system
from benchmark.presets import build_preset
from openfold_opt.train.phases import phases_of

_PRESET = "mlperf_256x8_dap8"
_LARGEST = "NVIDIA__eos_n260_ngc23.09_pytorch__strong"
BATCHES = range(128, 257, 8)


@dataclass(frozen=True, kw_only=True)
class SearchCheck:
    """The split of the fastest published result among all splits of its GPUs."""

    best: Split
    published: Split
    rank: int
    """Rank of the published split, from 1."""
    num_splits: int

    @property
    def distance(self) -> float:
        """Relative time by which the published split is slower than the best."""
        return self.published.seconds / self.best.seconds - 1


def check_search(results: Sequence[Published], table: CountTable) -> SearchCheck:
    """Search the splits of 2,080 H100 with factors of the other results of the code base.

    Raises:
        BenchmarkError: The counts of a DAP size that a result used are missing.
    """
    others = [each for each in results if each.folder != _LARGEST and each.setup.code == NVIDIA]
    setup = SETUPS[_LARGEST]
    space = SearchSpace(
        preset=_PRESET,
        phase=phases_of(build_preset(_PRESET))[0],
        system=load_system(setup.system),
        code=NVIDIA,
        batches=BATCHES,
    )
    splits = search_splits(space, setup.num_gpus, table, fit_factors(others, table))
    wanted = (setup.num_gpus, setup.dap, setup.evaluation_ranks, setup.accumulation)
    for index, split in enumerate(splits):
        layout = split.layout
        if (
            layout.num_gpus,
            layout.dap,
            layout.evaluation_ranks,
            layout.accumulation,
        ) == wanted and split.batch == setup.batch:
            return SearchCheck(
                best=splits[0], published=split, rank=index + 1, num_splits=len(splits)
            )
    raise AssertionError(f"the search did not try {wanted}")
