"""Forward pass of gated attention, one block of queries per program.

The result is softmax(q k^T / sqrt(c) + (mask - 1) mask_inf + bias) v * sigmoid(gate). The softmax
is computed online (Milakov and Gimelshein 2018; Dao et al. 2022): no [N, N] tensor is written to
memory. The maximum of the logits and the sum of the exponentials are saved separately. Their usual
combination, maximum + log(sum), would round to the maximum in float32 for groups whose keys are all
masked, because their maximum is near -1e9.
"""

import triton
import triton.language as tl


@triton.jit
def head_start(ptr, batch, group, stride_batch, stride_group, first_channel):
    """Return the address of the first channel of the first query or key of a head and group."""
    start = batch.to(tl.int64) * stride_batch + group.to(tl.int64) * stride_group + first_channel
    return ptr + start


@triton.jit
def head_tile(start, elements, stride_element, BLOCK_C: tl.constexpr):
    """Return the addresses [elements, BLOCK_C] of queries or keys of one head and group."""
    return start + elements[:, None] * stride_element + tl.arange(0, BLOCK_C)[None, :]


@triton.jit
def load_head(
    start, elements, num_elements, stride_element, C: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Load [elements, BLOCK_C]: queries or keys of one head and group, zero outside the tensor."""
    inside = (elements < num_elements)[:, None] & (tl.arange(0, BLOCK_C) < C)[None, :]
    tile = head_tile(start, elements, stride_element, BLOCK_C)
    return tl.load(tile, mask=inside, other=0.0)


@triton.jit
def out_offsets(
    batch_group, queries, num_q, num_heads, first_channel, C: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Return the offsets of [queries, BLOCK_C] of one head in [batch * groups, N_q, num_heads * C].

    batch_group: batch * num_groups + group.
    """
    start = batch_group.to(tl.int64) * num_q * num_heads * C + first_channel
    return start + queries[:, None] * (num_heads * C) + tl.arange(0, BLOCK_C)[None, :]


@triton.jit
def masked_logits(
    q,
    k,
    keys,
    queries,
    mask_ptr,
    bias_ptr,
    num_q,
    num_k,
    scale,
    mask_inf,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return the logits [queries, keys] float32; -inf beyond the last key.

    mask_ptr: [N_k] of the group; bias_ptr: [N_q, N_k] of the head.
    """
    logits = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    mask = tl.load(mask_ptr + keys, mask=keys < num_k, other=0.0).to(tl.float32)
    logits += ((mask - 1.0) * mask_inf)[None, :]
    if HAS_BIAS:
        inside = (queries < num_q)[:, None] & (keys < num_k)[None, :]
        logits += tl.load(
            bias_ptr + queries[:, None] * num_k + keys[None, :], mask=inside, other=0.0
        ).to(tl.float32)
    return tl.where((keys < num_k)[None, :], logits, float("-inf"))


@triton.jit
def forward_kernel(
    q_ptr,  # [batch, groups, N_q, num_heads * c]; here and below, the last dim is contiguous
    k_ptr,  # [batch, groups, N_k, num_heads * c], strides shared with v
    v_ptr,  # [batch, groups, N_k, num_heads * c]
    gate_ptr,  # strides of q
    mask_ptr,  # [batch, groups, N_k] contiguous
    bias_ptr,  # [batch, num_heads, N_q, N_k] contiguous
    out_ptr,  # out: [batch, groups, N_q, num_heads * c] contiguous
    maximum_ptr,  # out: [batch, groups, num_heads, N_q] float32, maximum of the logits
    total_ptr,  # out: as maximum, sum of exp(logits - maximum)
    num_groups,
    num_heads,
    num_q,
    num_k,
    q_stride_batch,
    q_stride_group,
    q_stride_element,
    k_stride_batch,
    k_stride_group,
    k_stride_element,
    scale,
    mask_inf,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute gated output and softmax statistics of a block of queries of one head."""
    head, batch_group = tl.program_id(1), tl.program_id(2)
    batch, group = batch_group // num_groups, batch_group % num_groups
    queries = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    channel = head * C
    q_start = head_start(q_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    q = load_head(q_start, queries, num_q, q_stride_element, C, BLOCK_C)
    mask_row = mask_ptr + batch_group.to(tl.int64) * num_k
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * num_q * num_k

    maximum = tl.full([BLOCK_Q], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_Q], dtype=tl.float32)
    accumulator = tl.zeros([BLOCK_Q, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_k, BLOCK_K):
        keys = first + tl.arange(0, BLOCK_K)
        k_start = head_start(k_ptr, batch, group, k_stride_batch, k_stride_group, channel)
        k = load_head(k_start, keys, num_k, k_stride_element, C, BLOCK_C)
        v_start = head_start(v_ptr, batch, group, k_stride_batch, k_stride_group, channel)
        v = load_head(v_start, keys, num_k, k_stride_element, C, BLOCK_C)
        logits = masked_logits(
            q,
            k,
            keys,
            queries,
            mask_row,
            bias_plane,
            num_q,
            num_k,
            scale,
            mask_inf,
            HAS_BIAS,
            PRECISION,
        )
        new_maximum = tl.maximum(maximum, tl.max(logits, axis=1))
        weights = tl.exp(logits - new_maximum[:, None])
        rescale = tl.exp(maximum - new_maximum)
        total = total * rescale + tl.sum(weights, axis=1)
        accumulator = accumulator * rescale[:, None] + tl.dot(
            weights.to(v.dtype), v, input_precision=PRECISION
        )
        maximum = new_maximum

    gate_start = head_start(gate_ptr, batch, group, q_stride_batch, q_stride_group, channel)
    gate = load_head(gate_start, queries, num_q, q_stride_element, C, BLOCK_C)
    out = accumulator / total[:, None] * tl.sigmoid(gate.to(tl.float32))
    in_queries = (queries < num_q)[:, None] & (tl.arange(0, BLOCK_C) < C)[None, :]
    offsets = out_offsets(batch_group, queries, num_q, num_heads, channel, C, BLOCK_C)
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=in_queries)
    row = (batch_group.to(tl.int64) * num_heads + head) * num_q + queries
    tl.store(maximum_ptr + row, maximum, mask=queries < num_q)
    tl.store(total_ptr + row, total, mask=queries < num_q)
