"""Counter-based dropout masks: Philox4x32-10, every element independent of the others.

Element e of the mask of one dropout site of the model, one sample and one pass is word e % 4 of

    Philox4x32-10(key = (seed mod 2^32, step mod 2^32), counter = (e // 4, site, slot, pass))

and is kept if that word >= floor(rate * 2^32). e is the row-major index into the unsharded mask,
`slot` the position of the sample in the global batch of the step. A mask therefore does not depend
on batch size, number of ranks or recomputation. Triton gives the same words with
tl.philox((step << 32) | seed, e // 4, site, slot, pass, n_rounds=10).

Philox: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.arguments import Arguments, Kernel, TensorMaker

_WORD = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10

Word = Tensor | int


def philox(
    counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute Philox4x32-10.

    Args:
        counter: four words, ints or int64 tensors with values in [0, 2^32) that broadcast together.
        key: two words, ints or int64 0-dim tensors in [0, 2^32).

    Returns:
        Four int64 tensors with values in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The 64-bit products wrap around in int64, which does not change their bits.
        product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            ((product_1 >> 32) & _WORD) ^ c1 ^ k0,
            product_1 & _WORD,
            ((product_0 >> 32) & _WORD) ^ c3 ^ k1,
            product_0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL_0) & _WORD, (k1 + _WEYL_1) & _WORD
    return c0, c1, c2, c3


def dropout_masks(
    key: tuple[Word, Word],
    sites: Tensor,
    slots: Tensor,
    *,
    pass_index: int,
    shape: tuple[int, ...],
    rate: float,
) -> Tensor:
    """Return dropout masks of several dropout sites.

    Args:
        key: (seed, optimizer step), ints or int64 0-dim tensors.
        sites: [num_sites] int64, numbers of the dropout sites.
        slots: [batch] int64, positions of the samples in the global batch.
        pass_index: number of the recycling pass.
        shape: shape of one sample's mask.
        rate: probability of dropping, in [0, 1).

    Returns:
        [num_sites, batch, *shape] float32: 0 where dropped, 1 / (1 - rate) where kept.
    """
    size = math.prod(shape)
    counters = torch.arange((size + 3) // 4, device=slots.device)
    words = philox(
        (counters, sites[:, None, None], slots[None, :, None], pass_index),
        (key[0] & _WORD, key[1] & _WORD),
    )
    bits = torch.stack(torch.broadcast_tensors(*words), dim=-1).flatten(-2)[..., :size]
    keep = bits >= math.floor(rate * 2**32)
    return keep.float().mul_(1.0 / (1.0 - rate)).unflatten(-1, shape)


@dataclass(frozen=True, kw_only=True)
class DropoutMasksShapes:
    """Shapes of the arguments and the result of dropout_masks."""

    num_sites: int
    batch: int
    shape: tuple[int, ...]
    """Shape of one sample's mask."""

    def arguments(self, make: TensorMaker) -> Arguments:
        """Make arguments of these shapes."""
        integers = {"dtype": torch.int64, "device": make.device}
        sites, slots = (
            torch.arange(self.num_sites, **integers),
            torch.arange(self.batch, **integers),
        )
        seed, step = torch.zeros((), **integers), torch.ones((), **integers)

        def call(kernel: Kernel) -> Kernel:
            return lambda: kernel(
                (seed, step), sites, slots, pass_index=0, shape=self.shape, rate=0.25
            )

        return Arguments(others=(seed, step, sites, slots), call=call)
