// move_rows.cu -- the weight update, and how far each row moved, in one pass.
//
// Computes      W[r, j] <- REAL(W[r, j] - weights[k] sum_q g_i x_ij), r = neurons[k], over indptr[k] <= q < indptr[k + 1],
//               i = points[q], sums in float64; moved[k] = the Euclidean norm of new minus old row, as stored.
// Arguments     W (m, d) REAL in place; X (n, d) REAL; g (n,), weights (u,) float64; neurons (u,) int32, distinct; indptr
//               (u + 1,) int64, points (nnz,) int32; moved (u,) float64.
// Parallel      a warp takes a neuron, its lanes neighbouring features, 64 at a time, sums in registers; rows of W and X
//               are read and written by neighbouring lanes; grid-stride.
// Floor         2 u d sizeof(REAL) + 4 nnz + 28 u bytes; nnz d sizeof(REAL) bytes of X from the L2 cache; 2 nnz d
//               float64 operations.
// Deterministic yes, for any grid: points in the order of the list, then shuffles.
// Versions      this one only.  Measuring the movement apart would read the rows twice more, and keep a copy of them.
//               Not yet measured on hardware: 16 lanes per neuron for d <= 32.

extern "C" __global__ void __launch_bounds__(256)
move_rows(REAL* __restrict__ W, const REAL* __restrict__ X, const double* __restrict__ g,
          const double* __restrict__ weights, const int* __restrict__ neurons, const Index* __restrict__ indptr,
          const int* __restrict__ points, Index u, int d, double* __restrict__ moved) {
  const int lane = lane_index();
  for (Index k = warp_index(); k < u; k += warp_count()) {
    REAL* row = W + (Index)neurons[k] * d;
    double square = 0.0;
    for (int j0 = 0; j0 < d; j0 += SUM_FEATURES) {
      double total[SUM_PER_LANE];
      weighted_sum(X, g, points, indptr[k], indptr[k + 1], j0, d, total);
#pragma unroll
      for (int t = 0; t < SUM_PER_LANE; ++t) {
        const int j = j0 + t * WARP + lane;
        if (j >= d) continue;
        const double before = (double)row[j];
        const REAL after = (REAL)sub(before, mul(weights[k], total[t]));
        const double distance = sub((double)after, before);
        row[j] = after;
        square = __fma_rn(distance, distance, square);
      }
    }
    for (int distance = WARP / 2; distance; distance /= 2) square = add(square, __shfl_xor_sync(FULL_WARP, square, distance));
    if (lane == 0) moved[k] = __dsqrt_rn(square);
  }
}
