"""`perf kernels`: time each operation at the shapes of training.

The baselines are its reference kernel, torch.compile of the reference, and other libraries.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools import against
from benchmark.perf.tools.kernel_cases import CaseMaker, KernelCase
from benchmark.perf.tools.kernel_peers import PEERS, attention_peers, core_leaves
from benchmark.perf.tools.limits import all_seconds, measure_copy, measure_matmul
from benchmark.perf.tools.timing_stats import TimingStats, table
from benchmark.presets import build_preset, preset_names
from data_prep.progress import tracked
from openfold_opt.kernels.compiled import compile_for_processor
from openfold_opt.kernels.interface import KernelSet
from openfold_opt.kernels.reference.attention import attention as reference_attention
from openfold_opt.kernels.select import REFERENCE, KernelConfig, build_kernel_set
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.precision import PRECISIONS, matmul_precision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        choices=preset_names(),
        help="preset for the shapes (default: mlperf_reference on a GPU, middle on a CPU)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="default: bf16 on a GPU, fp32 on a CPU"
    )
    parser.add_argument(
        "--only",
        metavar="TEXT",
        default="",
        help="only cases whose operation or location contains TEXT",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="PEER",
        choices=PEERS,
        help=f"attentions of other libraries to skip, of {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=20,
        metavar="N",
        help="timed runs of each kernel (default: 20)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="also measure torch.compile of the reference kernels; compiling takes a minute or two",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="RECORD|CHECKOUT",
        help=(
            "other kernels to compare with: a record of this command, or another checkout, whose "
            "kernels run in a separate process, alternating with ours"
        ),
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        metavar="N",
        help="rounds in which our kernels and those of a checkout alternate (default: 2)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="PyTorch CPU threads (default: 1)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time forward, and forward plus backward, of every case, and measure the machine's limits.

    The record is saved after every case. "failures" has a line for each case in which our kernel or
    the reference fails.
    """
    if min(args.repeats, args.threads, args.rounds) < 1:
        raise BenchmarkError("--repeats, --threads and --rounds must be at least 1")
    device = resolve_device("auto", local_rank=0)
    torch.set_num_threads(args.threads)
    metrics = _settings(args, device)
    precision = metrics["precision"]
    config = build_preset(metrics["preset"])
    shapes = config.model.kernel_shapes()
    try:
        ours = build_kernel_set(KernelConfig.all("auto"), device, shapes, precision=precision)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    recorded = None if args.against is None else against.check(args.against, metrics)
    metrics["copy_bytes_per_second"] = measure_copy(device=device)
    metrics["matmul_flops_per_second"] = measure_matmul(
        precision, device=device.type, threads=args.threads
    )
    args.record.save(metrics)
    maker = CaseMaker(config, device=device, precision=precision)
    with matmul_precision(precision):
        for case in tracked(_chosen(maker, args.only), what="kernels", unit="case"):
            result = _measure_case(case, getattr(ours, case.operation), args, device)
            _add_case(result, metrics, args)
            if case.attention is not None:
                _add_case(_measure_attention_core(case, args, device), metrics, args)
    if not metrics["cases"]:
        raise BenchmarkError(
            f"--only {args.only}: no operation or location contains this text; without --only all "
            "cases run"
        )
    if recorded is not None:
        metrics["against"] = recorded.source
        against.add_times(recorded, metrics["cases"])
    elif args.against is not None:
        metrics["against"] = str(args.against)
        with matmul_precision(precision):
            _alternate(ours, maker, metrics, args)
    return metrics


