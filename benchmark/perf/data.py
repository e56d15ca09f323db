"""`perf data`: time conversion and sample preparation on one core, ours and the reference's.

Both process the same raw files, one after the other. The reference is the MLCommons reference.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmark.command_line import BenchmarkError, check_output_option
from benchmark.perf.subprocesses.conversion_probe import ConversionSettings, ConversionTimes
from benchmark.perf.tools.mlcommons_reference import Reference, ReferenceConversion
from benchmark.perf.tools.options import add_count, add_reference, checked_reference
from benchmark.perf.tools.perf_record import from_json
from benchmark.perf.tools.picture import draw_preparation_times
from benchmark.perf.tools.probe import run_probe
from benchmark.perf.tools.timing_stats import TimingStats, table
from data_prep.progress import tracked
from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.sample import make_evaluation_sample, make_training_sample
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.protein.reader import ShardReader

PROBE = "benchmark.perf.subprocesses.conversion_probe"
KINDS = ("training", "evaluation")
_MEGABYTE = 1e6


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Times of the conversion of all entries."""

    ours: ConversionTimes
    reference: ReferenceConversion | None = None

    @property
    def ratio(self) -> float | None:
        """Time of the reference for the structures divided by ours."""
        if self.reference is None:
            return None
        return self.reference.structures_seconds / self.ours.structures_seconds


@dataclass(frozen=True, kw_only=True)
class ChainTimes:
    """Times of the samples of a chain."""

    num_rows: int
    """Rows of its alignment."""
    num_residues: int
    ours: list[float]
    """Seconds of the work of a loader worker."""
    expansion: list[float]
    """Seconds of decoding, which a run does on its device."""
    ours_bytes: int
    """Size of a sample in the wire format."""
    reference: list[float] | None = None
    """Seconds of the reference; None if it was not measured on this chain."""
    reference_bytes: int | None = None
    """Size of a sample of the reference."""

    @property
    def ours_stats(self) -> TimingStats:
        """Statistics of our times."""
        return TimingStats.of(self.ours)

    @property
    def reference_stats(self) -> TimingStats | None:
        """Statistics of the reference's times; None if it was not measured on this chain."""
        return None if self.reference is None else TimingStats.of(self.reference)


@dataclass(frozen=True, kw_only=True)
class DataMetrics:
    """Metrics of `perf data`: conversion and samples. The half that --only leaves out is None."""

    conversion: Conversion | None = None
    samples: dict[str, dict[str, ChainTimes]] | None = None
    """Kind of sample -> chain -> times."""


METRICS = DataMetrics


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--pdb-mmcif",
        type=Path,
        required=True,
        metavar="DIR",
        help="raw mmCIF entries, as for `data_prep convert`",
    )
    parser.add_argument(
        "--open-protein-set", type=Path, required=True, metavar="DIR", help="raw alignments"
    )
    add_reference(parser, what=" (default: measure only our code)")
    parser.add_argument(
        "--chains",
        nargs="+",
        metavar="ID",
        help="chains to prepare samples from (default: all with an alignment)",
    )
    add_count(
        parser,
        "--repeats",
        default=3,
        what="timed samples of each chain and kind, after one untimed sample",
    )
    parser.add_argument("--only", choices=("conversion", "samples"), help="report only this half")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw sorted preparation times (PNG)"
    )


def measure(args: argparse.Namespace) -> DataMetrics:
    """Return the metrics. All intermediate files are in a temporary folder."""
    if args.repeats < 1:
        raise BenchmarkError(f"--repeats is {args.repeats}, expected at least 1")
    check_output_option("--picture", args.picture)
    reference = checked_reference(args)
    with tempfile.TemporaryDirectory(prefix="perf-data-") as folder, _one_thread():
        shards, processed = Path(folder, "shards"), Path(folder, "processed")
        conversion = Conversion(ours=_convert(args, shards))
        if reference is not None:
            times = reference.preprocess(
                pdb_mmcif=args.pdb_mmcif.resolve(),
                open_protein_set=args.open_protein_set.resolve(),
                out=processed,
            )
            conversion = dataclasses.replace(conversion, reference=times)
        if args.only == "conversion":
            return DataMetrics(conversion=conversion)
        samples = _measure_samples(args, shards, processed, reference)
    if args.picture is not None:
        _draw(samples["training"], args.picture)
    return DataMetrics(conversion=None if args.only == "samples" else conversion, samples=samples)


