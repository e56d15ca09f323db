"""Time the conversion of raw files. `perf data` runs this in a separate process to measure memory.

    python -m benchmark.perf.subprocesses.conversion_probe SETTINGS

SETTINGS is the JSON of a ConversionSettings. Prints the JSON of a ConversionTimes. This module does
not import torch, whose memory is not part of the conversion.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from data_prep.communicator import SerialCommunicator
from data_prep.convert import alignments, structures
from data_prep.convert.raw_source import RawSource
from data_prep.convert.template_library import TemplateLibrary
from data_prep.convert.work import make_shards
from data_prep.errors import DataPrepError
from openfold_opt.protein.shard_format import STATE_DIR_NAME


@dataclass(frozen=True, kw_only=True)
class ConversionSettings:
    """Raw files and the folder for the shards."""

    pdb_mmcif: str
    open_protein_set: str
    out: str


@dataclass(frozen=True, kw_only=True)
class ConversionTimes:
    """Times, amount of work and memory of the conversion."""

    entries: int
    structures_seconds: float
    alignments_seconds: float
    alignments_bytes: int
    peak_memory_bytes: int


def main() -> None:
    """Convert the files and print the metrics as one line of JSON."""
    settings = ConversionSettings(**json.loads(sys.argv[1]))
    print(json.dumps(dataclasses.asdict(convert(settings))))


def convert(settings: ConversionSettings) -> ConversionTimes:
    """Convert the files on one core."""
    out = Path(settings.out)
    source = RawSource(
        pdb_mmcif=Path(settings.pdb_mmcif),
        open_protein_set=Path(settings.open_protein_set),
        missing_alignments="query",
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
    return ConversionTimes(
        entries=sum(len(chunk.units) for chunk in structure_chunks),
        structures_seconds=structures_done - started,
        alignments_seconds=time.perf_counter() - structures_done,
        alignments_bytes=sum(unit.size_bytes for chunk in alignment_chunks for unit in chunk.units),
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    try:
        main()
    except (DataPrepError, OSError) as error:
        sys.exit(str(error))
