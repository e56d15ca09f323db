"""Staging by a DALI pipeline whose external source is the loader. Imported only where a preset asks for it."""

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch

from openfold_opt.loader.batch import LoadedBatch, WireBatch
from openfold_opt.loader.decode import decode_wire
from openfold_opt.loader.device_prefetcher import BackgroundQueue
from openfold_opt.loader.wire_buffer import Place, pack_wire, unpack_wire
from openfold_opt.loader.wire_format import check_wire

try:
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.pytorch import feed_ndarray
except ImportError as error:
    raise ValueError(
        f'LoaderConfig.staging is "dali", but DALI cannot be imported ({error}); install nvidia-dali-cuda130, or choose "pinned"'
    ) from error


class DaliPrefetcher:
    """Runs the pipeline in a thread of its own, since its external source waits for the loader in the thread that calls run().

    A micro-batch is one DALI sample of bytes: DALI wants the same dtypes in every sample, which the wire does not promise. DALI has no
    sense of what ended the loader, so the source keeps the error; and it keeps what the batches in the pipeline are.
    """

    def __init__(self, batches: Iterator[WireBatch], *, device: torch.device, depth: int) -> None:
        self._device = device
        self._batches = batches
        self._in_pipeline: deque[tuple[WireBatch, dict[str, Place]]] = deque()
        self._error: BaseException | None = None
        self._pipeline = self._build(depth)
        self._queue = BackgroundQueue(self._outputs(), depth=depth, name="dali-staging")

    def __iter__(self) -> Iterator[LoadedBatch]:
        return self

    def __next__(self) -> LoadedBatch:
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
        """One micro-batch as bytes; StopIteration ends the pipeline, whatever the reason."""
        try:
            batch = next(self._batches)
            check_wire(batch.arrays)
        except BaseException as error:
            self._error = error
            raise StopIteration from error
        buffer, layout = pack_wire(batch.arrays)
        self._in_pipeline.append((batch, layout))
        return buffer.numpy()

    def _outputs(self) -> Iterator[LoadedBatch]:
        while True:
            try:
                (output,) = self._pipeline.run()
            except StopIteration:
                if isinstance(self._error, StopIteration):
                    return
                raise self._error from None
            # a tensor of its own: DALI uses the output's memory again in the next run
            bytes_on_device = torch.empty(
                output.as_tensor().shape()[1:], dtype=torch.uint8, device=self._device
            )
            feed_ndarray(output[0], bytes_on_device)
            batch, layout = self._in_pipeline.popleft()
            features = decode_wire(unpack_wire(bytes_on_device, layout))
            yield batch.loaded(features, slots=batch.slots.to(self._device))
