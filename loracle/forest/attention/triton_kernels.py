"""The forest's attention as Triton kernels: forward, gradient of queries, gradient of keys.

FlashAttention-2 (arXiv 2307.08691) over the mask `k <= q < subtree_end[k]`: no mask is stored.
Every program works through the list of blocks that its own block attends to (forest/blocks.py):
first those that are seen whole, without a mask, then the partial ones. No program adds to what
another one writes, so the result does not depend on their order.

Importing this module needs the package triton. With TRITON_INTERPRET=1 the kernels run on CPU
tensors.

Shape suffixes: M nodes of the program's own block, J nodes of the block visited, D head size.
Both blocks hold BLOCK nodes. Scores and logarithms are to the base 2.
"""

from __future__ import annotations

# In Triton, annotations other than constexpr say nothing of the arguments, so there are none.
# mypy: disable-error-code="no-untyped-def,no-untyped-call,misc,untyped-decorator"
import triton
import triton.language as tl

# A number that changes with every forest must not give a kernel of its own.
_VARYING = ["num_nodes", "window"]


@triton.jit
def _load_block(
    base_ptr,
    first,
    node_stride,
    num_nodes,
    BLOCK: tl.constexpr,
    HEAD: tl.constexpr,
    D: tl.constexpr,
):
    """Nodes [first, first + BLOCK) of one head: (BLOCK, D), 0 beyond the nodes and the head."""
    node = tl.arange(0, BLOCK)
    place = tl.arange(0, D)
    pointers = base_ptr + first.to(tl.int64) * node_stride
    pointers += node[:, None] * node_stride + place[None, :]
    exists = (first + node < num_nodes)[:, None] & (place < HEAD)[None, :]
    return tl.load(pointers, mask=exists, other=0.0)


