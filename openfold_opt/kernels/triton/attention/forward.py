"""Forward pass: softmax(q k^T / sqrt(c) + (mask - 1) mask_inf + bias) v * sigmoid(gate), a block of queries at a time.

The softmax is taken online (Milakov and Gimelshein 2018; Dao et al. 2022): no [N, N] tensor reaches memory. Its maximum and its sum
are kept apart, not as one logarithm: beside the -1e9 of a group whose keys are all masked, float32 has no room for log(N).
"""

import triton
import triton.language as tl


@triton.jit
def head_tile(
    ptr,
    batch,
    group,
    elements,
    stride_batch,
    stride_group,
    stride_element,
    first_channel,
    BLOCK_C: tl.constexpr,
):
    """Addresses of [elements, BLOCK_C] of one head of one group."""
    start = batch.to(tl.int64) * stride_batch + group.to(tl.int64) * stride_group + first_channel
    return ptr + start + elements[:, None] * stride_element + tl.arange(0, BLOCK_C)[None, :]


@triton.jit
def load_head(
    ptr,
    batch,
    group,
    elements,
    num_elements,
    stride_batch,
    stride_group,
    stride_element,
    first_channel,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """[elements, BLOCK_C] of one head of one group; zero beyond the last element and channel."""
    inside = (elements < num_elements)[:, None] & (tl.arange(0, BLOCK_C) < C)[None, :]
    tile = head_tile(
        ptr,
        batch,
        group,
        elements,
        stride_batch,
        stride_group,
        stride_element,
        first_channel,
        BLOCK_C,
    )
    return tl.load(tile, mask=inside, other=0.0)


@triton.jit
def out_offsets(
    place, queries, num_q, num_heads, first_channel, C: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Of [queries, BLOCK_C] of one head in [batch * groups, N_q, num_heads * C]; place counts batch and groups together."""
    start = place.to(tl.int64) * num_q * num_heads * C + first_channel
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
    """[queries, keys] float32; -inf beyond the last key. mask_ptr: [N_k] of the group; bias_ptr: [N_q, N_k] of the head."""
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
    q_ptr,  # [batch, groups, N_q, num_heads * c]; the last dim contiguous, in all of these
    k_ptr,  # [batch, groups, N_k, num_heads * c], strides shared with v
    v_ptr,  # [batch, groups, N_k, num_heads * c]
    gate_ptr,  # as q
    mask_ptr,  # [batch, groups, N_k] contiguous
    bias_ptr,  # [batch, num_heads, N_q, N_k] contiguous
    out_ptr,  # [batch, groups, N_q, num_heads * c] contiguous
    maximum_ptr,  # [batch, groups, num_heads, N_q] float32: maximum of the logits
    total_ptr,  # the same: sum of exp(logits - maximum)
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
    """Gated output and softmax statistics of a block of queries of one head."""
    head, place = tl.program_id(1), tl.program_id(2)
    batch, group = place // num_groups, place % num_groups
    queries = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    channel = head * C
    q = load_head(
        q_ptr,
        batch,
        group,
        queries,
        num_q,
        q_stride_batch,
        q_stride_group,
        q_stride_element,
        channel,
        C,
        BLOCK_C,
    )
    mask_row = mask_ptr + place.to(tl.int64) * num_k
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * num_q * num_k

    maximum = tl.full([BLOCK_Q], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_Q], dtype=tl.float32)
    accumulator = tl.zeros([BLOCK_Q, BLOCK_C], dtype=tl.float32)
    for first in range(0, num_k, BLOCK_K):
        keys = first + tl.arange(0, BLOCK_K)
        k = load_head(
            k_ptr,
            batch,
            group,
            keys,
            num_k,
            k_stride_batch,
            k_stride_group,
            k_stride_element,
            channel,
            C,
            BLOCK_C,
        )
        v = load_head(
            v_ptr,
            batch,
            group,
            keys,
            num_k,
            k_stride_batch,
            k_stride_group,
            k_stride_element,
            channel,
            C,
            BLOCK_C,
        )
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
        shrink = tl.exp(maximum - new_maximum)
        total = total * shrink + tl.sum(weights, axis=1)
        accumulator = accumulator * shrink[:, None] + tl.dot(
            weights.to(v.dtype), v, input_precision=PRECISION
        )
        maximum = new_maximum

    gate = load_head(
        gate_ptr,
        batch,
        group,
        queries,
        num_q,
        q_stride_batch,
        q_stride_group,
        q_stride_element,
        channel,
        C,
        BLOCK_C,
    )
    out = accumulator / total[:, None] * tl.sigmoid(gate.to(tl.float32))
    in_queries = (queries < num_q)[:, None] & (tl.arange(0, BLOCK_C) < C)[None, :]
    places = out_offsets(place, queries, num_q, num_heads, channel, C, BLOCK_C)
    tl.store(out_ptr + places, out.to(out_ptr.dtype.element_ty), mask=in_queries)
    row = (place.to(tl.int64) * num_heads + head) * num_q + queries
    tl.store(maximum_ptr + row, maximum, mask=queries < num_q)
    tl.store(total_ptr + row, total, mask=queries < num_q)
