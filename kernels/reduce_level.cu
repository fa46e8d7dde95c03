// reduce_level.cu -- one inner level of all n max-trees from the level below.
//
// Computes      nodes[i, here + q] = max of nodes[i, below + q arity ..], up to arity children, the level below has
//               `size` nodes; for all i < n and the q in `parents` (or q = 0 .. count - 1 where gather is 0).
// Arguments     nodes (n, total) REAL in place; parents (count,) int32.
// Parallel      one thread per parent and tree; x of the grid runs over parents, y over trees, both with strides.  The
//               32 lanes of a warp read 32 arity neighbouring values: every sector is used whole, arity times from L1.
// Floor         n (size + count) sizeof(REAL) bytes for a full level (levels above the leaves add 1 / (arity - 1) of it).
// Deterministic yes: a maximum does not depend on the order.
// Versions      this one only.  Not yet measured on hardware: 16-byte loads, one lane per child with shuffles.

extern "C" __global__ void __launch_bounds__(256)
reduce_level(REAL* __restrict__ nodes, Index total, Index n, Index below, Index size, Index here, int arity,
             const int* __restrict__ parents, int gather, Index count) {
  for (Index i = blockIdx.y; i < n; i += gridDim.y) {
    REAL* tree = nodes + i * total;
    for (Index k = thread_index(); k < count; k += thread_count()) {
      const Index parent = gather ? parents[k] : k, first = parent * arity;
      const Index last = first + arity < size ? first + arity : size;
      REAL top = tree[below + first];
      for (Index child = first + 1; child < last; ++child) {
        const REAL value = tree[below + child];
        top = value > top ? value : top;
      }
      tree[here + parent] = top;
    }
  }
}
