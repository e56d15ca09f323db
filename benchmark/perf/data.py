"""`perf data`: time conversion and sample preparation on one core, and the MLCommons reference's.

Both run on the same raw files in the same session.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.mlcommons_reference import Reference
from benchmark.perf.tools.picture import draw_preparation_times
from benchmark.perf.tools.timing_stats import TimingStats, table
from data_prep.progress import tracked
from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.sample import make_evaluation_sample, make_training_sample
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.protein.reader import ShardReader

KINDS = ("training", "evaluation")
_MEGABYTE = 1e6


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
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="CHECKOUT",
        help="folder openfold of a checkout of mlcommons/hpc (default: measure only our code)",
    )
    parser.add_argument(
        "--reference-python",
        default=sys.executable,
        metavar="PYTHON",
        help=(
            "interpreter that can import the packages of the MLCommons reference (default: this "
            "one)"
        ),
    )
    parser.add_argument(
        "--chains",
        nargs="+",
        metavar="ID",
        help="chains to prepare samples from (default: all with an alignment)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=3,
        metavar="N",
        help="timed samples of each chain and kind, after one untimed sample (default: 3)",
    )
    parser.add_argument("--only", choices=("conversion", "samples"), help="report only this half")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="draw sorted preparation times (PNG)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the metrics. All intermediate files are in a temporary folder."""
    if args.repeats < 1:
        raise BenchmarkError(f"--repeats is {args.repeats}, expected at least 1")
    reference = None
    if args.reference is not None:
        reference = Reference(checkout=args.reference.resolve(), python=args.reference_python)
        reference.check()
    with tempfile.TemporaryDirectory(prefix="perf-data-") as folder, _one_thread():
        shards, processed = Path(folder, "shards"), Path(folder, "processed")
        metrics: dict[str, Any] = {"conversion": {"ours": _convert(args, shards)}}
        if reference is not None:
            metrics["conversion"]["reference"] = reference.process(
                pdb_mmcif=args.pdb_mmcif.resolve(),
                open_protein_set=args.open_protein_set.resolve(),
                out=processed,
            )
        if args.only == "conversion":
            return metrics
        metrics["samples"] = _measure_samples(args, shards, processed, reference)
    if args.only == "samples":
        del metrics["conversion"]
    if args.picture is not None:
        draw_preparation_times(metrics["samples"], args.picture)
    return metrics


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _convert(args: argparse.Namespace, out: Path) -> dict[str, float]:
    """Convert twice and return the times of the second run, when the files are in the page cache.

    Then convert once more with the index, which the samples need.
    """
    command = [
        sys.executable,
        "-m",
        "benchmark.perf.subprocesses.conversion_probe",
        str(args.pdb_mmcif),
        str(args.open_protein_set),
    ]
    for attempt in ("first", "second"):
        finished = subprocess.run(
            [*command, f"{out}-{attempt}"], stdout=subprocess.PIPE, text=True, check=False
        )
        if finished.returncode != 0:
            raise BenchmarkError(
                f"conversion ended with exit code {finished.returncode}; see its messages above"
            )
    raw = ["--pdb-mmcif", str(args.pdb_mmcif), "--open-protein-set", str(args.open_protein_set)]
    whole = [
        sys.executable,
        "-m",
        "data_prep",
        "convert",
        *raw,
        "--out",
        str(out),
        "--missing-alignments",
        "query",
    ]
    subprocess.run(whole, check=True, capture_output=True)
    return json.loads(finished.stdout)


def _measure_samples(
    args: argparse.Namespace, shards: Path, processed: Path, reference: Reference | None
) -> dict[str, Any]:
    reader = ShardReader(shards)
    known = [chain.chain_id for chain in reader.index.chains if chain.has_alignment]
    chain_ids = args.chains or known
    unknown = [chain_id for chain_id in chain_ids if chain_id not in known]
    if unknown:
        raise BenchmarkError(
            f"--chains: {', '.join(unknown)} have no structure or no alignment in these data; name "
            "chains that have both"
        )
    samples: dict[str, Any] = {kind: {} for kind in KINDS}
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
            entry = samples[record["kind"]][record["chain"]]
            entry["reference"], entry["reference_bytes"] = record["seconds"], record["bytes"]
    return samples


def _time_ours(reader: ShardReader, chain_id: str, *, kind: str, repeats: int) -> dict[str, Any]:
    """Time the work of a loader worker, and the decoding, which a run does on its device."""
    config = DataConfig()

    def make(seed: int):
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
    return {
        "num_rows": entry.num_alignments,
        "num_residues": entry.sequence_length,
        "ours": seconds,
        "expansion": expansion,
        "ours_bytes": sum(array.nbytes for array in wire.values()),
    }


def report(metrics: dict[str, Any]) -> str:
    """Format tables of conversion and samples, with ratios if the reference was measured."""
    parts = []
    if "conversion" in metrics:
        parts.append(_report_conversion(metrics["conversion"]))
    if "samples" in metrics:
        parts.extend(_report_samples(kind, chains) for kind, chains in metrics["samples"].items())
    return "\n\n".join(parts)


def _report_conversion(conversion: dict[str, Any]) -> str:
    ours, reference = conversion["ours"], conversion.get("reference")
    entries, megabytes = ours["entries"], ours["alignments_bytes"] / _MEGABYTE
    rows = []
    for name, times in (("ours", ours), ("reference", reference)):
        if times is not None:
            rows.append(
                [
                    name,
                    f"{entries / times['structures_seconds']:.1f} entries/s",
                    f"{megabytes / times['alignments_seconds']:.1f} MB/s",
                ]
            )
    if reference is not None:
        rows.append(
            [
                "ratio",
                f"{reference['structures_seconds'] / ours['structures_seconds']:.1f}",
                "(the reference only joins files)",
            ]
        )
    peak = ours["peak_memory_bytes"] / 2**20
    return (
        f"conversion of {entries} entries on one core; our peak memory {peak:.0f} MiB\n\n"
        + table(rows, header=["", "structures", "alignments"])
    )


def _report_samples(kind: str, chains: dict[str, Any]) -> str:
    rows, ratios = [], []
    for chain_id, chain in sorted(chains.items(), key=lambda item: -item[1]["num_rows"]):
        ours = TimingStats.of(chain["ours"])
        row = [
            chain_id,
            str(chain["num_rows"]),
            _milliseconds(ours),
            f"{statistics.median(chain['expansion']) * 1000:.0f}",
            f"{chain['ours_bytes'] / _MEGABYTE:.2f}",
        ]
        if "reference" in chain:
            theirs = TimingStats.of(chain["reference"])
            ratio = theirs.ratio_to(ours)
            ratios.append(ratio.median)
            row += [
                _milliseconds(theirs),
                f"{chain['reference_bytes'] / _MEGABYTE:.2f}",
                f"{ratio.median:.1f} ({ratio.low:.1f} to {ratio.high:.1f})",
            ]
        else:
            row += ["", "", ""]
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
    if ratios:
        text += (
            f"\n\nratio over the chains: median {statistics.median(ratios):.1f}, min "
            f"{min(ratios):.1f}, max {max(ratios):.1f}"
        )
    return text


def _milliseconds(stats: TimingStats) -> str:
    return f"{stats.median * 1000:.1f} ({stats.low * 1000:.1f} to {stats.high * 1000:.1f})"
