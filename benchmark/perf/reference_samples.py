"""Times sample preparation of the reference. Run by the interpreter that `perf data --reference-python` names, in the checkout of
mlcommons/hpc (folder openfold) that --reference names; nothing of this project is imported, and nothing of that one is kept.

    PYTHONPATH=CHECKOUT python reference_samples.py PROCESSED_PDB PROCESSED_ALIGNMENTS REPEATS CHAIN ...

Prints a line of JSON for each chain and kind of sample: {"chain", "kind", "seconds": [...], "bytes"}.
"""

import dataclasses
import json
import sys
import time
import warnings
from pathlib import Path


def admit_old_defaults():
    """Its configuration has instances of dataclasses as defaults, which Python 3.11 and newer refuse unless they can be hashed."""
    original = dataclasses.dataclass

    def hashable_dataclass(cls=None, **options):
        if cls is not None and cls.__module__.startswith("openfold."):
            options.setdefault("unsafe_hash", True)
        return original(cls, **options)

    dataclasses.dataclass = hashable_dataclass


def main():
    """Training samples as its data set gives them; evaluation samples by the same object, told to evaluate."""
    admit_old_defaults()
    warnings.simplefilter("ignore")
    import torch
    from openfold.config import AlphaFoldConfig
    from openfold.datasets import InitialTrainingDataset

    torch.set_num_threads(1)
    pdb, alignments, repeats = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    dataset = InitialTrainingDataset(
        pdb_mmcif_chains_filepath=pdb / "chains.csv",
        pdb_mmcif_dicts_dirpath=pdb / "dicts",
        pdb_obsolete_filepath=pdb / "obsolete.dat",
        pdb_alignments_dirpath=alignments / "pdb_alignments",
        max_pdb_release_date="2021-09-16",
        alphafold_config=AlphaFoldConfig.from_preset(stage="initial_training"),
        filter_by_alignments=True,
    )
    place = {chain["pdb_chain_id"]: number for number, chain in enumerate(dataset.mmcif_chains)}
    for kind in ("training", "evaluation"):
        if kind == "evaluation":
            dataset.mode = "eval"
            dataset.template_hit_featurizer.shuffle_top_k_prefiltered = None
        for chain in sys.argv[4:]:
            if chain in place:
                print(
                    json.dumps(
                        time_chain(dataset, place[chain], chain=chain, kind=kind, repeats=repeats)
                    ),
                    flush=True,
                )


def time_chain(dataset, index, *, chain, kind, repeats):
    """One sample is made before the clock runs, so that files are in memory on both sides."""
    sample = dataset[(index, 0)]
    seconds = []
    for seed in range(1, repeats + 1):
        started = time.perf_counter()
        sample = dataset[(index, seed)]
        seconds.append(time.perf_counter() - started)
    size = sum(value.nbytes for value in sample.values() if hasattr(value, "nbytes"))
    return {"chain": chain, "kind": kind, "seconds": seconds, "bytes": size}


if __name__ == "__main__":
    main()
