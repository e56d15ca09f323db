"""The measured peak of a prediction on a CPU."""

import torch

from openfold_opt.predict.device_memory import PeakMeter

CPU = torch.device("cpu")
MIB = 2**20


def test_the_peak_is_that_since_the_start():
    for size, held in ((96 * MIB, 5), (32 * MIB, 7)):
        meter = PeakMeter(CPU, held_bytes=held)
        block = torch.ones(size, dtype=torch.uint8)
        del block
        found = meter.peak_bytes(has_graphs=False) - held
        # The earlier, larger block does not count.
        assert size <= found + MIB and found < size + 16 * MIB
