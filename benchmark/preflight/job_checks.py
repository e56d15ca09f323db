"""Checks that the first rank makes for the whole job, on files that all nodes share."""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmark.finding import FAIL, PASS, Finding
from benchmark.mlperf.dry_run_log import count_parameters
from benchmark.mlperf.rules import preset_division
from openfold_opt.parallel.context import count_training_ranks
from openfold_opt.protein.index import ShardIndex, verified_checksum
from openfold_opt.protein.shard_format import sha256_of_file
from openfold_opt.train.build_run import CHECKPOINT_FOLDER
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig, CheckpointStore
from openfold_opt.train.config import RunConfig
from openfold_opt.train.dataset_split import count_chains, validate_counts
from openfold_opt.train.distillation_set import check_distillation, open_distillation
from openfold_opt.train.global_batch import check_global_batch
from openfold_opt.train.phases import phases_of

BYTES_PER_PARAMETER = 16
"""Bytes of a checkpoint per parameter: float32 weights, two moments, running average."""
LOG_BYTES_PER_RUN = 64 * 2**20
"""Limit for logs and curves of one run; those of the demo are below 10 MiB."""


def check_ranks(config: RunConfig, num_ranks: int) -> Finding:
    """Check that the preset can use this number of ranks, and report the global batch size.

    All phases of a run with several phases are checked.
    """
    texts = []
    for phase in phases_of(config):
        name = f"{phase.title}: " if phase.count > 1 else ""
        try:
            texts.append(name + describe_ranks(phase.config, num_ranks))
        except ValueError as error:
            return Finding(
                state=FAIL,
                subject="ranks",
                text=f"{name}{error}; or choose a preset made for {num_ranks} ranks",
            )
    text = f"{num_ranks} = {'; '.join(texts)}; {preset_division(config)} division"
    return Finding(state=PASS, subject="ranks", text=text)


def describe_ranks(config: RunConfig, num_ranks: int) -> str:
    """Return how a configuration without phases uses the ranks, with its global batch.

    Raises ValueError if it cannot use them.
    """
    fitted = check_global_batch(config, num_ranks)
    num_training = count_training_ranks(config.parallel, num_ranks)
    data, parallel = num_training // config.parallel.dap_size, config.parallel
    batch = data * fitted.local_batch_size * fitted.accumulation
    derived = (
        f" (accumulation {fitted.accumulation}, derived)"
        if fitted.accumulation != config.accumulation
        else ""
    )
    return (
        f"{data} x dap {parallel.dap_size} to train, "
        f"{parallel.num_evaluation_ranks} to evaluate; global batch {batch}{derived}"
    )


def check_data(
    config: RunConfig, data_dir: Path, distillation_dir: Path | None = None
) -> list[Finding]:
    """Check the index, the record that `data_prep verify` left, and the chains of the preset.

    No shard is read, because `data_prep verify` has hashed them, except for the sequences of a
    distillation set that may be those of validation chains.
    """
    findings = _check_index(data_dir)
    if findings[0].passed:
        findings.append(_check_chains(config, ShardIndex.load(data_dir)))
    return findings + _check_distillation(config, data_dir, distillation_dir)


def _check_distillation(
    config: RunConfig, data_dir: Path, distillation_dir: Path | None
) -> list[Finding]:
    """Check the distillation set, if there is one and the preset uses it."""
    subject = "distillation set"
    findings = [] if distillation_dir is None else _check_index(distillation_dir)
    if not all(finding.passed for finding in findings):
        return findings
    try:
        check_distillation(config.selection, distillation_dir)
        if distillation_dir is None:
            return []
        chains = open_distillation(data_dir, distillation_dir, config.selection)
    except ValueError as error:
        return [*findings, Finding(state=FAIL, subject=subject, text=str(error))]
    probability = config.selection.distillation_probability
    text = (
        f"{len(chains.chain_ids):,} chains for {probability:.0%} of the samples, none of them a "
        "validation chain"
    )
    return [*findings, Finding(state=PASS, subject=subject, text=text)]


def _check_index(data_dir: Path) -> list[Finding]:
    try:
        index = ShardIndex.load(data_dir)
    except ValueError as error:
        return [Finding(state=FAIL, subject="data index", text=str(error))]
    size = sum(shard.size_bytes for shard in index.shards)
    text = (
        f"{data_dir}: sha256 {index.checksum}, {len(index.shards)} shards, {size / 2**30:.1f} GiB"
    )
    return [
        Finding(state=PASS, subject="data index", text=text),
        _check_verified(index, data_dir),
    ]


