"""Staging: micro-batches from host memory to the device, and from wire features to model features, behind the compute.

All stagings turn WireBatches into LoadedBatches in the order of the loader, and end with what ended the loader. They differ in who
does it:

    direct   the training thread, when it asks for the batch
    pinned   a thread of its own, through page-locked memory, on a stream of its own, up to `depth` batches ahead
    dali     a DALI pipeline fed from that thread (openfold_opt.loader.dali_prefetcher)

A batch that is staged is not consumed: what a step has used is for the trainer to say (TrainingLoader.mark_consumed).
"""

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Iterator
from typing import Protocol

import torch

from openfold_opt.loader.batch import LoadedBatch, WireBatch
from openfold_opt.loader.config import LoaderConfig
from openfold_opt.loader.decode import decode_batch


class DevicePrefetcher(Protocol):
    """Iterates batches on the device."""

    def __iter__(self) -> Iterator[LoadedBatch]: ...

    def __next__(self) -> LoadedBatch:
        """The next batch, ready for the current stream. Raises what the loader raised."""

    def close(self) -> None:
        """Ends threads and drops batches; the loader must be closed before. Safe to call twice."""


def resolve_prefetch(kind: str, device: torch.device) -> str:
    """Return what "auto" means on a device, or the kind itself."""
    if kind != "auto":
        return kind
    return "pinned" if device.type == "cuda" else "direct"


def build_prefetcher(
    batches: Iterator[WireBatch], *, device: torch.device, config: LoaderConfig
) -> DevicePrefetcher:
    """The staging of a configuration; `resolve_prefetch` says what "auto" is.

    Raises ValueError where DALI is asked for and cannot be imported.
    """
    kind = resolve_prefetch(config.prefetch, device)
    if kind == "direct":
        return DirectPrefetcher(batches, device=device)
    if kind == "pinned":
        return PinnedPrefetcher(batches, device=device, depth=config.prefetch_depth)
    from openfold_opt.loader.dali_prefetcher import (
        DaliPrefetcher,
    )  # DALI is optional, and takes a second to import

    return DaliPrefetcher(batches, device=device, depth=config.prefetch_depth)


class DirectPrefetcher:
    """Works in the thread that asks."""

    def __init__(self, batches: Iterator[WireBatch], *, device: torch.device) -> None:
        self._batches = batches
        self._device = device

    def __iter__(self) -> Iterator[LoadedBatch]:
        return self

    def __next__(self) -> LoadedBatch:
        batch = next(self._batches)
        return batch.loaded(
            decode_batch(batch.arrays, device=self._device), slots=batch.slots.to(self._device)
        )

    def close(self) -> None:
        """Nothing is open."""


class BackgroundQueue:
    """Runs an iterator in a thread, up to `depth` items ahead; what it raises comes out in its place. For one consuming thread."""

    def __init__(self, items: Iterator, *, depth: int, name: str) -> None:
        self._items = items
        self._queue: queue.Queue = queue.Queue(maxsize=depth)
        self._end: BaseException | None = None
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def get(self):
        """The next item. Raises StopIteration or the error that ended the items, each time it is asked again."""
        if self._end is not None:
            raise self._end
        item = self._queue.get()
        if isinstance(item, _End):
            self._end = item.error
            raise self._end
        return item

    def _run(self) -> None:
        try:
            for item in self._items:
                self._queue.put(item)
                if self._is_closed.is_set():
                    return
            end = _End(StopIteration())
        except BaseException as error:  # passed on to the thread that waits for the items
            end = _End(error)
        self._queue.put(end)

    def close(self) -> None:
        """Ends the thread once its iterator gives or raises something; safe to call twice."""
        self._is_closed.set()
        while self._thread.is_alive():
            # the thread may wait for room in the queue
            with contextlib.suppress(queue.Empty):
                self._queue.get(timeout=0.05)
        self._end = RuntimeError("the staging is closed; make a new one to read on")


@dataclasses.dataclass(frozen=True)
class _End:
    error: BaseException


class PinnedPrefetcher:
    """Works ahead in a thread; on a GPU through page-locked memory and on a stream of its own."""

    def __init__(self, batches: Iterator[WireBatch], *, device: torch.device, depth: int) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._queue = BackgroundQueue(map(self._stage, batches), depth=depth, name="staging")

    def __iter__(self) -> Iterator[LoadedBatch]:
        return self

    def __next__(self) -> LoadedBatch:
        batch, event = self._queue.get()
        if event is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(event)
            for tensor in (*batch.features.values(), batch.slots):
                # the memory was given out on the staging stream: it must not be given out again while the current one reads it
                tensor.record_stream(current)
        return batch

    def _stage(self, batch: WireBatch) -> tuple[LoadedBatch, torch.cuda.Event | None]:
        if self._stream is None:
            return batch.loaded(decode_batch(batch.arrays), slots=batch.slots), None
        with torch.cuda.stream(self._stream):
            slots = batch.slots.pin_memory().to(self._device, non_blocking=True)
            staged = batch.loaded(decode_batch(batch.arrays, device=self._device), slots=slots)
            event = torch.cuda.Event()
            event.record(self._stream)
        return staged, event

    def close(self) -> None:
        self._queue.close()