@triton.jit
def _store_block(
    base_ptr, value, first, node_stride, num_nodes, BLOCK: tl.constexpr, HEAD: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    node = tl.arange(0, BLOCK)
    place = tl.arange(0, D)
    pointers = base_ptr + first.to(tl.int64) * node_stride
    pointers += node[:, None] * node_stride + place[None, :]
    exists = (first + node < num_nodes)[:, None] & (place < HEAD)[None, :]
    tl.store(pointers, value.to(base_ptr.dtype.element_ty), mask=exists)


@triton.jit
def _sees(query, key, ends_ptr, depths_ptr, num_nodes, window, WINDOWED: tl.constexpr):
    """Which queries see which keys, as the broadcast of `query` and `key` has them."""
    end = tl.load(ends_ptr + key, mask=key < num_nodes, other=0)
    visible = (key <= query) & (query < end)
    if WINDOWED:
        query_depth = tl.load(depths_ptr + query, mask=query < num_nodes, other=0)
        key_depth = tl.load(depths_ptr + key, mask=key < num_nodes, other=0)
        visible = visible & (query_depth - key_depth < window)
    return visible


@triton.jit
def _attend_to(
    mixed_MD, total_M, highest_M, query_MD, key_ptr, value_ptr, key_stride, value_stride,
    first_query, first_key, ends_ptr, depths_ptr, num_nodes, window, scale, PARTIAL: tl.constexpr,
    WINDOWED: tl.constexpr, BLOCK: tl.constexpr, HEAD: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Take one block of keys into the running softmax."""
    key_JD = _load_block(key_ptr, first_key, key_stride, num_nodes, BLOCK, HEAD, D)
    score_MJ = tl.dot(query_MD, tl.trans(key_JD), input_precision="ieee") * scale
    if PARTIAL:
        query = first_query + tl.arange(0, BLOCK)
        key = first_key + tl.arange(0, BLOCK)
        seen = _sees(
            query[:, None], key[None, :], ends_ptr, depths_ptr, num_nodes, window, WINDOWED
        )
        score_MJ = tl.where(seen, score_MJ, float("-inf"))
    now_highest_M = tl.maximum(highest_M, tl.max(score_MJ, 1))
    # A query that has seen no key yet has no highest score, and inf - inf is not a number.
    known_M = tl.where(now_highest_M == float("-inf"), 0.0, now_highest_M)
    shrink_M = tl.exp2(highest_M - known_M)
    probability_MJ = tl.exp2(score_MJ - known_M[:, None])
    total_M = total_M * shrink_M + tl.sum(probability_MJ, 1)
    value_JD = _load_block(value_ptr, first_key, value_stride, num_nodes, BLOCK, HEAD, D)
    mixed_MD = mixed_MD * shrink_M[:, None]
    mixed_MD += tl.dot(probability_MJ.to(value_JD.dtype), value_JD, input_precision="ieee")
    return mixed_MD, total_M, now_highest_M


@triton.jit(do_not_specialize=_VARYING)
def forward_kernel(
    query_ptr, key_ptr, value_ptr, output_ptr, level_ptr, ends_ptr, depths_ptr, starts_ptr,
    first_partial_ptr, partners_ptr, num_nodes, window, scale, query_head, query_node, key_head,
    key_node, value_head, value_node, output_head, output_node, GROUPS: tl.constexpr,
    WINDOWED: tl.constexpr, BLOCK: tl.constexpr, HEAD: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head: its output, and the logarithm of its softmax's sum.

    Grid: (blocks, query heads). X_head, X_node: strides of tensor X. level: (H, N), float32.
    """
    block = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    first_query = block * BLOCK
    key_ptr += head // GROUPS * key_head
    value_ptr += head // GROUPS * value_head
    query_MD = _load_block(
        query_ptr + head * query_head, first_query, query_node, num_nodes, BLOCK, HEAD, D
    )
    mixed_MD = tl.zeros([BLOCK, D], tl.float32)
    total_M = tl.zeros([BLOCK], tl.float32)
    highest_M = tl.full([BLOCK], float("-inf"), tl.float32)
    start = tl.load(starts_ptr + block)
    first_partial = tl.load(first_partial_ptr + block)
    stop = tl.load(starts_ptr + block + 1)
    for place in range(start, first_partial):
        first_key = tl.load(partners_ptr + place) * BLOCK
        mixed_MD, total_M, highest_M = _attend_to(
            mixed_MD, total_M, highest_M, query_MD, key_ptr, value_ptr, key_node, value_node,
            first_query, first_key, ends_ptr, depths_ptr, num_nodes, window, scale, False, WINDOWED,
            BLOCK, HEAD, D,
        )  # fmt: skip
    for place in range(first_partial, stop):
        first_key = tl.load(partners_ptr + place) * BLOCK
        mixed_MD, total_M, highest_M = _attend_to(
            mixed_MD, total_M, highest_M, query_MD, key_ptr, value_ptr, key_node, value_node,
            first_query, first_key, ends_ptr, depths_ptr, num_nodes, window, scale, True, WINDOWED,
            BLOCK, HEAD, D,
        )  # fmt: skip
    # Places beyond the last node see nothing; they are not stored.
    total_M = tl.where(total_M == 0.0, 1.0, total_M)
    _store_block(
        output_ptr + head * output_head, mixed_MD / total_M[:, None], first_query, output_node,
        num_nodes, BLOCK, HEAD, D,
    )  # fmt: skip
    node = first_query + tl.arange(0, BLOCK)
    level_M = highest_M + tl.log2(total_M)
    tl.store(level_ptr + head * num_nodes + node, level_M, mask=node < num_nodes)


@triton.jit
def _query_gradient_of(
    d_query_MD, query_MD, d_output_MD, level_M, delta_M, key_ptr, value_ptr, key_stride,
    value_stride, first_query, first_key, ends_ptr, depths_ptr, num_nodes, window, scale,
    PARTIAL: tl.constexpr, WINDOWED: tl.constexpr, BLOCK: tl.constexpr, HEAD: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """Add what one block of keys gives to the gradient of the queries, but for the scale."""
    key_JD = _load_block(key_ptr, first_key, key_stride, num_nodes, BLOCK, HEAD, D)
    value_JD = _load_block(value_ptr, first_key, value_stride, num_nodes, BLOCK, HEAD, D)
    score_MJ = tl.dot(query_MD, tl.trans(key_JD), input_precision="ieee") * scale
    probability_MJ = tl.exp2(score_MJ - level_M[:, None])
    if PARTIAL:
        query = first_query + tl.arange(0, BLOCK)
        key = first_key + tl.arange(0, BLOCK)
        seen = _sees(
            query[:, None], key[None, :], ends_ptr, depths_ptr, num_nodes, window, WINDOWED
        )
        probability_MJ = tl.where(seen, probability_MJ, 0.0)
    d_probability_MJ = tl.dot(d_output_MD, tl.trans(value_JD), input_precision="ieee")
    d_score_MJ = probability_MJ * (d_probability_MJ - delta_M[:, None])
    return d_query_MD + tl.dot(d_score_MJ.to(key_JD.dtype), key_JD, input_precision="ieee")


@triton.jit(do_not_specialize=_VARYING)
def query_gradient_kernel(
    query_ptr, key_ptr, value_ptr, output_ptr, d_output_ptr, d_query_ptr, level_ptr, delta_ptr,
    ends_ptr, depths_ptr, starts_ptr, first_partial_ptr, partners_ptr, num_nodes, window, scale,
    d_scale, query_head, query_node, key_head, key_node, value_head, value_node, output_head,
    output_node, d_output_head, d_output_node, d_query_head, d_query_node, GROUPS: tl.constexpr,
    WINDOWED: tl.constexpr, BLOCK: tl.constexpr, HEAD: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head: its gradient, and delta, which the keys' gradient needs.

    Grid: (blocks, query heads). delta: (H, N), the sum over D of output times its gradient.
    """
    block = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    first_query = block * BLOCK
    key_ptr += head // GROUPS * key_head
    value_ptr += head // GROUPS * value_head
    query_MD = _load_block(
        query_ptr + head * query_head, first_query, query_node, num_nodes, BLOCK, HEAD, D
    )
    d_output_MD = _load_block(
        d_output_ptr + head * d_output_head, first_query, d_output_node, num_nodes, BLOCK, HEAD, D
    )
    output_MD = _load_block(
        output_ptr + head * output_head, first_query, output_node, num_nodes, BLOCK, HEAD, D
    )
    delta_M = tl.sum(output_MD.to(tl.float32) * d_output_MD.to(tl.float32), 1)
    node = first_query + tl.arange(0, BLOCK)
    tl.store(delta_ptr + head * num_nodes + node, delta_M, mask=node < num_nodes)
    # Beyond the last node the level is endless, and every probability is 0.
    level_M = tl.load(
        level_ptr + head * num_nodes + node, mask=node < num_nodes, other=float("inf")
    )
    d_query_MD = tl.zeros([BLOCK, D], tl.float32)
    start = tl.load(starts_ptr + block)
    first_partial = tl.load(first_partial_ptr + block)
    stop = tl.load(starts_ptr + block + 1)
    for place in range(start, first_partial):
        first_key = tl.load(partners_ptr + place) * BLOCK
        d_query_MD = _query_gradient_of(
            d_query_MD, query_MD, d_output_MD, level_M, delta_M, key_ptr, value_ptr, key_node,
            value_node, first_query, first_key, ends_ptr, depths_ptr, num_nodes, window, scale,
            False, WINDOWED, BLOCK, HEAD, D,
        )  # fmt: skip
    for place in range(first_partial, stop):
        first_key = tl.load(partners_ptr + place) * BLOCK
        d_query_MD = _query_gradient_of(
            d_query_MD, query_MD, d_output_MD, level_M, delta_M, key_ptr, value_ptr, key_node,
            value_node, first_query, first_key, ends_ptr, depths_ptr, num_nodes, window, scale,
            True, WINDOWED, BLOCK, HEAD, D,
        )  # fmt: skip
    _store_block(
        d_query_ptr + head * d_query_head, d_query_MD * d_scale, first_query, d_query_node,
        num_nodes, BLOCK, HEAD, D,
    )  # fmt: skip


@triton.jit
def _key_gradient_of(
    d_key_MD, d_value_MD, key_MD, value_MD, query_ptr, d_output_ptr, level_ptr, delta_ptr,
    query_stride, d_output_stride, first_query, first_key, ends_ptr, depths_ptr, num_nodes, window,
    scale, PARTIAL: tl.constexpr, WINDOWED: tl.constexpr, BLOCK: tl.constexpr, HEAD: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """Add what one block of queries of one head gives to the gradients of keys and values."""
    query_JD = _load_block(query_ptr, first_query, query_stride, num_nodes, BLOCK, HEAD, D)
    d_output_JD = _load_block(d_output_ptr, first_query, d_output_stride, num_nodes, BLOCK, HEAD, D)
    query = first_query + tl.arange(0, BLOCK)
    level_J = tl.load(level_ptr + query, mask=query < num_nodes, other=float("inf"))
    delta_J = tl.load(delta_ptr + query, mask=query < num_nodes, other=0.0)
    score_MJ = tl.dot(key_MD, tl.trans(query_JD), input_precision="ieee") * scale
    probability_MJ = tl.exp2(score_MJ - level_J[None, :])
    if PARTIAL:
        key = first_key + tl.arange(0, BLOCK)
        seen = _sees(
            query[None, :], key[:, None], ends_ptr, depths_ptr, num_nodes, window, WINDOWED
        )
        probability_MJ = tl.where(seen, probability_MJ, 0.0)
    d_value_MD += tl.dot(probability_MJ.to(d_output_JD.dtype), d_output_JD, input_precision="ieee")
    d_probability_MJ = tl.dot(value_MD, tl.trans(d_output_JD), input_precision="ieee")
    d_score_MJ = probability_MJ * (d_probability_MJ - delta_J[None, :])
    d_key_MD += tl.dot(d_score_MJ.to(query_JD.dtype), query_JD, input_precision="ieee")
    return d_key_MD, d_value_MD


@triton.jit(do_not_specialize=_VARYING)
def key_gradient_kernel(
    query_ptr, key_ptr, value_ptr, d_output_ptr, d_key_ptr, d_value_ptr, level_ptr, delta_ptr,
    ends_ptr, depths_ptr, starts_ptr, first_partial_ptr, partners_ptr, num_nodes, window, scale,
    d_scale, query_head, query_node, key_head, key_node, value_head, value_node, d_output_head,
    d_output_node, d_key_head, d_key_node, d_value_head, d_value_node, GROUPS: tl.constexpr,
    WINDOWED: tl.constexpr, BLOCK: tl.constexpr, HEAD: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """One block of keys of one head: the gradients of keys and values, from all heads of its group.

    Grid: (blocks, key-value heads).
    """
    block = tl.program_id(0)
    kv_head = tl.program_id(1).to(tl.int64)
    first_key = block * BLOCK
    key_MD = _load_block(
        key_ptr + kv_head * key_head, first_key, key_node, num_nodes, BLOCK, HEAD, D
    )
    value_MD = _load_block(
        value_ptr + kv_head * value_head, first_key, value_node, num_nodes, BLOCK, HEAD, D
    )
    d_key_MD = tl.zeros([BLOCK, D], tl.float32)
    d_value_MD = tl.zeros([BLOCK, D], tl.float32)
    start = tl.load(starts_ptr + block)
    first_partial = tl.load(first_partial_ptr + block)
    stop = tl.load(starts_ptr + block + 1)
    for member in range(GROUPS):
        head = kv_head * GROUPS + member
        of_query = query_ptr + head * query_head
        of_d_output = d_output_ptr + head * d_output_head
        of_level = level_ptr + head * num_nodes
        of_delta = delta_ptr + head * num_nodes
        for place in range(start, first_partial):
            first_query = tl.load(partners_ptr + place) * BLOCK
            d_key_MD, d_value_MD = _key_gradient_of(
                d_key_MD, d_value_MD, key_MD, value_MD, of_query, of_d_output, of_level, of_delta,
                query_node, d_output_node, first_query, first_key, ends_ptr, depths_ptr, num_nodes,
                window, scale, False, WINDOWED, BLOCK, HEAD, D,
            )  # fmt: skip
        for place in range(first_partial, stop):
            first_query = tl.load(partners_ptr + place) * BLOCK
            d_key_MD, d_value_MD = _key_gradient_of(
                d_key_MD, d_value_MD, key_MD, value_MD, of_query, of_d_output, of_level, of_delta,
                query_node, d_output_node, first_query, first_key, ends_ptr, depths_ptr, num_nodes,
                window, scale, True, WINDOWED, BLOCK, HEAD, D,
            )  # fmt: skip
    _store_block(
        d_key_ptr + kv_head * d_key_head, d_key_MD * d_scale, first_key, d_key_node, num_nodes,
        BLOCK, HEAD, D,
    )  # fmt: skip
    _store_block(
        d_value_ptr + kv_head * d_value_head, d_value_MD, first_key, d_value_node, num_nodes, BLOCK,
        HEAD, D,
    )  # fmt: skip
