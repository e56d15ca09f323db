"""Forward pass of gated attention from rows before their normalization, in one launch.

A program has all elements of a group for one head. It first computes keys and values and keeps
them, and then, tile by tile, queries, gates and the attention as in forward.py. Nothing but the
gated output is written, unless the backward pass needs the projections (SAVE).

A program normalizes each row twice, and all heads do. These reads hit the cache: a group has at
most 128 KiB, and its programs have neighboring numbers and run at the same time.
"""

import triton
import triton.language as tl

from openfold_opt.kernels.triton.attention.tiles import (
    LOG2_E,
    is_any_key_unmasked,
    key_terms,
    load_bias,
    out_start,
    sigmoid,
    store_rows,
    store_statistic,
)


@triton.jit
def _load_chunk(
    x_start,
    offsets,
    in_rows,
    first,
    C_IN: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Load BLOCK_IN channels of rows from the channel `first`, zero beyond the last one.

    x_start: address of the first row; offsets: of the rows. All tiles share the offsets, so that
    few addresses are in registers.
    """
    columns = tl.arange(0, BLOCK_IN)
    tile = x_start + first + (offsets[:, None] + columns[None, :])
    if EVEN:
        return tl.load(tile)
    return tl.load(tile, mask=in_rows[:, None] & (first + columns < C_IN)[None, :], other=0.0)


@triton.jit
def _statistics(
    x_start,
    offsets,
    in_rows,
    eps,
    C_IN: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    CHUNKS: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Return mean and rstd of rows; arguments as for _load_chunk."""
    total = tl.zeros(offsets.shape, dtype=tl.float32)
    for chunk in tl.static_range(CHUNKS):
        x = _load_chunk(x_start, offsets, in_rows, chunk * BLOCK_IN, C_IN, BLOCK_IN, EVEN)
        total += tl.sum(x.to(tl.float32), axis=1)
    mean = total / C_IN
    if CHUNKS > 1:
        # Otherwise all chunks would stay in registers, here and until they are projected.
        tl.debug_barrier()
    squares = tl.zeros(offsets.shape, dtype=tl.float32)
    for chunk in tl.static_range(CHUNKS):
        x = _load_chunk(x_start, offsets, in_rows, chunk * BLOCK_IN, C_IN, BLOCK_IN, EVEN)
        centered = x.to(tl.float32) - mean[:, None]
        if not EVEN:
            columns = chunk * BLOCK_IN + tl.arange(0, BLOCK_IN)
            centered = tl.where((columns < C_IN)[None, :], centered, 0.0)
        squares += tl.sum(centered * centered, axis=1)
    return mean, 1.0 / tl.sqrt(squares / C_IN + eps)


@triton.jit
def _head_weight(
    weight_ptr,
    first_channel,
    first_column,
    C_IN: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    EVEN: tl.constexpr,
):
    """Load the weight [BLOCK_IN, BLOCK_C] from BLOCK_IN input channels to C channels."""
    channels, columns = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_IN)
    start = weight_ptr + first_channel * C_IN + first_column
    tile = start + (channels[:, None] * C_IN + columns[None, :])
    if EVEN:
        return tl.trans(tl.load(tile))
    inside = (channels < C)[:, None] & (first_column + columns < C_IN)[None, :]
    return tl.trans(tl.load(tile, mask=inside, other=0.0))


