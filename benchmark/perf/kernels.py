"""`perf kernels`: each operation at the shapes of training against its plain version, torch.compile of that, and other libraries."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import BenchmarkError
from benchmark.perf import against
from benchmark.perf.kernel_cases import CaseMaker, KernelCase
from benchmark.perf.kernel_peers import PEERS, attention_peers, core_leaves
from benchmark.perf.limits import all_seconds, measure_copy, measure_matmul
from benchmark.perf.timing_stats import TimingStats, table
from benchmark.presets import build_preset, preset_names
from data_prep.progress import tracked
from openfold_opt.kernels.compiled import compile_for_processor
from openfold_opt.kernels.interface import KernelSet
from openfold_opt.kernels.reference.attention import attention as plain_attention
from openfold_opt.kernels.select import REFERENCE, KernelConfig, build_kernel_set
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.precision import PRECISIONS, matmul_precision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--preset",
        choices=preset_names(),
        help="whose shapes (default: mlperf_reference on a GPU, middle on a CPU)",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="default: bf16 on a GPU, fp32 on a CPU"
    )
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="cases whose operation or place contains this"
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="PEER",
        choices=PEERS,
        help=f"attentions to leave out, of {', '.join(PEERS)}",
    )
    parser.add_argument(
        "--repeats", type=int, default=20, metavar="N", help="timed runs of each (default: 20)"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile of the plain version too: a minute or two of compiling",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="RECORD|CHECKOUT",
        help="other kernels to compare ours with: a record of this command, or another checkout, whose kernels run in their own process, "
        "alternating with ours",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        metavar="N",
        help="how often our kernels and those of a checkout take turns (default: 2)",
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of PyTorch on a CPU (default: 1)"
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of forward, and of forward and backward, by case and side; limits of the machine.

    The record is saved after every case. A case in which our kernel or the plain version fails is a
    line of "failures".
    """
    if min(args.repeats, args.threads, args.rounds) < 1:
        raise BenchmarkError("--repeats, --threads and --rounds must be at least 1")
    device = resolve_device("auto", local_rank=0)
    torch.set_num_threads(args.threads)
    figures = _settings(args, device)
    precision = figures["precision"]
    config = build_preset(figures["preset"])
    shapes = config.model.kernel_shapes()
    try:
        ours = build_kernel_set(KernelConfig.all("auto"), device, shapes, precision=precision)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    recorded = None if args.against is None else against.check(args.against, figures)
    figures["copy_bytes_per_second"] = measure_copy(device=device)
    figures["matmul_flops_per_second"] = measure_matmul(
        precision, device=device.type, threads=args.threads
    )
    args.record.save(figures)
    maker = CaseMaker(config, device=device, precision=precision)
    with matmul_precision(precision):
        for case in tracked(_chosen(maker, args.only), what="kernels", unit="case"):
            found = _measure_case(case, getattr(ours, case.operation), args, device)
            _keep(found, figures, args)
            if case.attention is not None:
                _keep(_measure_attention_core(case, args, device), figures, args)
    if not figures["cases"]:
        raise BenchmarkError(f"--only {args.only}: no operation and no place contains this")
    if recorded is not None:
        figures["against"] = recorded.source
        against.add_times(recorded, figures["cases"])
    elif args.against is not None:
        figures["against"] = str(args.against)
        with matmul_precision(precision):
            _take_turns(ours, maker, figures, args)
    return figures


