"""Describe why a run failed, for run.json."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator

from benchmark.command_line import BenchmarkError
from benchmark.run.signals import Terminated
from benchmark.run.state_file import Failure
from openfold_opt.loader.retry_policy import LoaderError
from openfold_opt.parallel.heartbeat import LostRankError
from openfold_opt.train.errors import NonFiniteError, PhaseConditionError, SetupError

# Kinds of failures in run.json.
NOT_FINITE = "not finite"
FULL_DISK = "full disk"
LOST_RANK = "lost rank"
SIGNAL = "signal"
CONDITION = "condition"  # A phase did not reach the score that it requires.
REFUSED = "refused"  # The run could not start with these options, data or machines.
OTHER = "other"

FULL_DISK_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space left on the device, the quota is used up, or the file would be too large."""
MAX_TRACEBACK_CHARACTERS = 16_000
"""Only the end of a longer traceback is kept: run.json must fit into RESERVE_BYTES."""
MAX_MESSAGE_CHARACTERS = 4_000
MAX_SAMPLES = 32


def describe_failure(error: BaseException, *, step: int | None) -> Failure:
    """Return a description of the exception that ended a run, for run.json.

    Rank 0 calls this. The rank in the description is the one that the error names, else 0.

    step: the last step that was reported. A step in the error itself takes precedence.
    """
    ids_of_rank = error.samples if isinstance(error, NonFiniteError) else {}
    sample_ids = [sample_id for ids in ids_of_rank.values() for sample_id in ids]
    if isinstance(error, LoaderError):
        sample_ids = list(error.sample_ids)
    rank: int | None = next(iter(ids_of_rank), 0)
    if isinstance(error, LostRankError):
        rank = error.rank
    own_step = error.step if isinstance(error, NonFiniteError) else None
    return Failure(
        kind=failure_kind(error),
        type=type(error).__name__,
        message=str(error)[:MAX_MESSAGE_CHARACTERS],
        step=step if own_step is None else own_step,
        rank=rank,
        sample_ids=tuple(sample_ids[:MAX_SAMPLES]),
        traceback="".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARACTERS:],
    )


def failure_kind(error: BaseException) -> str:
    """Return the kind of an exception, one of the constants above."""
    if isinstance(error, NonFiniteError):
        return NOT_FINITE
    if isinstance(error, LostRankError):
        return LOST_RANK
    if isinstance(error, PhaseConditionError):
        return CONDITION
    if isinstance(error, Terminated | KeyboardInterrupt):
        return SIGNAL
    if is_full_disk(error):
        return FULL_DISK
    return REFUSED if isinstance(error, SetupError | BenchmarkError) else OTHER


def is_full_disk(error: BaseException) -> bool:
    """Return whether an exception or one of its causes is a full disk."""
    return any(
        isinstance(cause, OSError) and cause.errno in FULL_DISK_NUMBERS for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
