// list_products.cu -- products with J, J^T and J J^T from the lists of fired pairs; J itself is never stored.
//
// Computes      s_k = sum_q g_i x_i over indptr[k] <= q < indptr[k + 1], i = points[q], in float64;
//               gram: sum over parts of partial[part, i] = sum over the neurons k of i of <s_k, x_i>;
//               product: the same with weights[k] V_k in place of s_k;   transposed: out[k] = weights[k] s_k.
// Arguments     X (n, d) REAL; indptr (u + 1,) int64, points (nnz,) int32; g (n,), weights (u,), V (u, d), out (u, d)
//               float64; partial (parts, n) float64, zeroed: part b belongs to neurons b u / parts .. (b + 1) u / parts.
// Parallel      a warp takes a neuron, its lanes neighbouring features, 64 at a time, sums in registers; products with
//               the points are summed by shuffles, and lane l keeps that of the l-th point.  Neurons add to points
//               they share: each part has sums of its own and one warp, which takes its neurons one after another (the
//               points of one neuron differ, so its lanes never meet); the caller adds the parts.
// Floor         gram: 4 nnz d float64 operations; nnz d sizeof(REAL) bytes twice, of X, from the L2 cache; 4 nnz +
//               8 u bytes; 32 nnz to and from the parts, in the L2 cache.  product: half of the operations and of X, 8 u d
//               bytes of V.  transposed: likewise, 8 u d bytes written.  Parts: 24 n parts bytes (clear, add).
// Deterministic yes, for any grid: the order of all sums depends on the lists and on parts alone; the caller's sum over
//               the parts is CuPy's, whose order depends on the shape alone.  No atomics.
// Versions      parts: this file.  Rejected on paper: gathering by point, either of s_k (8 d bytes per pair from memory)
//               or of products stored per pair (needs a transposed order of the lists, a sort as long as the product);
//               64-bit fixed point with atomics (nnz adds on n addresses).  Not yet measured on hardware: summing
//               several points' shuffles at once; 16 lanes per neuron for d <= 32.
//               Without the wish for 4 blocks in the launch bounds ptxas 13 aims at more, and spills.

// Adds <total, x_i>, over the features of weighted_sum, to sums[i] for the listed points.
__device__ __forceinline__ void add_products(const REAL* __restrict__ X, const int* __restrict__ points, Index start,
                                             Index stop, int j0, int d, const double* total, double* sums) {
  for (Index base = start; base < stop; base += WARP) {
    const int batch = stop - base < WARP ? (int)(stop - base) : WARP;
    const int point = lane_index() < batch ? points[base + lane_index()] : 0;
    double kept = 0.0;
#pragma unroll 4
    for (int l = 0; l < batch; ++l) {
      const Index i = __shfl_sync(FULL_WARP, point, l);
      double product = 0.0;
#pragma unroll
      for (int t = 0; t < SUM_PER_LANE; ++t) {
        const int j = j0 + t * WARP + lane_index();
        if (j < d) product = __fma_rn(total[t], (double)X[i * d + j], product);
      }
#pragma unroll
      for (int distance = WARP / 2; distance; distance /= 2)
        product = add(product, __shfl_xor_sync(FULL_WARP, product, distance));
      if (lane_index() == l) kept = product;
    }
    if (lane_index() < batch) sums[point] = add(sums[point], kept);
  }
  __syncwarp();  // the next neuron's lanes read what these wrote
}

extern "C" __global__ void __launch_bounds__(256, 4)
factored_gram(const REAL* __restrict__ X, const double* __restrict__ g, const Index* __restrict__ indptr,
              const int* __restrict__ points, Index u, Index n, int d, Index parts, double* partial) {
  double total[SUM_PER_LANE];
  for (Index part = warp_index(); part < parts; part += warp_count())
    for (Index k = part * u / parts; k < (part + 1) * u / parts; ++k)
      for (int j0 = 0; j0 < d; j0 += SUM_FEATURES) {
        weighted_sum(X, g, points, indptr[k], indptr[k + 1], j0, d, total);
        add_products(X, points, indptr[k], indptr[k + 1], j0, d, total, partial + part * n);
      }
}

extern "C" __global__ void __launch_bounds__(256, 4)
factored_product(const REAL* __restrict__ X, const double* __restrict__ V, const double* __restrict__ weights,
                 const Index* __restrict__ indptr, const int* __restrict__ points, Index u, Index n, int d, Index parts,
                 double* partial) {
  double total[SUM_PER_LANE];
  for (Index part = warp_index(); part < parts; part += warp_count())
    for (Index k = part * u / parts; k < (part + 1) * u / parts; ++k)
      for (int j0 = 0; j0 < d; j0 += SUM_FEATURES) {
#pragma unroll
        for (int t = 0; t < SUM_PER_LANE; ++t) {
          const int j = j0 + t * WARP + lane_index();
          total[t] = j < d ? mul(weights[k], V[k * d + j]) : 0.0;
        }
        add_products(X, points, indptr[k], indptr[k + 1], j0, d, total, partial + part * n);
      }
}

extern "C" __global__ void __launch_bounds__(256, 4)
factored_transposed(const REAL* __restrict__ X, const double* __restrict__ g, const double* __restrict__ weights,
                    const Index* __restrict__ indptr, const int* __restrict__ points, Index u, int d,
                    double* __restrict__ out) {
  double total[SUM_PER_LANE];
  for (Index k = warp_index(); k < u; k += warp_count())
    for (int j0 = 0; j0 < d; j0 += SUM_FEATURES) {
      weighted_sum(X, g, points, indptr[k], indptr[k + 1], j0, d, total);
#pragma unroll
      for (int t = 0; t < SUM_PER_LANE; ++t) {
        const int j = j0 + t * WARP + lane_index();
        if (j < d) out[k * d + j] = mul(weights[k], total[t]);
      }
    }
}
