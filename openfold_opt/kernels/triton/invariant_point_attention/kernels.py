"""Kernels of invariant point attention, one program per residue i with all heads.

z[i, :, :] is read once. The point term of the logits is a sum over points in registers; no
[N, N, heads, points, 3] tensor is materialized. The backward kernel computes the gradients that
belong to residue i (q, bias, z, point weights). It writes the softmax weights and the gradient of
the logits [heads, N, N], from which matrix products compute the gradients of keys and values.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(
    ptr, residues, num_res, heads, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """Load [residues, heads, BLOCK] of a tensor [N_res, HEADS, SIZE] as float32; zero outside."""
    channels = tl.arange(0, BLOCK)
    inside = (
        (residues < num_res)[:, None, None]
        & (heads < HEADS)[None, :, None]
        & (channels < SIZE)[None, None, :]
    )
    offsets = (
        residues[:, None, None] * (HEADS * SIZE)
        + heads[None, :, None] * SIZE
        + channels[None, None, :]
    )
    return tl.load(ptr + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_row(ptr, residue, heads, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Load [heads, BLOCK] of one residue of a tensor [N_res, HEADS, SIZE] as float32."""
    channels = tl.arange(0, BLOCK)
    inside = (heads < HEADS)[:, None] & (channels < SIZE)[None, :]
    offsets = residue * (HEADS * SIZE) + heads[:, None] * SIZE + channels[None, :]
    return tl.load(ptr + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_channels(
    ptr, row, heads, first, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """Load [heads, BLOCK] from channel `first` of one residue of [N_res, HEADS, SIZE]; float32."""
    channels = first + tl.arange(0, BLOCK)
    inside = (heads < HEADS)[:, None] & (channels < SIZE)[None, :]
    offsets = row * (HEADS * SIZE) + heads[:, None] * SIZE + channels[None, :]
    return tl.load(ptr + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store_row(
    ptr, value, residue, heads, HEADS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr
):
    """Store [heads, BLOCK] of one residue of a tensor [N_res, HEADS, SIZE]."""
    channels = tl.arange(0, BLOCK)
    inside = (heads < HEADS)[:, None] & (channels < SIZE)[None, :]
    offsets = residue * (HEADS * SIZE) + heads[:, None] * SIZE + channels[None, :]
    tl.store(ptr + offsets, value.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def pair_logits(
    q,
    k,
    q_points,
    k_points,
    bias_ptr,
    point_weights,
    mask_ptr,
    query_mask,
    row,
    residues,
    heads,
    num_res,
    scalar_scale,
    point_scale,
    bias_scale,
    mask_inf,
    HEADS: tl.constexpr,
):
    """Return logits [residues, heads] of one query residue, and squared point distances.

    Algorithm 22, line 7, with the factors of its terms multiplied out: scalar_scale is
    sqrt(1 / (3 C)), bias_scale sqrt(1 / 3), point_scale sqrt(2 / (27 points)); point_weights are
    after the softplus. Logits of residues that do not exist are -inf.
    """
    exists = residues < num_res
    separation = q_points[None, :, :] - k_points
    squared = tl.sum(separation * separation, axis=2)
    offsets = (row * num_res + residues)[:, None] * HEADS + heads[None, :]
    bias = tl.load(
        bias_ptr + offsets, mask=exists[:, None] & (heads < HEADS)[None, :], other=0.0
    ).to(tl.float32)
    mask = tl.load(mask_ptr + residues, mask=exists, other=0.0).to(tl.float32) * query_mask
    logits = tl.sum(q[None, :, :] * k, axis=2) * scalar_scale + bias * bias_scale
    logits = (
        logits
        - 0.5 * point_scale * point_weights[None, :] * squared
        + ((mask - 1.0) * mask_inf)[:, None]
    )
    return tl.where(exists[:, None], logits, float("-inf")), squared


@triton.jit
def forward_kernel(
    q_ptr,  # [batch, N_q, HEADS, C]
    k_ptr,  # [batch, N, HEADS, C]
    v_ptr,  # as k
    q_points_ptr,  # [batch, N_q, HEADS, QK]: points times three coordinates
    k_points_ptr,  # [batch, N, HEADS, QK]
    v_points_ptr,  # [batch, N, HEADS, VP]
    bias_ptr,  # [batch, N_q, N, HEADS]
    z_ptr,  # [batch, N_q, N, CZ]
    point_weights_ptr,  # [HEADS]
    mask_ptr,  # [batch, N]
    query_mask_ptr,  # [batch, N_q]
    scalars_ptr,  # out: [batch, N_q, HEADS, C], weighted sum of v
    points_ptr,  # out: [batch, N_q, HEADS, VP], weighted sum of v_points
    pairs_ptr,  # out: [batch, N_q, HEADS, CZ], weighted sum of z
    maximum_ptr,  # out: [batch, N_q, HEADS] float32, maximum of the logits
    total_ptr,  # out: as maximum, sum of exp(logits - maximum)
    num_queries,
    num_res,
    scalar_scale,
    point_scale,
    bias_scale,
    mask_inf,
    HEADS: tl.constexpr,
    C: tl.constexpr,
    QK: tl.constexpr,
    VP: tl.constexpr,
    CZ: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_QK: tl.constexpr,
    BLOCK_VP: tl.constexpr,
    BLOCK_CZ: tl.constexpr,
    BLOCK_J: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute results and softmax statistics of residue i."""
    i, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    batch_start = batch * num_res
    row = batch * num_queries + i
    heads = tl.arange(0, BLOCK_HEADS)
    q = load_row(q_ptr, row, heads, HEADS, C, BLOCK_C)
    q_points = load_row(q_points_ptr, row, heads, HEADS, QK, BLOCK_QK)
    point_weights = tl.load(point_weights_ptr + heads, mask=heads < HEADS, other=0.0).to(tl.float32)
    query_mask = tl.load(query_mask_ptr + row).to(tl.float32)
    channels_z = tl.arange(0, BLOCK_CZ)
    maximum = tl.full([BLOCK_HEADS], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_HEADS], dtype=tl.float32)
    scalars = tl.zeros([BLOCK_HEADS, BLOCK_C], dtype=tl.float32)
    points = tl.zeros([BLOCK_HEADS, BLOCK_VP], dtype=tl.float32)
    pairs = tl.zeros([BLOCK_HEADS, BLOCK_CZ], dtype=tl.float32)
    for first_j in range(0, num_res, BLOCK_J):
        residues = first_j + tl.arange(0, BLOCK_J)
        k = load_rows(k_ptr + batch_start * HEADS * C, residues, num_res, heads, HEADS, C, BLOCK_C)
        k_points = load_rows(
            k_points_ptr + batch_start * HEADS * QK, residues, num_res, heads, HEADS, QK, BLOCK_QK
        )
        logits, squared = pair_logits(
            q,
            k,
            q_points,
            k_points,
            bias_ptr,
            point_weights,
            mask_ptr + batch_start,
            query_mask,
            row,
            residues,
            heads,
            num_res,
            scalar_scale,
            point_scale,
            bias_scale,
            mask_inf,
            HEADS,
        )
        new_maximum = tl.maximum(maximum, tl.max(logits, axis=0))
        weights = tl.exp(logits - new_maximum[None, :])
        rescale = tl.exp(maximum - new_maximum)
        maximum = new_maximum
        total = total * rescale + tl.sum(weights, axis=0)
        v = load_rows(v_ptr + batch_start * HEADS * C, residues, num_res, heads, HEADS, C, BLOCK_C)
        v_points = load_rows(
            v_points_ptr + batch_start * HEADS * VP, residues, num_res, heads, HEADS, VP, BLOCK_VP
        )
        z_offsets = (row * num_res + residues)[:, None] * CZ + channels_z[None, :]
        z = tl.load(
            z_ptr + z_offsets,
            mask=(residues < num_res)[:, None] & (channels_z < CZ)[None, :],
            other=0.0,
        ).to(tl.float32)
        scalars = scalars * rescale[:, None] + tl.sum(weights[:, :, None] * v, axis=0)
        points = points * rescale[:, None] + tl.sum(weights[:, :, None] * v_points, axis=0)
        pairs = pairs * rescale[:, None] + tl.dot(tl.trans(weights), z, input_precision=PRECISION)
    store_row(scalars_ptr, scalars / total[:, None], row, heads, HEADS, C, BLOCK_C)
    store_row(points_ptr, points / total[:, None], row, heads, HEADS, VP, BLOCK_VP)
    store_row(pairs_ptr, pairs / total[:, None], row, heads, HEADS, CZ, BLOCK_CZ)
    tl.store(maximum_ptr + row * HEADS + heads, maximum, mask=heads < HEADS)
    tl.store(total_ptr + row * HEADS + heads, total, mask=heads < HEADS)


@triton.jit
def add_pair_delta(
    delta,
    pairs_ptr,
    dpairs_ptr,
    row,
    heads,
    HEADS: tl.constexpr,
    CZ: tl.constexpr,
    BLOCK_CZ: tl.constexpr,
):
    """Add the part of the pairs to delta [heads] of one residue.

    delta is the sum of output times gradient over all outputs of a head. The gradient of a logit is
    weight * (dweight - delta), as in the backward pass of every softmax.
    """
    for first_z in range(0, CZ, BLOCK_CZ):
        pairs = load_channels(pairs_ptr, row, heads, first_z, HEADS, CZ, BLOCK_CZ)
        delta += tl.sum(
            load_channels(dpairs_ptr, row, heads, first_z, HEADS, CZ, BLOCK_CZ) * pairs, axis=1
        )
    return delta


@triton.jit
def pair_gradients(
    z_ptr, dz_ptr, z_rows, exists, first, weights, dpairs, CZ: tl.constexpr, BLOCK: tl.constexpr
):
    """Store the gradient of z for residues j, and return that of the weights [residues, heads].

    Covers BLOCK channels from `first`. It uses sums of products, because a float32 tl.dot of these
    sizes spills registers. weights: [residues, heads]; dpairs: [heads, BLOCK].
    """
    channels_z = first + tl.arange(0, BLOCK)
    z_offsets = z_rows[:, None] * CZ + channels_z[None, :]
    in_z = exists[:, None] & (channels_z < CZ)[None, :]
    z = tl.load(z_ptr + z_offsets, mask=in_z, other=0.0).to(tl.float32)
    dweights = tl.sum(z[:, None, :] * dpairs[None, :, :], axis=2)
    dz = tl.sum(weights[:, :, None] * dpairs[None, :, :], axis=1)
    tl.store(dz_ptr + z_offsets, dz.to(dz_ptr.dtype.element_ty), mask=in_z)
    return dweights


@triton.jit
def backward_kernel(
    q_ptr,  # inputs, as in forward_kernel
    k_ptr,
    v_ptr,
    q_points_ptr,
    k_points_ptr,
    v_points_ptr,
    bias_ptr,
    z_ptr,
    point_weights_ptr,
    mask_ptr,
    scalars_ptr,  # results of forward_kernel
    points_ptr,
    pairs_ptr,
    maximum_ptr,
    total_ptr,
    dscalars_ptr,  # gradients of its results
    dpoints_ptr,
    dpairs_ptr,
    dq_ptr,  # out: gradients of the inputs, with the shapes of the inputs
    dq_points_ptr,
    dbias_ptr,
    dz_ptr,
    dpoint_weights_ptr,  # out: [batch, N, HEADS] float32, not yet summed over residues
    weights_ptr,  # out: [batch, HEADS, N, N] float32, softmax weights
    dlogits_ptr,  # out: [batch, HEADS, N, N] float32
    num_res,
    scalar_scale,
    point_scale,
    bias_scale,
    mask_inf,
    HEADS: tl.constexpr,
    C: tl.constexpr,
    QK: tl.constexpr,
    VP: tl.constexpr,
    CZ: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_QK: tl.constexpr,
    BLOCK_VP: tl.constexpr,
    BLOCK_CZ: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    """Compute the gradients of residue i, its softmax weights and the gradient of its logits."""
    i, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    batch_start = batch * num_res
    row = batch_start + i
    heads = tl.arange(0, BLOCK_HEADS)
    is_head = heads < HEADS
    q = load_row(q_ptr, row, heads, HEADS, C, BLOCK_C)
    q_points = load_row(q_points_ptr, row, heads, HEADS, QK, BLOCK_QK)
    point_weights = tl.load(point_weights_ptr + heads, mask=is_head, other=0.0).to(tl.float32)
    query_mask = tl.load(mask_ptr + row).to(tl.float32)
    dscalars = load_row(dscalars_ptr, row, heads, HEADS, C, BLOCK_C)
    dpoints = load_row(dpoints_ptr, row, heads, HEADS, VP, BLOCK_VP)
    delta = tl.sum(dscalars * load_row(scalars_ptr, row, heads, HEADS, C, BLOCK_C), axis=1)
    delta += tl.sum(dpoints * load_row(points_ptr, row, heads, HEADS, VP, BLOCK_VP), axis=1)
    delta = add_pair_delta(delta, pairs_ptr, dpairs_ptr, row, heads, HEADS, CZ, BLOCK_CZ)
    maximum = tl.load(maximum_ptr + row * HEADS + heads, mask=is_head, other=0.0)
    total = tl.load(total_ptr + row * HEADS + heads, mask=is_head, other=1.0)
    dq = tl.zeros([BLOCK_HEADS, BLOCK_C], dtype=tl.float32)
    dq_points = tl.zeros([BLOCK_HEADS, BLOCK_QK], dtype=tl.float32)
    dpoint_weights = tl.zeros([BLOCK_HEADS], dtype=tl.float32)
    for first_j in range(0, num_res, BLOCK_J):
        residues = first_j + tl.arange(0, BLOCK_J)
        exists = residues < num_res
        k = load_rows(k_ptr + batch_start * HEADS * C, residues, num_res, heads, HEADS, C, BLOCK_C)
        k_points = load_rows(
            k_points_ptr + batch_start * HEADS * QK, residues, num_res, heads, HEADS, QK, BLOCK_QK
        )
        logits, squared = pair_logits(
            q,
            k,
            q_points,
            k_points,
            bias_ptr,
            point_weights,
            mask_ptr + batch_start,
            query_mask,
            row,
            residues,
            heads,
            num_res,
            scalar_scale,
            point_scale,
            bias_scale,
            mask_inf,
            HEADS,
        )
        weights = tl.exp(logits - maximum[None, :]) / total[None, :]
        v = load_rows(v_ptr + batch_start * HEADS * C, residues, num_res, heads, HEADS, C, BLOCK_C)
        v_points = load_rows(
            v_points_ptr + batch_start * HEADS * VP, residues, num_res, heads, HEADS, VP, BLOCK_VP
        )
        dweights = tl.sum(v * dscalars[None, :, :], axis=2) + tl.sum(
            v_points * dpoints[None, :, :], axis=2
        )
        z_rows = row * num_res + residues
        for first_z in range(0, CZ, BLOCK_CZ):
            dpairs = load_channels(dpairs_ptr, row, heads, first_z, HEADS, CZ, BLOCK_CZ)
            dweights += pair_gradients(
                z_ptr, dz_ptr, z_rows, exists, first_z, weights, dpairs, CZ, BLOCK_CZ
            )
        dlogits = weights * (dweights - delta[None, :])
        dq += tl.sum(dlogits[:, :, None] * k, axis=0) * scalar_scale
        # The factor 0.5 of the logits and the 2 of the square's derivative cancel.
        point_factor = dlogits * point_scale * point_weights[None, :]
        dq_points -= tl.sum(point_factor[:, :, None] * (q_points[None, :, :] - k_points), axis=0)
        dpoint_weights -= tl.sum(dlogits * squared, axis=0) * 0.5 * point_scale
        in_pair = exists[:, None] & is_head[None, :]
        bias_offsets = (row * num_res + residues)[:, None] * HEADS + heads[None, :]
        dbias = (dlogits * bias_scale).to(dbias_ptr.dtype.element_ty)
        tl.store(dbias_ptr + bias_offsets, dbias, mask=in_pair)
        plane = ((batch * HEADS + heads)[None, :] * num_res + i) * num_res + residues[:, None]
        tl.store(weights_ptr + plane, weights, mask=in_pair)
        tl.store(dlogits_ptr + plane, dlogits, mask=in_pair)
    store_row(dq_ptr, dq, row, heads, HEADS, C, BLOCK_C)
    store_row(dq_points_ptr, dq_points, row, heads, HEADS, QK, BLOCK_QK)
    tl.store(dpoint_weights_ptr + row * HEADS + heads, dpoint_weights, mask=is_head)
