// mask_sums.cu -- the sum of the points that a neuron fires on, and of its log: what implicit rows have moved by.
//
// Computes      out[k, j] = sum_i M_ri weighted_ij + sum_e coefficients_e x_{points_e, j} for r = neurons[k]; i ascends
//               over the points whose bit i % 64 of bits[r, i / 64] is set, e runs over the log entries heads[r],
//               before[heads[r]], ... until -1.  Where logged is 0 there is no second sum.
// Arguments     bits (u, words) int64; weighted (n, d) float64, coefficient times point; neurons (count,) int32; X (n, d)
//               REAL; heads (u,), before, points (L,) int32; coefficients (L,) float64; out (count, d) float64.
// Parallel      a warp takes a neuron; lanes hold features, 64 in a pass over the words.
// Floor         n d / 2 float64 sums for a neuron that fires on half of the points, from the L2 cache; bytes: count (n / 8
//               + 8 d).
// Deterministic yes, for any grid: points in order, then the log from its end.
// Versions      this one only.  Not yet measured on hardware: tables of the sums of four points in shared memory, as the
//               cpu device has them (an eighth of the sums); several neurons in a warp where d < 32; float64 tensor cores.

extern "C" __global__ void __launch_bounds__(256)
mask_sums(const Index* __restrict__ bits, Index words, const double* __restrict__ weighted,
          const int* __restrict__ neurons, Index count, const REAL* __restrict__ X, int d, const int* __restrict__ heads,
          const int* __restrict__ before, const int* __restrict__ points, const double* __restrict__ coefficients,
          int logged, double* __restrict__ out) {
  for (Index k = warp_index(); k < count; k += warp_count()) {
    const Index r = neurons[k];
    for (int j0 = 0; j0 < d; j0 += SUM_FEATURES) {
      const int j = j0 + lane_index();
      double total[SUM_PER_LANE];
#pragma unroll
      for (int t = 0; t < SUM_PER_LANE; ++t) total[t] = 0.0;
      for (Index q = 0; q < words; ++q)
        for (Word64 left = (Word64)bits[r * words + q]; left; left &= left - 1) {
          const double* row = weighted + (64 * q + __ffsll((Index)left) - 1) * d;
#pragma unroll
          for (int t = 0; t < SUM_PER_LANE; ++t)
            if (j + t * WARP < d) total[t] = add(total[t], row[j + t * WARP]);
        }
      for (int e = logged ? heads[r] : -1; e >= 0; e = before[e]) {
        const REAL* x = X + (Index)points[e] * d;
#pragma unroll
        for (int t = 0; t < SUM_PER_LANE; ++t)
          if (j + t * WARP < d) total[t] = add(total[t], mul(coefficients[e], (double)x[j + t * WARP]));
      }
#pragma unroll
      for (int t = 0; t < SUM_PER_LANE; ++t)
        if (j + t * WARP < d) out[k * d + j + t * WARP] = total[t];
    }
  }
}
