"""The measured peak of a prediction on a CPU."""

import mmap

import numpy as np
import torch

from openfold_opt.predict.device_memory import PeakMeter

MIB = 2**20


def use_and_return(num_bytes):
    """Use new pages of the operating system: the heap may have freed memory."""
    with mmap.mmap(-1, num_bytes) as pages:
        view = np.frombuffer(pages, np.uint8)
        view[:: mmap.PAGESIZE] = 1
        del view


def test_the_peak_is_that_since_the_start():
    for size, held in ((96 * MIB, 5), (32 * MIB, 7)):
        meter = PeakMeter(torch.device("cpu"), held_bytes=held)
        use_and_return(size)
        found = meter.peak_bytes(has_graphs=False) - held
        # The earlier, larger block does not count.
        assert size <= found + MIB and found < size + 16 * MIB