@triton.jit
def _projections(
    x_start,  # of the tile
    stride_element,
    num_rows,  # that exist, from the first one of the tile
    gamma_ptr,
    beta_ptr,
    weight_ptr,
    first_0,  # first channel of each of two projections
    first_1,
    eps,
    C_IN: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    CHUNKS: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return two projections [rows, BLOCK_C] of normalized rows, float32."""
    rows = tl.arange(0, BLOCK)
    in_rows, offsets = rows < num_rows, rows * stride_element
    mean, rstd = _statistics(x_start, offsets, in_rows, eps, C_IN, BLOCK_IN, CHUNKS, EVEN)
    sum_0 = tl.zeros([BLOCK, BLOCK_C], dtype=tl.float32)
    sum_1 = tl.zeros([BLOCK, BLOCK_C], dtype=tl.float32)
    for chunk in tl.static_range(CHUNKS):
        if CHUNKS > 1:
            # Reads ahead would not fit into registers.
            tl.debug_barrier()
        x = _load_chunk(x_start, offsets, in_rows, chunk * BLOCK_IN, C_IN, BLOCK_IN, EVEN)
        first = chunk * BLOCK_IN
        columns = first + tl.arange(0, BLOCK_IN)
        in_columns = columns < C_IN
        gamma = tl.load(gamma_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
        beta = tl.load(beta_ptr + columns, mask=in_columns, other=0.0).to(tl.float32)
        normalized = (x.to(tl.float32) - mean[:, None]) * rstd[:, None]
        y = (normalized * gamma[None, :] + beta[None, :]).to(x.dtype)
        weight = _head_weight(weight_ptr, first_0, first, C_IN, BLOCK_IN, C, BLOCK_C, EVEN)
        sum_0 = tl.dot(y, weight, sum_0, input_precision=PRECISION)
        weight = _head_weight(weight_ptr, first_1, first, C_IN, BLOCK_IN, C, BLOCK_C, EVEN)
        sum_1 = tl.dot(y, weight, sum_1, input_precision=PRECISION)
    return sum_0, sum_1


@triton.jit
def normalized_forward_kernel(
    x_ptr,  # [batch, groups, N, c_in] with strides; the last dim is contiguous
    gamma_ptr,  # [c_in]
    beta_ptr,  # [c_in]
    weight_ptr,  # [4 * num_heads * c, c_in] contiguous: queries, keys, values and gates
    gate_bias_ptr,  # [num_heads * c]
    mask_ptr,  # [batch, groups, N] contiguous
    bias_ptr,  # [batch, num_heads, N, N] contiguous; read if HAS_BIAS
    out_ptr,  # out: [batch, groups, N, num_heads * c] contiguous
    projected_ptr,  # out: [batch, groups, N, 4 * num_heads * c] contiguous; this and below if SAVE
    maximum_ptr,  # out: as in forward_kernel
    total_ptr,  # out: as in forward_kernel
    num_groups,
    num_heads,
    n,
    stride_batch,
    stride_group,
    stride_element,
    eps,
    scale,
    mask_inf,
    C_IN: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    CHUNKS: tl.constexpr,  # blocks of input channels
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    QUERY_TILES: tl.constexpr,
    TILES: tl.constexpr,  # of keys
    EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SAVE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute the gated output of a head and group."""
    head, batch_group = tl.program_id(0), tl.program_id(1)
    batch, group = batch_group // num_groups, batch_group % num_groups
    channel, width = head * C, num_heads * C
    x_start = x_ptr + batch.to(tl.int64) * stride_batch + group.to(tl.int64) * stride_group
    first_row = batch_group.to(tl.int64) * n
    output_start = out_start(out_ptr, batch_group, n, num_heads, channel, C)
    # Rows of the projections, each a quarter of the channels.
    part_start = out_start(projected_ptr, batch_group, n, 4 * num_heads, channel, C)
    k, v = (), ()
    for tile in tl.static_range(TILES):
        first = tile * BLOCK_K
        sum_k, sum_v = _projections(
            *(x_start + first * stride_element, stride_element, n - first),
            *(gamma_ptr, beta_ptr, weight_ptr, width + channel, 2 * width + channel),
            *(eps, C_IN, BLOCK_IN, CHUNKS, C, BLOCK_C, BLOCK_K, EVEN, PRECISION),
        )
        k += (sum_k.to(x_ptr.dtype.element_ty),)
        v += (sum_v.to(x_ptr.dtype.element_ty),)
        if SAVE:
            k_start = part_start + (4 * first + 1) * width
            rows, left = tl.arange(0, BLOCK_K), n - first
            store_rows(k_start, k[tile], rows, left, 4 * width, C, BLOCK_C, BLOCK_K, 1, EVEN)
            v_start = k_start + width
            store_rows(v_start, v[tile], rows, left, 4 * width, C, BLOCK_C, BLOCK_K, 1, EVEN)

    mask_row = mask_ptr + first_row
    bias_plane = bias_ptr + (batch * num_heads + head).to(tl.int64) * n * n
    is_any_unmasked = is_any_key_unmasked(mask_row, n, BLOCK_K, EVEN)
    factor = tl.where(is_any_unmasked, scale * LOG2_E, 0.0)
    channels = tl.arange(0, BLOCK_C)
    gate_bias = tl.load(gate_bias_ptr + channel + channels, channels < C, other=0.0)
    queries, keys = tl.arange(0, BLOCK_Q), tl.arange(0, BLOCK_K)
    # All tiles share the offsets of their elements; a loop would keep more of them in registers.
    for block in tl.static_range(QUERY_TILES):
        tl.debug_barrier()
        first = block * BLOCK_Q
        num_q = n - first
        q, gate = _projections(
            *(x_start + first * stride_element, stride_element, num_q),
            *(gamma_ptr, beta_ptr, weight_ptr, channel, 3 * width + channel),
            *(eps, C_IN, BLOCK_IN, CHUNKS, C, BLOCK_C, BLOCK_Q, EVEN, PRECISION),
        )
        q = q.to(x_ptr.dtype.element_ty)
        gate = (gate + gate_bias.to(tl.float32)[None, :]).to(x_ptr.dtype.element_ty)
        if SAVE:
            q_start = part_start + 4 * first * width
            store_rows(q_start, q, queries, num_q, 4 * width, C, BLOCK_C, BLOCK_Q, 1, EVEN)
            gate_start = q_start + 3 * width
            store_rows(gate_start, gate, queries, num_q, 4 * width, C, BLOCK_C, BLOCK_Q, 1, EVEN)
        # Finite, as the factor may be 0.
        maximum = tl.full([BLOCK_Q], -1e38, dtype=tl.float32)
        total = tl.zeros([BLOCK_Q], dtype=tl.float32)
        accumulator = tl.zeros([BLOCK_Q, BLOCK_C], dtype=tl.float32)
        for key_tile in tl.static_range(TILES):
            first_key = key_tile * BLOCK_K
            num_k = n - first_key
            logits = key_terms(mask_row + first_key, keys, num_k, -mask_inf / scale, EVEN)[None, :]
            if HAS_BIAS:
                tile = bias_plane + (first * n + first_key)
                tile += queries[:, None] * n + keys[None, :]
                bias = load_bias(tile, queries[:, None], num_q, keys[None, :], num_k, EVEN)
                logits += bias * (1.0 / scale)
            else:
                logits = tl.broadcast_to(logits, [BLOCK_Q, BLOCK_K])
            logits = tl.dot(q, tl.trans(k[key_tile]), logits, input_precision=PRECISION)
            new_maximum = tl.maximum(maximum, tl.max(logits, axis=1))
            weights = tl.exp2(logits * factor - (new_maximum * factor)[:, None])
            if not EVEN:
                weights = tl.where((keys < num_k)[None, :], weights, 0.0)
            rescale = tl.exp2((maximum - new_maximum) * factor)
            total = total * rescale + tl.sum(weights, axis=1)
            accumulator *= rescale[:, None]
            accumulator = tl.dot(
                weights.to(q.dtype), v[key_tile], accumulator, input_precision=PRECISION
            )
            maximum = new_maximum
        out = accumulator * (1.0 / total)[:, None] * sigmoid(gate)
        start = output_start + first * width
        store_rows(start, out, queries, num_q, width, C, BLOCK_C, BLOCK_Q, 1, EVEN)
        if SAVE:
            statistic = (batch_group.to(tl.int64) * num_heads + head) * n + first
            maximum = tl.where(is_any_unmasked, maximum * factor, float("-inf"))
            store_statistic(maximum_ptr + statistic + queries, maximum, queries, num_q, EVEN)
            store_statistic(total_ptr + statistic + queries, total, queries, num_q, EVEN)
