"""Time the conversion of raw files. `perf data` runs this in a separate process to measure memory.

python -m benchmark.perf.subprocesses.conversion_probe PDB_MMCIF OPEN_PROTEIN_SET OUT
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from data_prep.communicator import SerialCommunicator
from data_prep.convert import alignments, structures
from data_prep.convert.raw_source import RawSource
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import make_shards
from data_prep.errors import DataPrepError
from openfold_opt.protein.shard_format import STATE_DIR_NAME


def main() -> None:
    """Convert the files and print the metrics as one line of JSON."""
    pdb_mmcif, open_protein_set, out = map(Path, sys.argv[1:4])
    source = RawSource(
        pdb_mmcif=pdb_mmcif, open_protein_set=open_protein_set, missing_alignments="query"
    )
    communicator = SerialCommunicator()
    started = time.perf_counter()
    structure_chunks = source.plan_structures().chunks
    (out / STATE_DIR_NAME).mkdir(parents=True)
    make_shards(
        structures.KIND,
        structure_chunks,
        source.build_structures,
        data_dir=out,
        communicator=communicator,
    )
    structures_done = time.perf_counter()
    library = TemplateLibrary([out / chunk.shard_name for chunk in structure_chunks])
    alignment_chunks = source.plan_alignments(library, structure_chunks).chunks
    builder = alignments.AlignmentShardBuilder(library=library, obsolete=source.read_obsolete())
    make_shards(alignments.KIND, alignment_chunks, builder, data_dir=out, communicator=communicator)
    metrics = {
        "entries": sum(len(chunk.units) for chunk in structure_chunks),
        "structures_seconds": structures_done - started,
        "alignments_seconds": time.perf_counter() - structures_done,
        "alignments_bytes": sum(
            unit.size_bytes for chunk in alignment_chunks for unit in chunk.units
        ),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(metrics))


if __name__ == "__main__":
    try:
        main()
    except (DataPrepError, OSError) as error:
        sys.exit(str(error))