def _settings(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The figures before the first one."""
    on_gpu = device.type == "cuda"
    return {
        "preset": args.preset or ("mlperf_reference" if on_gpu else "middle"),
        "precision": args.precision or ("bf16" if on_gpu else "fp32"),
        "device": str(device),
        "cases": [],
        "failures": [],
    }


def _take_turns(
    ours: KernelSet, maker: CaseMaker, figures: dict[str, Any], args: argparse.Namespace
) -> None:
    """Let the other checkout's kernels and ours run by turns. Our first turn is over."""
    device = torch.device(figures["device"])
    options = ["--preset", figures["preset"], "--precision", figures["precision"]]
    options += ["--only", args.only]
    options += ["--repeats", str(args.repeats), "--threads", str(args.threads)]
    options += ["--without", *PEERS]
    by_name = {(case["operation"], case["where"]): case for case in figures["cases"]}
    for number in range(args.rounds):
        for case in _chosen(maker, args.only) if number else ():
            work = case.call(getattr(ours, case.operation))
            works = {"ours": lambda work=work, leaves=case.leaves: work(*leaves)}
            again = _time_sides(works, case.leaves, args.repeats, device)
            before = by_name[case.operation, case.where]["seconds"]
            if "ours" in before.keys() & again["seconds"].keys():
                against.extend(before["ours"], again["seconds"]["ours"])
        if device.type == "cuda":
            torch.cuda.empty_cache()
        theirs = against.measure_checkout(args.against, options, figures)
        against.add_times(theirs, figures["cases"])
        args.record.save(figures)


def _chosen(maker: CaseMaker, only: str) -> Iterator[KernelCase]:
    return (case for case in maker.cases() if only in case.operation or only in case.where)


def _keep(case: dict[str, Any], figures: dict[str, Any], args: argparse.Namespace) -> None:
    """Add a case to the record. It is a failure if our kernel or the plain version has no time."""
    figures["cases"].append(case)
    for side in ("ours", "plain"):
        if side in case["unavailable"]:
            reason = case["unavailable"][side]
            figures["failures"].append(f"{case['operation']} ({case['where']}), {side}: {reason}")
    args.record.save(figures)


def _measure_case(
    case: KernelCase, ours: Callable, args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    plain = case.call(REFERENCE[case.operation])
    sides = {"ours": case.call(ours), "plain": plain}
    if args.compile:
        # what earlier cases compiled counts toward a limit beyond which nothing is compiled any more
        torch._dynamo.reset()
        sides["compiled"] = compile_for_processor(plain, fullgraph=True)
    works = {name: lambda call=call: call(*case.leaves) for name, call in sides.items()}
    return {"operation": case.operation, "where": case.where} | _time_sides(
        works, case.leaves, args.repeats, device
    )


def _measure_attention_core(
    case: KernelCase, args: argparse.Namespace, device: torch.device
) -> dict[str, Any]:
    """Without the projections, which the peers leave out too."""
    torch._dynamo.reset()
    sizes, dtype = case.attention, case.leaves[0].dtype
    projected, bias = core_leaves(sizes, dtype=dtype, device=device)
    mask = torch.ones(sizes.batch, sizes.groups, sizes.length, device=device)
    options = {"num_heads": sizes.num_heads, "mask": mask, "mask_inf": 1e9, "bias": bias}
    peers = attention_peers(sizes, projected, bias)
    peers = {name: work for name, work in peers.items() if name not in args.without}
    works = {"plain": lambda: plain_attention(projected, **options)} | peers
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
    """Times by side, and the bytes that have to move whatever is done: inputs, results, and their gradients once each."""
    found: dict[str, Any] = {"seconds": {}, "unavailable": {}}
    for name, work in works.items():
        try:
            found["bytes"], found["seconds"][name] = _time_side(work, leaves, repeats, device)
        except Exception as error:
            # Whatever a side raises is recorded, and does not lose the figures of the others.
            found["unavailable"][name] = (
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
    return found


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


def report(figures: dict[str, Any]) -> str:
    """A row for each case and way: our time, share of the copy bandwidth, and how many times longer the others take."""
    sides = [name for case in figures["cases"] for name in case["seconds"]]
    others = [name for name in dict.fromkeys(sides) if name != "ours"]
    rows, remarks = [], []
    for case in figures["cases"]:
        remarks += [
            f"{case['operation']} ({case['where']}): no {name}: {why}"
            for name, why in case["unavailable"].items()
        ]
        for way in ("forward", "both"):
            timing_stats_of = {
                name: TimingStats.of(times[way]) for name, times in case["seconds"].items()
            }
            base = timing_stats_of.get("ours")
            cells = ["", ""]
            if base is not None:
                share = case["bytes"][way] / base.median / figures["copy_bytes_per_second"]
                cells = [
                    f"{1e3 * base.median:.3f} ({1e3 * base.low:.3f} to {1e3 * base.high:.3f})",
                    f"{share:.0%}",
                ]
            for name in others:
                timing_stats = timing_stats_of.get(name)
                text = "" if timing_stats is None else f"{1e3 * timing_stats.median:.3f} ms"
                cells.append(
                    f"{timing_stats.ratio_to(base).median:.2f}x"
                    if timing_stats is not None and base is not None
                    else text
                )
            rows.append(
                [
                    f"{case['operation']}, {case['where']}, {'forward' if way == 'forward' else 'and backward'}",
                    *cells,
                ]
            )
    limits = (
        f"{figures['preset']} in {figures['precision']} on {figures['device']}; copy {figures['copy_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"matrix product {figures['matmul_flops_per_second'] / 1e12:.2f} TFLOP/s. The share is of the least bytes that have to move."
    )
    if "against" in figures:
        limits += f"\nagainst: the kernels of {figures['against']}"
    return "\n".join(
        [limits, "", table(rows, header=["operation", "ours, ms", "of copy", *others]), *remarks]
    )
