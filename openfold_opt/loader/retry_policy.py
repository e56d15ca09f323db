"""Handling of failed preparations: retry the batch, skip it, or end the stream."""

import errno
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from openfold_opt.loader.worker import Failure, Task


class LoaderError(RuntimeError):
    """A batch could not be prepared. The message names its samples and the cause.

    Attributes:
        sample_ids: the samples of the batch, if they are known.
    """

    def __init__(self, *message: str, sample_ids: Sequence[str] = ()) -> None:
        super().__init__(*message)
        self.sample_ids = tuple(sample_ids)


def explain(error: Exception) -> str:
    """Describe an error; for too many open files, add the limits and the remedy."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        text += (
            f"; this process may open {soft} files (hard limit {hard}): "
            "raise the limit with `ulimit -n`"
        )
    return text


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a failed attempt. Without report and error, the batch is retried."""

    report: str = ""
    """Message that the batch is skipped, with the reason."""
    error: LoaderError | None = None
    """Error that ends the stream."""

    @property
    def is_retry(self) -> bool:
        return not self.report and self.error is None


class RetryPolicy:
    """Counts failed attempts per batch, and skipped batches against the error budget."""

    def __init__(self, task: Task, *, max_attempts: int, error_budget: int) -> None:
        self._task = task
        self._max_attempts = max_attempts
        self._error_budget = error_budget
        self._failed: Counter[int] = Counter()
        self._num_skipped = 0

    def record_failure(self, position: int, failure: Failure) -> Outcome:
        """Record a failed attempt and return what to do."""
        self._failed[position] += 1
        if self._failed[position] < self._max_attempts:
            return Outcome()
        samples = self._task.describe(position)
        text = f"preparing {samples} failed, attempt {self._failed.pop(position)}: {failure.reason}"
        if self._num_skipped >= self._error_budget:
            return Outcome(
                error=LoaderError(
                    f"{text}\nThe error budget is {self._error_budget} "
                    "(LoaderConfig.error_budget): fix the cause, then run the same command again",
                    sample_ids=(samples,),
                )
            )
        self._num_skipped += 1
        return Outcome(
            report=f"skipped, number {self._num_skipped} of at most {self._error_budget}: {text}"
        )
