"""Time training steps of the MLCommons reference.

    PYTHONPATH=CHECKOUT python reference_step.py BLOCKS PASSES REPEATS THREADS FEATURES PER_PASS

The interpreter of `perf step --reference-python` runs this script with the checkout of
mlcommons/hpc (folder openfold) that --reference names. It imports nothing from this project and
copies nothing from the reference. A step does what the reference's training loop does on one
device: forward, loss, backward, gradient clipping, Adam, weight average. PASSES is the number of
recycling iterations, FEATURES an .npz file of a batch, PER_PASS the names of features with a dim of
passes, separated by commas. Prints one line of JSON: {"seconds", "peak_memory_bytes", "losses"}.
"""

import json
import resource
import sys
import time
import warnings


def accept_newshape():
    """Patch np.reshape to accept `newshape`, which newer NumPy renamed to `shape`."""
    import numpy as np

    reshape = np.reshape
    np.reshape = lambda array, shape=None, *, newshape=None: reshape(
        array, newshape if shape is None else shape
    )


def main():
    """Time the steps after two untimed ones, as `perf step` does for our code."""
    # This file runs as a script, so its folder is on the import path.
    from reference_samples import make_dataclasses_hashable

    make_dataclasses_hashable()
    accept_newshape()
    warnings.simplefilter("ignore")
    import torch
    from openfold.config import AlphaFoldConfig
    from openfold.loss import AlphaFoldLoss
    from openfold.model.alphafold import AlphaFold
    from openfold.swa import AlphaFoldSWA

    blocks, passes, repeats, threads = map(int, sys.argv[1:5])
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    config = AlphaFoldConfig.from_preset(stage="initial_training")
    config.evoformer_stack_config.num_blocks = blocks
    model = AlphaFold(config=config).train()
    loss_function = AlphaFoldLoss(config=config.loss_config)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-6)
    batch = read_batch(sys.argv[5], per_pass=sys.argv[6].split(","), num_passes=passes + 1)
    last = {name: value[..., -1] for name, value in batch.items()}
    model.eval()
    with torch.no_grad():
        # The model creates buffers in forward; newer PyTorch needs them when the average is built.
        model(batch)
    model.train()
    average = AlphaFoldSWA(alphafold=model, enabled=True, decay_rate=0.9)
    seconds, losses = [], []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        loss, _ = loss_function(outputs=model(batch), batch=dict(last))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.1)
        adam.step()
        average.update(model)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds[2:], "peak_memory_bytes": peak, "losses": losses}))


def read_batch(path, *, per_pass, num_passes):
    """Read a batch and move the dim of passes last for all features, as the reference expects."""
    import numpy as np
    import torch

    batch = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            value = torch.from_numpy(arrays[name])
            value = (
                value.movedim(1, -1)
                if name in per_pass
                else value.unsqueeze(-1).expand(*value.shape, num_passes)
            )
            batch[name] = value[..., :num_passes].contiguous()
    return batch


if __name__ == "__main__":
    main()
