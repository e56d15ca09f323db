"""What follows when preparing a batch fails: another try, a batch left out, or the end of the stream."""

import errno
import resource
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from openfold_opt.loader.worker import Failure, Task


class LoaderError(RuntimeError):
    """A batch could not be prepared; the message names its samples and the cause.

    sample_ids: the samples of the batch, if they are known.
    """

    def __init__(self, *message: str, sample_ids: Sequence[str] = ()) -> None:
        super().__init__(*message)
        self.sample_ids = tuple(sample_ids)


def explain(error: Exception) -> str:
    """Describe an error of the operating system or of the loader, with the limit that was met."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        text += f"; this process may open {soft} files (hard limit {hard}): raise the limit with `ulimit -n`"
    return text


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What follows from a failed attempt; without report and error: another try."""

    report: str = ""
    """Says that and why the batch is left out."""
    error: LoaderError | None = None
    """Ends the stream."""

    @property
    def is_another_try(self) -> bool:
        return not self.report and self.error is None


class RetryPolicy:
    """Counts failed attempts of each batch, and batches that failed for good against the error budget."""

    def __init__(self, task: Task, *, max_attempts: int, error_budget: int) -> None:
        self._task = task
        self._max_attempts = max_attempts
        self._error_budget = error_budget
        self._failed: Counter[int] = Counter()
        self._num_skipped = 0

    def failed(self, position: int, failure: Failure) -> Outcome:
        """Books a failed attempt."""
        self._failed[position] += 1
        if self._failed[position] < self._max_attempts:
            return Outcome()
        samples = self._task.describe(position)
        text = f"preparing {samples} failed, attempt {self._failed.pop(position)}: {failure.reason}"
        if self._num_skipped >= self._error_budget:
            return Outcome(
                error=LoaderError(
                    f"{text}\nThe error budget is {self._error_budget} (LoaderConfig.error_budget): mend the cause, then start the "
                    "same command again",
                    sample_ids=(samples,),
                )
            )
        self._num_skipped += 1
        return Outcome(
            report=f"left out, number {self._num_skipped} of at most {self._error_budget}: {text}"
        )
