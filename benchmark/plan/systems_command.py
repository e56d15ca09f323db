"""`plan systems`: the systems that ship, with the sources of their figures."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmark.command_line import BenchmarkError, check_json_option, check_output_option
from benchmark.perf.tools.timing_stats import table
from benchmark.plan.systems import System, load_system, system_json, system_names
from benchmark.replace_file import replace_text

_HEADER = ["system", "GPU", "a node", "GB", "TB/s", "bf16 TFLOP/s", "in node", "between", "W"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("systems", nargs="*", metavar="SYSTEM", help="names or files (default: all that ship)")
    add(
        "--calibrate",
        type=Path,
        nargs="+",
        metavar="RECORD",
        help="replace assumed rates of one system by those of records of `perf kernels` and `perf "
        "comm`, and write it to --out; without a system, write one of this CPU from `perf kernels "
        "--calls`",
    )
    add("--out", type=Path, metavar="FILE", help="file of the calibrated system")
    add("--json", type=Path, metavar="FILE", help="write the systems with all figures to FILE")


def run(args: argparse.Namespace) -> int:
    """Print a table of the systems; with names, also the source of each figure."""
    check_json_option(args.json)
    check_output_option("--out", args.out)
    if args.calibrate is not None and args.out is not None and not args.systems:
        return _write_cpu_system(args)
    systems = [load_system(name) for name in args.systems or system_names()]
    if (args.calibrate is None) != (args.out is None) or (args.out and len(args.systems) != 1):
        raise BenchmarkError(
            "--calibrate RECORD... needs --out FILE and one system, such as `plan systems h100_sxm "
            "--calibrate kernels.json --out mine.json`, or no system on a CPU"
        )
    if args.calibrate is not None:
        from benchmark.plan.calibration import calibrate

        systems = [calibrate(systems[0], args.calibrate)]
        replace_text(args.out, json.dumps(system_json(systems[0]), indent=1) + "\n")
    print(table([_row(system) for system in systems], header=_HEADER))
    print("\nin node, between: GB/s of a GPU in one direction. W: a GPU's share of its node.")
    if args.systems:
        for system in systems:
            print(f"\n{system.name}")
            for name, source in system.sources.items():
                print(f"  {name}: {source}")
    if args.json is not None:
        text = json.dumps([system_json(system) for system in systems], indent=1)
        replace_text(args.json, text + "\n")
    return 0


def _write_cpu_system(args: argparse.Namespace) -> int:
    """Write the system of CPUs that the records were measured on."""
    # These import PyTorch, which the other uses of the command do not need.
    from benchmark.plan.calibration import calibrate_cpu
    from benchmark.plan.cpu_system import cpu_system_json

    system = calibrate_cpu(args.calibrate)
    text = json.dumps(cpu_system_json(system), indent=1) + "\n"
    for path in filter(None, (args.out, args.json)):
        replace_text(path, text)
    rates = system.rates
    print(
        f"{system.name}: {system.num_cores} cores, measured with {system.num_processes} processes; "
        f"a call of a small step takes {1e6 * rates.overheads[0].seconds:.1f} us besides its work"
    )
    for warning in system.warnings:
        print(f"  WARNING: {warning}")
    for name, source in system.sources.items():
        print(f"  {name}: {source}")
    return 0


def _row(system: System) -> list[str]:
    chip = system.chip
    return [
        system.name,
        chip.name,
        str(system.gpus_per_node),
        f"{chip.memory_bytes / 1e9:.0f}",
        f"{chip.bytes_per_second / 1e12:.2f}",
        f"{chip.peak.bf16 / 1e12:.0f}",
        f"{system.within_node.bytes_per_second / 1e9:.0f}",
        f"{system.between_nodes.bytes_per_second / 1e9:.0f}",
        "-" if system.power_watts is None else f"{system.power_watts:.0f}",
    ]
