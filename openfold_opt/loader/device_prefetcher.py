"""Prefetching of batches to the device, concurrently with compute.

A prefetcher copies micro-batches from host memory to the device and decodes wire features to model
features there. All prefetchers keep the order of the loader, and raise whatever ended the loader.
They differ in where this happens:

    direct   in the training thread, when it requests the batch
    pinned   in a separate thread, through page-locked memory on a separate CUDA stream, up to
             `depth` batches ahead
    dali     in a DALI pipeline run by a separate thread (openfold_opt.loader.dali_prefetcher)

A prefetched batch does not count as consumed: the trainer marks the batches that steps have used
(TrainingLoader.mark_consumed).
"""

from collections.abc import Iterator
from typing import Protocol

import torch

from openfold_opt.loader.background_queue import BackgroundQueue
from openfold_opt.loader.batch import LoadedBatch, ModelFeatures, WireFeatures
from openfold_opt.loader.config import LoaderConfig, Prefetch
from openfold_opt.loader.decode import decode_batch


class DevicePrefetcher(Protocol):
    """Iterates over batches on the device."""

    def __iter__(self) -> Iterator[LoadedBatch[ModelFeatures]]: ...

    def __next__(self) -> LoadedBatch[ModelFeatures]:
        """Return the next batch, ready for the current stream. Raises what the loader raised."""

    def close(self) -> None:
        """Stop threads and drop batches. Close the loader first. Safe to call twice."""


def resolve_prefetch(kind: Prefetch, device: torch.device) -> Prefetch:
    """Return what "auto" means on a device, or the kind itself."""
    if kind != "auto":
        return kind
    return "pinned" if device.type == "cuda" else "direct"


def build_prefetcher(
    batches: Iterator[LoadedBatch[WireFeatures]], *, device: torch.device, config: LoaderConfig
) -> DevicePrefetcher:
    """Build the prefetcher that the configuration selects; `resolve_prefetch` resolves "auto".

    Raises:
        ValueError: DALI is requested and cannot be imported.
    """
    kind = resolve_prefetch(config.prefetch, device)
    if kind == "direct":
        return DirectPrefetcher(batches, device=device)
    if kind == "pinned":
        return PinnedPrefetcher(batches, device=device, depth=config.prefetch_depth)
    # DALI is optional, and its import takes a second.
    from openfold_opt.loader.dali_prefetcher import DaliPrefetcher

    return DaliPrefetcher(batches, device=device, depth=config.prefetch_depth)


class DirectPrefetcher:
    """Copies and decodes in the thread that requests a batch."""

    def __init__(
        self, batches: Iterator[LoadedBatch[WireFeatures]], *, device: torch.device
    ) -> None:
        self._batches = batches
        self._device = device

    def __iter__(self) -> Iterator[LoadedBatch[ModelFeatures]]:
        return self

    def __next__(self) -> LoadedBatch[ModelFeatures]:
        batch = next(self._batches)
        return batch.with_features(
            decode_batch(batch.features, device=self._device), slots=batch.slots.to(self._device)
        )

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class PinnedPrefetcher:
    """Copies and decodes in a thread; on a GPU through page-locked memory on a separate stream."""

    def __init__(
        self, batches: Iterator[LoadedBatch[WireFeatures]], *, device: torch.device, depth: int
    ) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._queue = BackgroundQueue(map(self._load, batches), depth=depth, name="prefetch")

    def __iter__(self) -> Iterator[LoadedBatch[ModelFeatures]]:
        return self

    def __next__(self) -> LoadedBatch[ModelFeatures]:
        batch, event = self._queue.get()
        if event is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(event)
            for tensor in (*batch.features.values(), batch.slots):
                # The memory was allocated on the prefetch stream. The allocator must not reuse it
                # while the current stream still reads it.
                tensor.record_stream(current)
        return batch

    def _load(
        self, batch: LoadedBatch[WireFeatures]
    ) -> tuple[LoadedBatch[ModelFeatures], torch.cuda.Event | None]:
        if self._stream is None:
            return batch.with_features(decode_batch(batch.features), slots=batch.slots), None
        with torch.cuda.stream(self._stream):
            slots = batch.slots.pin_memory().to(self._device, non_blocking=True)
            loaded = batch.with_features(
                decode_batch(batch.features, device=self._device), slots=slots
            )
            event = torch.cuda.Event()
            event.record(self._stream)
        return loaded, event

    def close(self) -> None:
        self._queue.close()