def _draw(chains: dict[str, ChainTimes], path: Path) -> None:
    ours = [chain.ours_stats.median for chain in chains.values()]
    stats = [chain.reference_stats for chain in chains.values()]
    reference = [each.median for each in stats if each is not None]
    draw_preparation_times({"reference": reference, "openfold-opt": ours}, path)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _convert(args: argparse.Namespace, out: Path) -> ConversionTimes:
    """Convert twice and return the times of the second run, when the files are in the page cache.

    Then convert once more with `data_prep convert`, which also writes the index that samples need.
    """
    for attempt in ("first", "second"):
        settings = ConversionSettings(
            pdb_mmcif=str(args.pdb_mmcif),
            open_protein_set=str(args.open_protein_set),
            out=f"{out}-{attempt}",
        )
        (metrics,) = run_probe(PROBE, settings, name="conversion")
    raw = ["--pdb-mmcif", str(args.pdb_mmcif), "--open-protein-set", str(args.open_protein_set)]
    options = ["--out", str(out), "--missing-alignments", "query"]
    command = [sys.executable, "-m", "data_prep", "convert", *raw, *options]
    subprocess.run(command, check=True, capture_output=True)
    return from_json(ConversionTimes, metrics)


def _measure_samples(
    args: argparse.Namespace, shards: Path, processed: Path, reference: Reference | None
) -> dict[str, dict[str, ChainTimes]]:
    reader = ShardReader(shards)
    known = [chain.chain_id for chain in reader.index.chains if chain.has_alignment]
    chain_ids = args.chains or known
    unknown = [chain_id for chain_id in chain_ids if chain_id not in known]
    if unknown:
        raise BenchmarkError(
            f"--chains: {', '.join(unknown)} have no structure or no alignment in these data; name "
            "chains that have both"
        )
    samples: dict[str, dict[str, ChainTimes]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for chain_id in tracked(chain_ids, what=f"our {kind} samples", unit="chain"):
            samples[kind][chain_id] = _time_ours(reader, chain_id, kind=kind, repeats=args.repeats)
    if reference is not None:
        records = reference.samples(processed, chain_ids, repeats=args.repeats)
        for record in tracked(
            records,
            what="the MLCommons reference's samples",
            unit="chain",
            total=2 * len(chain_ids),
        ):
            chains = samples[record.kind]
            chains[record.chain] = dataclasses.replace(
                chains[record.chain], reference=record.seconds, reference_bytes=record.bytes
            )
    return samples


def _time_ours(reader: ShardReader, chain_id: str, *, kind: str, repeats: int) -> ChainTimes:
    """Time the work of a loader worker, and the decoding, which a run does on its device."""
    config = DataConfig()

    def make(seed: int) -> dict[str, np.ndarray]:
        if kind == "training":
            return make_training_sample(reader, chain_id, seed=seed, config=config)
        return make_evaluation_sample(reader, chain_id, config=config)

    make(0)
    seconds, expansion = [], []
    for seed in range(1, repeats + 1):
        started = time.perf_counter()
        wire = make(seed)
        prepared = time.perf_counter()
        decode_batch(stack_samples([wire]))
        seconds.append(prepared - started)
        expansion.append(time.perf_counter() - prepared)
    entry = reader.entry(chain_id)
    return ChainTimes(
        num_rows=entry.num_alignments,
        num_residues=entry.sequence_length,
        ours=seconds,
        expansion=expansion,
        ours_bytes=sum(array.nbytes for array in wire.values()),
    )


def report(metrics: DataMetrics) -> str:
    """Format tables of conversion and samples, with ratios if the reference was measured."""
    parts = [] if metrics.conversion is None else [_report_conversion(metrics.conversion)]
    parts += [_report_samples(kind, chains) for kind, chains in (metrics.samples or {}).items()]
    return "\n\n".join(parts)


def _report_conversion(conversion: Conversion) -> str:
    ours, reference = conversion.ours, conversion.reference
    megabytes = ours.alignments_bytes / _MEGABYTE
    rows = [
        [
            name,
            f"{ours.entries / times.structures_seconds:.1f} entries/s",
            f"{megabytes / times.alignments_seconds:.1f} MB/s",
        ]
        for name, times in (("ours", ours), ("reference", reference))
        if times is not None
    ]
    if conversion.ratio is not None:
        rows.append(
            ["ratio", f"{conversion.ratio:.1f}", "(not comparable: the reference only joins files)"]
        )
    peak = ours.peak_memory_bytes / 2**20
    return (
        f"conversion of {ours.entries} entries on one core; our peak memory {peak:.0f} MiB\n\n"
        + table(rows, header=["", "structures", "alignments"])
    )


def _report_samples(kind: str, chains: dict[str, ChainTimes]) -> str:
    rows = []
    for chain_id, chain in sorted(chains.items(), key=lambda item: -item[1].num_rows):
        row = [
            chain_id,
            str(chain.num_rows),
            chain.ours_stats.text(1, scale=1e3),
            f"{1e3 * TimingStats.of(chain.expansion).median:.0f}",
            f"{chain.ours_bytes / _MEGABYTE:.2f}",
        ]
        if chain.reference_stats is None or chain.reference_bytes is None:
            row += ["", "", ""]
        else:
            row += [
                chain.reference_stats.text(1, scale=1e3),
                f"{chain.reference_bytes / _MEGABYTE:.2f}",
                chain.reference_stats.ratio_to(chain.ours_stats).text(1),
            ]
        rows.append(row)
    header = [
        "chain",
        "rows",
        "ours, ms",
        "decoding, ms",
        "ours, MB",
        "MLCommons reference, ms",
        "MLCommons reference, MB",
        "ratio of times",
    ]
    text = f"{kind} samples on one core: median (min to max)\n\n{table(rows, header=header)}"
    ratio = _ratio_over(chains)
    if ratio is not None:
        text += (
            f"\n\nratio over the chains: median {ratio.median:.1f}, min {ratio.low:.1f}, "
            f"max {ratio.high:.1f}"
        )
    return text


def _ratio_over(chains: dict[str, ChainTimes]) -> TimingStats | None:
    """Return the ratio of the reference's time to ours, over the chains that have both."""
    ratios = [
        chain.reference_stats.ratio_to(chain.ours_stats).median
        for chain in chains.values()
        if chain.reference_stats is not None
    ]
    return TimingStats.of(ratios) if ratios else None


def headline(metrics: DataMetrics) -> str:
    """Return one line with the speed of conversion and the median time of a sample."""
    parts, conversion = [], metrics.conversion
    if conversion is not None:
        speed = conversion.ours.entries / conversion.ours.structures_seconds
        text = f"structures {speed:.1f} entries/s on one core"
        if conversion.ratio is not None:
            text += f", MLCommons reference {conversion.ratio:.1f}x as long"
        parts.append(text)
    for kind, chains in (metrics.samples or {}).items():
        ours = TimingStats.of([chain.ours_stats.median for chain in chains.values()])
        text = f"{kind} sample {1e3 * ours.median:.1f} ms"
        ratio = _ratio_over(chains)
        if ratio is not None:
            text += f", MLCommons reference {ratio.median:.0f}x as long (medians)"
        parts.append(text)
    return "; ".join(parts)