def _check_chains(config: RunConfig, index: ShardIndex) -> Finding:
    try:
        counts = count_chains(index, config.selection)
    except ValueError as error:
        return Finding(state=FAIL, subject="chains", text=str(error))
    complaint = validate_counts(**counts, config=config.selection)
    text = (
        complaint
        or f"{counts['train_samples']:,} to train on, {counts['eval_samples']:,} to evaluate"
    )
    return Finding(state=PASS if complaint is None else FAIL, subject="chains", text=text)


def _check_verified(index: ShardIndex, data_dir: Path) -> Finding:
    recorded = verified_checksum(data_dir)
    if recorded == index.checksum:
        return Finding(
            state=PASS,
            subject="data verified",
            text="every shard was read and hashed for this index",
        )
    found = (
        "was never verified" if recorded is None else f"was verified for another index ({recorded})"
    )
    remedy = (
        f"run `python -m data_prep verify {data_dir}` once (mpiexec -n N in front for many cores)"
    )
    return Finding(
        state=FAIL,
        subject="data verified",
        text=f"the data set {found}; expected a record for {index.checksum}: {remedy}",
    )


def check_checkpoint(config: RunConfig, path: Path | None) -> Finding:
    """Check the initial weights, and their SHA-256 if the preset specifies it."""
    name, expected = "initial checkpoint", config.init_checkpoint_sha256
    if path is None:
        if expected is None:
            return Finding(state=PASS, subject=name, text="none: random weights")
        text = (
            f"none given, expected the file of sha256 {expected} (python -m data_prep download): "
            "set INIT_CHECKPOINT to its path"
        )
        return Finding(state=FAIL, subject=name, text=text)
    if path.is_dir() and expected is None:
        return _check_run_directory(path)
    if not path.is_file():
        return Finding(
            state=FAIL, subject=name, text=f"{path} is not a file; correct INIT_CHECKPOINT"
        )
    try:
        found = sha256_of_file(path)
    except OSError as error:
        return Finding(
            state=FAIL,
            subject=name,
            text=f"{path} cannot be read: {error.strerror or error}; correct INIT_CHECKPOINT",
        )
    if expected not in (None, found):
        text = (
            f"{path} has sha256 {found}, expected {expected}; download it again (python -m "
            "data_prep download)"
        )
        return Finding(state=FAIL, subject=name, text=text)
    return Finding(state=PASS, subject=name, text=f"{path}: sha256 {found}")


def _check_run_directory(path: Path) -> Finding:
    records = CheckpointStore(path / CHECKPOINT_FOLDER, CheckpointConfig()).records()
    complete = [record.step for record in records if record.content is not None]
    if not complete:
        text = f"{path} has no checkpoint of a run; correct INIT_CHECKPOINT"
        return Finding(state=FAIL, subject="initial checkpoint", text=text)
    text = f"{path}: the run's checkpoint of step {complete[-1]}"
    return Finding(state=PASS, subject="initial checkpoint", text=text)


def needed_bytes(config: RunConfig, num_runs: int) -> int:
    """Return the bytes that runs need on the disk.

    Each run needs one checkpoint more than it keeps, because the next one is written before an old
    one is removed.
    """
    num_checkpoints = config.checkpoint.keep_last + config.checkpoint.keep_best + 1
    return num_runs * (
        num_checkpoints * BYTES_PER_PARAMETER * count_parameters(config) + LOG_BYTES_PER_RUN
    )


def check_space(output_dir: Path, needed: int) -> Finding:
    """Check that the file system of output_dir has `needed` free bytes."""
    if not output_dir.is_dir():
        return Finding(
            state=FAIL,
            subject="free space",
            text=f"{output_dir} is not a directory; create it, or correct --output-dir (LOGDIR of "
            "a job)",
        )
    free = shutil.disk_usage(output_dir).free
    text = f"{free / 2**30:.1f} GiB free in {output_dir}, the runs need {needed / 2**30:.1f} GiB"
    if free < needed:
        return Finding(
            state=FAIL,
            subject="free space",
            text=f"{text}; free some space, or name another --output-dir (LOGDIR of a job)",
        )
    return Finding(state=PASS, subject="free space", text=text)
