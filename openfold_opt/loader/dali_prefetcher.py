"""Prefetching with a DALI pipeline whose external source is the loader.

This module is imported only if the configuration selects "dali".
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from openfold_opt.loader.background_queue import BackgroundQueue
from openfold_opt.loader.batch import LoadedBatch, ModelFeatures, WireFeatures
from openfold_opt.loader.decode import decode_wire
from openfold_opt.loader.wire_buffer import BufferEntry, pack_wire, unpack_wire
from openfold_opt.loader.wire_format import check_wire

try:
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.pytorch import feed_ndarray
except ImportError as error:
    raise ValueError(
        f'LoaderConfig.prefetch is "dali", but DALI cannot be imported ({error}); '
        'install nvidia-dali-cuda130, or use "pinned"'
    ) from error


class DaliPrefetcher:
    """Runs the pipeline in a thread, because its external source blocks the caller of run().

    A micro-batch is one DALI sample of bytes: DALI requires the same dtypes in every sample, which
    the wire format does not guarantee. DALI does not propagate the error that ended the loader, so
    the source stores it. It also stores the batches that are in the pipeline.
    """

    def __init__(
        self, batches: Iterator[LoadedBatch[WireFeatures]], *, device: torch.device, depth: int
    ) -> None:
        self._device = device
        self._batches = batches
        self._in_pipeline: deque[tuple[LoadedBatch[WireFeatures], dict[str, BufferEntry]]] = deque()
        self._error: BaseException | None = None
        self._pipeline = self._build(depth)
        self._queue = BackgroundQueue(self._outputs(), depth=depth, name="dali-prefetch")

    def __iter__(self) -> Iterator[LoadedBatch[ModelFeatures]]:
        return self

    def __next__(self) -> LoadedBatch[ModelFeatures]:
        return self._queue.get()

    def close(self) -> None:
        self._queue.close()

    def _build(self, depth: int):
        on_gpu = self._device.type == "cuda"

        @pipeline_def(
            batch_size=1,
            num_threads=1,
            device_id=self._device.index or 0 if on_gpu else None,
            prefetch_queue_depth=depth,
            exec_dynamic=True,
        )
        def pipeline():
            wire = fn.external_source(source=self._source, batch=False)
            return wire.gpu() if on_gpu else wire

        built = pipeline()
        built.build()
        return built

    def _source(self, _) -> np.ndarray:
        """Return one micro-batch as bytes. StopIteration signals the end or an error."""
        try:
            batch = next(self._batches)
            check_wire(batch.features)
        except BaseException as error:
            self._error = error
            raise StopIteration from error
        buffer, layout = pack_wire(batch.features)
        self._in_pipeline.append((batch, layout))
        return buffer.numpy()

    def _outputs(self) -> Iterator[LoadedBatch[ModelFeatures]]:
        while True:
            try:
                (output,) = self._pipeline.run()
            except StopIteration:
                if isinstance(self._error, StopIteration):
                    return
                raise self._error from None
            # DALI reuses the memory of its output in the next run, so the bytes are copied.
            bytes_on_device = torch.empty(
                output.as_tensor().shape()[1:], dtype=torch.uint8, device=self._device
            )
            feed_ndarray(output[0], bytes_on_device)
            batch, layout = self._in_pipeline.popleft()
            features = decode_wire(unpack_wire(bytes_on_device, layout))
            yield batch.with_features(features, slots=batch.slots.to(self._device))
