"""Triton kernels that the emulator's tests run: a softmax, flash attention, and split-KV decode with its merge."""

import triton
import triton.language as tl


@triton.jit
def softmax(x, out, rows, cols, stride, WIDTH: tl.constexpr):
    """One program handles every num_programs-th row of f32; cols <= WIDTH."""
    for row in tl.range(tl.program_id(0), rows, tl.num_programs(0), num_stages=2):
        at = tl.arange(0, WIDTH)
        live = at < cols
        v = tl.load(x + row * stride + at, mask=live, other=-float("inf"))
        e = tl.exp(v - tl.max(v, axis=0))
        tl.store(out + row * stride + at, e / tl.sum(e, axis=0), mask=live)


@triton.jit
def flash_forward(q, k, v, out, lse, scale, length, heads, kv_heads,
                  CAUSAL: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """q, out [length, heads, D]; k, v [length, kv_heads, D]; lse [heads, length], natural logarithm."""
    start, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    kv_head = head // (heads // kv_heads)
    m, d = start + tl.arange(0, BLOCK_M), tl.arange(0, D)
    q_at = (m[:, None] * heads + head) * D + d[None, :]
    queries = tl.load(q + q_at, mask=m[:, None] < length, other=0.0)
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
    end = tl.minimum(start + BLOCK_M, length) if CAUSAL else length
    for base in range(0, end, BLOCK_N):
        n = base + tl.arange(0, BLOCK_N)
        at = (n[:, None] * kv_heads + kv_head) * D + d[None, :]
        keys = tl.load(k + at, mask=n[:, None] < length, other=0.0)
        scores = tl.dot(queries, tl.trans(keys)) * (scale * 1.4426950408889634)
        live = n[None, :] < length
        if CAUSAL:
            live = live & (n[None, :] <= m[:, None])
        scores = tl.where(live, scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        probs = tl.exp2(scores - new_max[:, None])
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(probs, 1)
        values = tl.load(v + at, mask=n[:, None] < length, other=0.0)
        acc = tl.dot(probs.to(values.dtype), values, acc * rescale[:, None])
        row_max = new_max
    tl.store(out + q_at, (acc / row_sum[:, None]).to(out.dtype.element_ty), mask=m[:, None] < length)
    tl.store(lse + head * length + m, (row_max + tl.log2(row_sum)) * 0.6931471805599453, mask=m < length)


@triton.jit
def split_decode(q, k_cache, v_cache, partial_out, partial_lse, tables, lens, scale, max_blocks, heads, kv_heads,
                 GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, SPLITS: tl.constexpr):
    """Grid (sequences, kv_heads, SPLITS). Caches [blocks, BLOCK, kv_heads, D]; partial_out [seq, heads, SPLITS, D] f32."""
    seq, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lens + seq)
    per_split = tl.cdiv(tl.cdiv(length, BLOCK), SPLITS)
    first, last = split * per_split, tl.minimum((split + 1) * per_split, tl.cdiv(length, BLOCK))
    row, d, t = tl.arange(0, GROUP_PADDED), tl.arange(0, D), tl.arange(0, BLOCK)
    head = kv_head * GROUP + row
    real = row < GROUP
    queries = tl.load(q + (seq * heads + head[:, None]) * D + d[None, :], mask=real[:, None], other=0.0)
    row_max = tl.full([GROUP_PADDED], -float("inf"), tl.float32)
    row_sum = tl.zeros([GROUP_PADDED], tl.float32)
    acc = tl.zeros([GROUP_PADDED, D], tl.float32)
    for j in range(first, last):
        block = tl.load(tables + seq * max_blocks + j).to(tl.int64)
        at = ((block * BLOCK + t[:, None]) * kv_heads + kv_head) * D + d[None, :]
        live = j * BLOCK + t < length
        keys = tl.load(k_cache + at, mask=live[:, None], other=0.0)
        scores = tl.dot(queries, tl.trans(keys)) * (scale * 1.4426950408889634)
        scores = tl.where(live[None, :], scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        probs = tl.exp2(scores - new_max[:, None])
        rescale = tl.exp2(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(probs, 1)
        values = tl.load(v_cache + at, mask=live[:, None], other=0.0)
        acc = acc * rescale[:, None] + tl.dot(probs.to(values.dtype), values)
        row_max = new_max
    if first < last:
        acc = acc / row_sum[:, None]
    at = (seq * heads + head) * SPLITS + split
    tl.store(partial_out + at[:, None] * D + d[None, :], acc, mask=real[:, None])
    tl.store(partial_lse + at, row_max + tl.log2(row_sum), mask=real)


@triton.jit
def merge(partial_out, partial_lse, out, D: tl.constexpr, SPLITS: tl.constexpr):
    """Grid (sequences * heads)."""
    row = tl.program_id(0).to(tl.int64)
    s, d = tl.arange(0, SPLITS), tl.arange(0, D)
    lse = tl.load(partial_lse + row * SPLITS + s)
    weight = tl.exp2(lse - tl.max(lse, 0))
    parts = tl.load(partial_out + (row * SPLITS + s[:, None]) * D + d[None, :])
    merged = tl.sum(parts * weight[:, None], 0) / tl.sum(weight, 0)
    tl.store(out + row * D + d, merged.to(out.dtype.element_ty))