def _settings(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Return the metrics that are known before the first case."""
    on_gpu = device.type == "cuda"
    return {
        "preset": args.preset or ("mlperf_reference" if on_gpu else "middle"),
        "precision": args.precision or ("bf16" if on_gpu else "fp32"),
        "device": str(device),
        "cases": [],
        "failures": [],
    }


def _alternate(
    ours: KernelSet, maker: CaseMaker, metrics: dict[str, Any], args: argparse.Namespace
) -> None:
    """Alternate the other checkout's kernels with ours, which have already run once."""
    device = torch.device(metrics["device"])
    options = ["--preset", metrics["preset"], "--precision", metrics["precision"]]
    options += ["--only", args.only]
    options += ["--repeats", str(args.repeats), "--threads", str(args.threads)]
    options += ["--without", *PEERS]
    by_name = {(case["operation"], case["where"]): case for case in metrics["cases"]}
    for number in range(args.rounds):
        for case in _chosen(maker, args.only) if number else ():
            work = case.call(getattr(ours, case.operation))
            works = {"ours": lambda work=work, leaves=case.leaves: work(*leaves)}
            repeated = _time_sides(works, case.leaves, args.repeats, device)
            before = by_name[case.operation, case.where]["seconds"]
            if "ours" in before.keys() & repeated["seconds"].keys():
                against.extend(before["ours"], repeated["seconds"]["ours"])
        if device.type == "cuda":
            torch.cuda.empty_cache()
        theirs = against.measure_checkout(args.against, options, metrics)
        against.add_times(theirs, metrics["cases"])
        args.record.save(metrics)


def _chosen(maker: CaseMaker, only: str) -> Iterator[KernelCase]:
    return (case for case in maker.cases() if only in case.operation or only in case.where)


def _add_case(case: dict[str, Any], metrics: dict[str, Any], args: argparse.Namespace) -> None:
    """Add a case to the record, and a failure if our kernel or the reference has no time."""
    metrics["cases"].append(case)
    for side in ("ours", "plain"):
        if side in case["unavailable"]:
            reason = case["unavailable"][side]
            metrics["failures"].append(f"{case['operation']} ({case['where']}), {side}: {reason}")
    args.record.save(metrics)


def _measure_case(
    case: KernelCase, ours: Callable, args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    reference = case.call(REFERENCE[case.operation])
    sides = {"ours": case.call(ours), "plain": reference}
    if args.compile:
        # Compilations of earlier cases count toward Dynamo's recompilation limit.
        torch._dynamo.reset()
        sides["compiled"] = compile_for_processor(reference, fullgraph=True)
    works = {name: lambda call=call: call(*case.leaves) for name, call in sides.items()}
    return {"operation": case.operation, "where": case.where} | _time_sides(
        works, case.leaves, args.repeats, device
    )


def _measure_attention_core(
    case: KernelCase, args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """Time attention without the projections, which other libraries do not have."""
    torch._dynamo.reset()
    sizes, dtype = case.attention, case.leaves[0].dtype
    projected, bias = core_leaves(sizes, dtype=dtype, device=device)
    mask = torch.ones(sizes.batch, sizes.groups, sizes.length, device=device)
    options = {"num_heads": sizes.num_heads, "mask": mask, "mask_inf": 1e9, "bias": bias}
    peers = attention_peers(sizes, projected, bias)
    peers = {name: work for name, work in peers.items() if name not in args.without}
    works = {"plain": lambda: reference_attention(projected, **options)} | peers
    if device.type == "cuda":
        fused = importlib.import_module("openfold_opt.kernels.triton.attention.attention").attention
        works = {"ours": lambda: fused(projected, **options)} | works
    leaves = (projected,) if bias is None else (projected, bias)
    return {"operation": "attention core", "where": case.where} | _time_sides(
        works, leaves, args.repeats, device
    )


def _time_sides(
    works: dict[str, Callable], leaves: tuple[Tensor, ...], repeats: int, device: torch.device
) -> dict[str, Any]:
    """Time each implementation.

    Returns:
        "seconds": times by name. "unavailable": name -> error. "bytes": the least bytes that have
        to move: inputs, outputs and their gradients, once each.
    """
    result: dict[str, Any] = {"seconds": {}, "unavailable": {}}
    for name, work in works.items():
        try:
            result["bytes"], result["seconds"][name] = _time_side(work, leaves, repeats, device)
        except Exception as error:
            # An error in one implementation must not lose the times of the others.
            result["unavailable"][name] = (
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
    return result


def _time_side(
    work: Callable, leaves: tuple[Tensor, ...], repeats: int, device: torch.device
) -> tuple[dict[str, int], dict[str, list[float]]]:
    results = work()
    results = results if isinstance(results, tuple) else (results,)
    weights = [torch.randn_like(x) for x in results]
    inputs, outputs = sum(x.nbytes for x in leaves), sum(x.nbytes for x in results)
    del results

    def both() -> None:
        results = work()
        torch.autograd.grad(results, leaves, weights if isinstance(results, tuple) else weights[0])

    with torch.no_grad():
        forward = all_seconds(work, device=device, repeats=repeats)
    times = {"forward": forward, "both": all_seconds(both, device=device, repeats=repeats)}
    return {"forward": inputs + outputs, "both": 3 * inputs + 2 * outputs}, times


def report(metrics: dict[str, Any]) -> str:
    """Format a row for each case: our time, share of copy bandwidth, times of the others."""
    sides = [name for case in metrics["cases"] for name in case["seconds"]]
    others = [name for name in dict.fromkeys(sides) if name != "ours"]
    rows, remarks = [], []
    for case in metrics["cases"]:
        remarks += [
            f"{case['operation']} ({case['where']}): no {name}: {why}"
            for name, why in case["unavailable"].items()
        ]
        for direction in ("forward", "both"):
            stats_of = {
                name: TimingStats.of(times[direction]) for name, times in case["seconds"].items()
            }
            base = stats_of.get("ours")
            cells = ["", ""]
            if base is not None:
                share = case["bytes"][direction] / base.median / metrics["copy_bytes_per_second"]
                cells = [
                    f"{1e3 * base.median:.3f} ({1e3 * base.low:.3f} to {1e3 * base.high:.3f})",
                    f"{share:.0%}",
                ]
            for name in others:
                stats = stats_of.get(name)
                text = "" if stats is None else f"{1e3 * stats.median:.3f} ms"
                cells.append(
                    f"{stats.ratio_to(base).median:.2f}x"
                    if stats is not None and base is not None
                    else text
                )
            label = "forward" if direction == "forward" else "and backward"
            rows.append([f"{case['operation']}, {case['where']}, {label}", *cells])
    limits = (
        f"{metrics['preset']} in {metrics['precision']} on {metrics['device']}; copy "
        f"{metrics['copy_bytes_per_second'] / 1e9:.1f} GB/s, matrix product "
        f"{metrics['matmul_flops_per_second'] / 1e12:.2f} TFLOP/s. 'of copy' is the share of the "
        "copy bandwidth, for the least bytes that have to move."
    )
    if "against" in metrics:
        limits += f"\nagainst: the kernels of {metrics['against']}"
    return "\n".join(
        [limits, "", table(rows, header=["operation", "ours, ms", "of copy", *others]), *remarks]
    )
