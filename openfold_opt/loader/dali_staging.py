"""Staging by a DALI pipeline whose external source is the loader. Imported only where a preset asks for it."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import torch

from openfold_opt.loader.batch import LoadedBatch
from openfold_opt.loader.staging import BackgroundQueue

try:
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.plugin.pytorch import feed_ndarray
except ImportError as error:
    raise ValueError(
        f'LoaderConfig.staging is "dali", but DALI cannot be imported ({error}); install nvidia-dali-cuda130, or choose "pinned"'
    ) from error

_SLOTS = "slots"


class DaliStaging:
    """Runs the pipeline in a thread of its own, since its external source waits for the loader in the thread that calls run().

    A micro-batch is one DALI sample: its batch dim is an ordinary one. DALI has no sense of what ended the loader, so the source
    keeps the error, and the labels of the batches that are in the pipeline.
    """

    def __init__(self, batches: Iterator[LoadedBatch], *, device: torch.device, depth: int) -> None:
        self._device = device
        self._batches = batches
        self._first = next(batches)
        self._names = (*self._first.features, _SLOTS)
        self._labels: list[LoadedBatch] = []
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
            outputs = fn.external_source(source=self._source, num_outputs=len(self._names), batch=False)
            return tuple(output.gpu() for output in outputs) if on_gpu else tuple(outputs)

        built = pipeline()
        built.build()
        return built

    def _source(self, _) -> tuple[np.ndarray, ...]:
        """One micro-batch as arrays; StopIteration ends the pipeline, whatever the reason."""
        try:
            batch = self._first or next(self._batches)
        except BaseException as error:
            self._error = error
            raise StopIteration from error
        self._first = None
        self._labels.append(batch)
        return (*(tensor.numpy() for tensor in batch.features.values()), batch.slots.numpy())

    def _outputs(self) -> Iterator[LoadedBatch]:
        while True:
            try:
                outputs = self._pipeline.run()
            except StopIteration:
                if isinstance(self._error, StopIteration):
                    return
                raise self._error from None
            tensors = {name: self._to_torch(output) for name, output in zip(self._names, outputs, strict=True)}
            slots = tensors.pop(_SLOTS)
            yield dataclasses.replace(self._labels.pop(0), features=tensors, slots=slots)

    def _to_torch(self, output) -> torch.Tensor:
        """A tensor of its own: DALI uses the output's memory again in the next run."""
        source = output.as_tensor()
        target = torch.empty(source.shape(), dtype=_torch_dtype(source), device=self._device)
        feed_ndarray(source, target)
        return target[0]


def _torch_dtype(tensor) -> torch.dtype:
    return torch.from_numpy(np.empty(0, np.dtype(tensor.__array_interface__["typestr"]))).dtype
