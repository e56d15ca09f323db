"""`preflight`: check data, checkpoint, disk, nodes and GPUs before a run."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.command_line import (
    BenchmarkError,
    add_data_dir_option,
    add_distillation_option,
    real_number,
    whole_number,
)
from benchmark.finding import FAIL, Finding
from benchmark.plan.time_limit import read_time_limit
from benchmark.preflight.capture import check_capture
from benchmark.preflight.job_checks import (
    check_checkpoint,
    check_data,
    check_ranks,
    check_space,
    needed_bytes,
)
from benchmark.preflight.limit_check import RunPrediction, check_time_limit, predict_run
from benchmark.preflight.node_checks import (
    ExpectedAccelerators,
    check_accelerators,
    check_environment,
    check_output,
    check_shards,
    find_accelerators,
)
from benchmark.preflight.rendezvous import Answer, Rendezvous, check_answers, check_bandwidth
from benchmark.presets import build_preset, fit_preset, preset_names
from openfold_opt.parallel.launch import LaunchInfo, read_launch_info
from openfold_opt.train.build_run import resolve_device
from openfold_opt.train.config import RunConfig
from openfold_opt.train.global_batch import check_global_batch
from openfold_opt.train.phases import find_phase, phases_of

MAX_NAMED_HOSTS = 8
"""Largest number of hosts to name in a line of output."""


def add_parser(subparsers) -> None:
    """Declare the command line of `preflight`."""
    parser = subparsers.add_parser(
        "preflight",
        help="check data, checkpoint, disk, nodes and GPUs before a run",
        description="Check the index of the data set, the record of `data_prep verify`, the "
        "initial checkpoint, environment, free space and GPUs; capture a CUDA graph if the preset "
        "uses any; check that all ranks answer, and measure the bandwidth between them. Start it "
        "on all ranks like the run (srun, torchrun). It prints a line for each check and reads no "
        "shard. "
        "The exit code is 0 if all checks pass, else 1.",
    )
    parser.add_argument(
        "--preset",
        required=True,
        metavar="P",
        help=f"path of a file, or one of: {', '.join(preset_names())}",
    )
    add_data_dir_option(parser)
    add_distillation_option(parser)
    parser.add_argument(
        "--output-dir",
        required=True,
        type=Path,
        metavar="O",
        help="directory in which the runs will write",
    )
    parser.add_argument("--init-checkpoint", type=Path, metavar="F", help="weights to start from")
    parser.add_argument(
        "--phase",
        metavar="NAME",
        help="check the ranks for this phase of a preset with phases, by its name or number "
        "(default: for all phases)",
    )
    _add_requirements(parser)
    _add_limit(parser)


def _add_requirements(parser: argparse.ArgumentParser) -> None:
    """Declare the requirements on the machine."""
    parser.add_argument(
        "--runs",
        type=whole_number(1, 10_000),
        default=1,
        metavar="N",
        help="number of runs that need space (default: 1)",
    )
    parser.add_argument(
        "--gpus-per-node",
        type=whole_number(0, 1_000),
        default=0,
        metavar="N",
        help="required number of GPUs of each node (default: 0)",
    )
    parser.add_argument(
        "--gpu-name",
        default="",
        metavar="TEXT",
        help="required part of each GPU's name (default: any)",
    )
    parser.add_argument(
        "--gpu-memory-gib",
        type=real_number(at_least=0),
        default=0.0,
        metavar="X",
        help="required memory of each GPU in GiB",
    )
    parser.add_argument(
        "--min-all-reduce-gb-s",
        type=real_number(at_least=0),
        default=0.0,
        metavar="X",
        help="required send rate of each rank in an all-reduce, in 1e9 bytes per second",
    )
    parser.add_argument(
        "--timeout-seconds",
        type=real_number(more_than=0),
        default=180.0,
        metavar="S",
        help="limit for the answers of all ranks, and for the capture of a CUDA graph "
        "(default: 180)",
    )


def _add_limit(parser: argparse.ArgumentParser) -> None:
    """Declare what the check of the time limit needs."""
    parser.add_argument(
        "--time-limit",
        metavar="T",
        help="time limit of the job in a format of sbatch --time; warn if it is too short for "
        "all runs (default: not checked)",
    )
    parser.add_argument(
        "--rounds",
        type=whole_number(1, 10_000),
        metavar="N",
        help="runs that follow one another in the job, for --time-limit (default: --runs)",
    )
    parser.add_argument(
        "--predicted-run-seconds",
        type=real_number(more_than=0),
        metavar="S",
        help="predicted time of a run, for --time-limit, as `plan slurm` writes it (default: "
        "predicted for the GPUs of this node)",
    )


def run(args: argparse.Namespace) -> int:
    """Make the checks; called on every rank, and the first one prints. Return the exit code."""
    config = fit_preset(args.preset, build_preset(args.preset), args.data_dir)
    try:
        if args.phase is not None:
            config = find_phase(config, args.phase).config
        if args.time_limit is not None:
            read_time_limit(args.time_limit)
        launch = read_launch_info()
        rendezvous = Rendezvous(launch, timeout_seconds=args.timeout_seconds)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    own = Answer(host=platform.node(), findings=tuple(_node_findings(args, config, launch)))
    if launch.rank == 0:
        return _first_rank(args, config, launch, rendezvous, own)
    rendezvous.publish(own)
    try:
        measures_bandwidth = rendezvous.read_decision()
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
    if measures_bandwidth:
        rendezvous.all_reduce_gb_per_second(
            resolve_device(config.device, local_rank=launch.local_rank)
        )
    rendezvous.leave()
    return 0


def _node_findings(
    args: argparse.Namespace, config: RunConfig, launch: LaunchInfo
) -> list[Finding]:
    """Return the findings of this node on its first rank, else an empty list."""
    if launch.local_rank != 0:
        return []
    expected = ExpectedAccelerators(
        count=args.gpus_per_node, name=args.gpu_name, memory_gib=args.gpu_memory_gib
    )
    accelerators = find_accelerators()
    findings = [
        check_environment(config),
        check_shards(args.data_dir),
        *(
            [check_shards(args.distillation_data_dir, subject="distillation shards")]
            if args.distillation_data_dir is not None
            else []
        ),
        check_output(args.output_dir),
        check_accelerators(accelerators, expected, device=config.device),
    ]
    # Without --phase, the graphs of the first phase are tried.
    first = phases_of(config)[0].config
    try:
        fitted = check_global_batch(first, launch.world_size)
    except ValueError:
        # check_ranks reports this error.
        fitted = first
    findings.append(
        check_capture(
            fitted,
            args.preset,
            phase=args.phase,
            num_gpus=len(accelerators.names),
            timeout_seconds=args.timeout_seconds,
        )
    )
    return findings


def _first_rank(
    args: argparse.Namespace,
    config: RunConfig,
    launch: LaunchInfo,
    rendezvous: Rendezvous,
    own: Answer,
) -> int:
    """Check the job, collect the answers of all ranks, print, and return the exit code."""
    job = [
        check_ranks(config, launch.world_size),
        *check_data(config, args.data_dir, args.distillation_data_dir),
        check_checkpoint(config, args.init_checkpoint),
    ]
    job.append(check_space(args.output_dir, needed_bytes(config, args.runs)))
    job += _limit_findings(args, launch)
    answers = rendezvous.collect(own)
    job.append(check_answers(answers, launch))
    nodes: dict[str, list[Finding]] = {}
    for answer in answers.values():
        nodes.setdefault(answer.host, []).extend(answer.findings)
    job += _check_equal_nodes(nodes)
    of_nodes = [finding for findings in nodes.values() for finding in findings]
    has_passed = all(finding.passed for finding in [*job, *of_nodes])
    if has_passed and launch.world_size > 1:
        job.append(_measure(args, config, launch, rendezvous))
        has_passed = job[-1].passed
    else:
        rendezvous.decide(False)
    for line in [*lines_by_host({"": job}), *lines_by_host(nodes)]:
        print(line, flush=True)
    # A rank that did not answer does not leave either, so it is not waited for.
    if len(answers) == launch.world_size:
        rendezvous.leave()
    if has_passed:
        print("preflight: all checks passed", flush=True)
        return 0
    print("preflight failed: see FAIL lines above", file=sys.stderr, flush=True)
    return 1


def _limit_findings(args: argparse.Namespace, launch: LaunchInfo) -> list[Finding]:
    """Check the time limit, if there is one."""
    if args.time_limit is None:
        return []
    if args.predicted_run_seconds is None:
        prediction = predict_run(
            find_phase(build_preset(args.preset), args.phase or "1"),
            find_accelerators().names,
            num_ranks=launch.world_size,
            preset=args.preset,
        )
    else:
        source = "PREDICTED_RUN_SECONDS of the configuration"
        prediction = RunPrediction(seconds=args.predicted_run_seconds, source=source)
    finding = check_time_limit(
        args.time_limit,
        prediction,
        num_runs=args.runs if args.rounds is None else args.rounds,
        is_phase=args.phase is not None,
    )
    return [finding]


def _measure(
    args: argparse.Namespace, config: RunConfig, launch: LaunchInfo, rendezvous: Rendezvous
) -> Finding:
    """Measure the bandwidth together with all other ranks, and check it."""
    device = resolve_device(config.device, local_rank=launch.local_rank)
    rendezvous.decide(True)
    rate = rendezvous.all_reduce_gb_per_second(device)
    return check_bandwidth(
        rate, args.min_all_reduce_gb_s, backend="nccl" if device.type == "cuda" else "gloo"
    )


def _check_equal_nodes(nodes: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Return failures for versions and for shards that differ between nodes."""
    failures = []
    for name in ("environment", "shards"):
        texts = {
            host: finding.text
            for host, findings in nodes.items()
            for finding in findings
            if finding.subject == name and finding.passed
        }
        first = next(iter(texts.values()), "")
        different = [host for host, text in texts.items() if text != first]
        if different:
            text = (
                f"{', '.join(different[:MAX_NAMED_HOSTS])} differ from {next(iter(texts))} in "
                f"{name} (see below); all nodes must see the same files"
            )
            failures.append(Finding(state=FAIL, subject="nodes alike", text=text))
    return failures


def lines_by_host(findings: Mapping[str, Sequence[Finding]]) -> list[str]:
    """Return a line per finding, with the names of the hosts unless all hosts have it.

    findings: host name -> findings of this node.
    """
    by_line: dict[Finding, list[str]] = {}
    for host, found in findings.items():
        for finding in found:
            hosts = by_line.setdefault(finding, [])
            if host not in hosts:
                hosts.append(host)
    lines = []
    for finding, hosts in by_line.items():
        more = ", ..." if len(hosts) > MAX_NAMED_HOSTS else ""
        named = f" [{', '.join(hosts[:MAX_NAMED_HOSTS])}{more}]"
        where = "" if len(hosts) == len(findings) else named
        lines.append(f"{finding.state} {finding.subject}{where}: {finding.text}")
    return lines
