"""Tiles of gated attention that forward and backward kernels share: addresses, loads and logits.

The rows of a tile are queries of HEADS heads. HEADS is 1, or 2 for narrow heads: then the first
BLOCK_Q rows are queries of one head, the other rows are the same queries of the next head, and the
channels of both heads are next to each other in one tile of keys. A row is zero in the channels of
the other head, so every product over channels is right.

Logits are in units of the scale: products of queries and keys are added to (bias + mask) / scale,
and one multiply-add, with the factor scale * log2(e), yields the argument of exp2. With EVEN, all
tiles are full: blocks divide the sizes, and heads fill the channels. Then nothing is compared with
a bound.

A group whose keys are all masked has equal weights: added to -mask_inf in float32, its logits are
lost. Its factor is 0, because what rounding leaves must not depend on the kernel: a difference of
one unit in the last place of -mask_inf is a factor of e^64. Its maximum is saved as -inf.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def row_queries(first, BLOCK_Q: tl.constexpr, HEADS: tl.constexpr):
    """Return the query of each row of a tile."""
    rows = tl.arange(0, HEADS * BLOCK_Q)
    if HEADS == 1:
        return first + rows
    return first + rows % BLOCK_Q


@triton.jit
def row_heads(BLOCK_Q: tl.constexpr, HEADS: tl.constexpr):
    """Return the head of each row of a tile: 0 or 1."""
    return tl.arange(0, HEADS * BLOCK_Q) // BLOCK_Q


@triton.jit
def head_start(ptr, batch, group, stride_batch, stride_group, first_channel):
    """Return the address of the first channel of the first query or key of a head and group."""
    start = batch.to(tl.int64) * stride_batch + group.to(tl.int64) * stride_group + first_channel
    return ptr + start


@triton.jit
def out_start(ptr, batch_group, num_q, num_heads, first_channel, C: tl.constexpr):
    """Return head_start for a contiguous tensor [batch * groups, N_q, num_heads * C].

    batch_group: batch * num_groups + group.
    """
    return ptr + batch_group.to(tl.int64) * num_q * num_heads * C + first_channel


@triton.jit
def head_tile(start, elements, stride_element, BLOCK_C: tl.constexpr):
    """Return the addresses [elements, BLOCK_C] of queries or keys of the heads of a tile."""
    return start + elements[:, None] * stride_element + tl.arange(0, BLOCK_C)[None, :]


@triton.jit
def _inside(elements, num_elements, C: tl.constexpr, BLOCK_C: tl.constexpr, HEADS: tl.constexpr):
    """Return a mask [elements, BLOCK_C] of what exists."""
    return (elements < num_elements)[:, None] & (tl.arange(0, BLOCK_C) < HEADS * C)[None, :]


@triton.jit
def _of_own_head(
    C: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_Q: tl.constexpr, HEADS: tl.constexpr
):
    """Return a mask [rows, BLOCK_C] of the channels of the head of each row."""
    return (tl.arange(0, BLOCK_C) // C)[None, :] == row_heads(BLOCK_Q, HEADS)[:, None]


@triton.jit
def load_keys(
    start,
    keys,
    num_k,
    stride_element,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HEADS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Load [keys, BLOCK_C] of the heads of a tile, zero outside the tensor."""
    tile = head_tile(start, keys, stride_element, BLOCK_C)
    if EVEN:
        return tl.load(tile)
    return tl.load(tile, mask=_inside(keys, num_k, C, BLOCK_C, HEADS), other=0.0)


@triton.jit
def load_rows(
    start,
    queries,
    num_q,
    stride_element,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    HEADS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Load [rows, BLOCK_C], zero outside the tensor and in the channels of the other head."""
    x = load_keys(start, queries, num_q, stride_element, C, BLOCK_C, HEADS, EVEN)
    if HEADS == 1:
        return x
    return tl.where(_of_own_head(C, BLOCK_C, BLOCK_Q, HEADS), x, 0.0)


@triton.jit
def store_rows(
    start,
    x,
    queries,
    num_q,
    stride_element,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    HEADS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Store [rows, BLOCK_C] where load_rows reads them."""
    tile = head_tile(start, queries, stride_element, BLOCK_C)
    x = x.to(start.dtype.element_ty)
    if HEADS > 1:
        own = _of_own_head(C, BLOCK_C, BLOCK_Q, HEADS)
        tl.store(tile, x, mask=own & _inside(queries, num_q, C, BLOCK_C, HEADS))
    elif EVEN:
        tl.store(tile, x)
    else:
        tl.store(tile, x, mask=_inside(queries, num_q, C, BLOCK_C, HEADS))


@triton.jit
def store_keys(
    start,
    x,
    keys,
    num_k,
    stride_element,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    HEADS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Store [keys, BLOCK_C] where load_keys reads them."""
    tile = head_tile(start, keys, stride_element, BLOCK_C)
    if EVEN:
        tl.store(tile, x.to(start.dtype.element_ty))
    else:
        inside = _inside(keys, num_k, C, BLOCK_C, HEADS)
        tl.store(tile, x.to(start.dtype.element_ty), mask=inside)


@triton.jit
def key_terms(mask_ptr, keys, num_k, lowest, EVEN: tl.constexpr):
    """Return what is added to the logits of each key: 0, or `lowest` where it is masked.

    mask_ptr: [N_k] of the group; beyond the last key, twice `lowest`.
    """
    if EVEN:
        return (1.0 - tl.load(mask_ptr + keys).to(tl.float32)) * lowest
    mask = tl.load(mask_ptr + keys, mask=keys < num_k, other=-1.0).to(tl.float32)
    return (1.0 - mask) * lowest


@triton.jit
def is_any_key_unmasked(mask_ptr, num_k, BLOCK_K: tl.constexpr, EVEN: tl.constexpr):
    """Return whether any key of a group is not masked."""
    largest = tl.full([BLOCK_K], -1.0, dtype=tl.float32)
    for first in range(0, num_k, BLOCK_K):
        keys = first + tl.arange(0, BLOCK_K)
        largest = tl.maximum(largest, key_terms(mask_ptr, keys, num_k, -1.0, EVEN))
    return tl.max(largest, axis=0) > -1.0


@triton.jit
def load_bias(tile, queries, num_q, keys, num_k, EVEN: tl.constexpr):
    """Load a tile of the bias as float32, zero outside the tensor.

    tile: addresses; queries and keys: of its elements, with shapes that broadcast to those of tile.
    """
    if EVEN:
        return tl.load(tile).to(tl.float32)
    return tl.load(tile, mask=(queries < num_q) & (keys < num_k), other=0.0).to(tl.float32)


@triton.jit
def load_statistic(rows, queries, num_q, EVEN: tl.constexpr):
    """Load a statistic of each row from its addresses, zero beyond the last query."""
    if EVEN:
        return tl.load(rows)
    return tl.load(rows, mask=queries < num_q, other=0.0)


@triton.jit
def store_statistic(rows, x, queries, num_q, EVEN: tl.constexpr):
    """Store a statistic of each row to its addresses."""
    if EVEN:
        tl.store(rows, x)
    else:
        tl.store(rows, x, mask=queries < num_q)


@triton.jit
def sigmoid(x):
    """Return 1 / (1 + exp(-x)) in float32."""
    return 1.0 / (1.0 + tl.exp2(x.to(tl.float32) * -LOG2_E))
