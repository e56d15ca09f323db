"""Time the sample preparation of the MLCommons reference.

    PYTHONPATH=CHECKOUT python reference_samples.py PDB ALIGNMENTS REPEATS CHAIN ...

The interpreter of `perf data --reference-python` runs this script in the checkout of mlcommons/hpc
(folder openfold) that --reference names. It imports nothing from this project and copies nothing
from the reference. Prints a line of JSON for each chain and kind of sample: {"chain", "kind",
"seconds": [...], "bytes"}.
"""

import dataclasses
import json
import sys
import time
import warnings
from pathlib import Path


def make_dataclasses_hashable():
    """Patch dataclasses.dataclass so that dataclasses of the reference are hashable.

    Its configuration uses dataclass instances as defaults. Python 3.11 and newer require such
    defaults to be hashable.
    """
    original = dataclasses.dataclass

    def hashable_dataclass(cls=None, **options):
        if cls is not None and cls.__module__.startswith("openfold."):
            options.setdefault("unsafe_hash", True)
        return original(cls, **options)

    dataclasses.dataclass = hashable_dataclass


def main():
    """Time training samples, then evaluation samples of the same data set in evaluation mode."""
    make_dataclasses_hashable()
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
    index_of = {chain["pdb_chain_id"]: number for number, chain in enumerate(dataset.mmcif_chains)}
    for kind in ("training", "evaluation"):
        if kind == "evaluation":
            dataset.mode = "eval"
            dataset.template_hit_featurizer.shuffle_top_k_prefiltered = None
        for chain in sys.argv[4:]:
            if chain in index_of:
                print(
                    json.dumps(
                        time_chain(
                            dataset, index_of[chain], chain=chain, kind=kind, repeats=repeats
                        )
                    ),
                    flush=True,
                )


def time_chain(dataset, index, *, chain, kind, repeats):
    """Time the samples of a chain. An untimed one first brings the files into the page cache."""
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
