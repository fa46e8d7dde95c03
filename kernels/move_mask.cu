// move_mask.cu -- the weight update from packed masks, and how far each row moved, in one pass.
//
// Computes      W[r, j] <- REAL(W[r, j] - weights[r] sum_i M_ri g_i x_ij), i over the points whose bit r % 64 of
//               bits[r / 64, i] is set, sums in float64; moved[r] = the Euclidean norm of new minus old row, as stored.
// Arguments     W (u, d) REAL in place; weighted (n, d) float64, g_i x_ij; bits (words, n) int64; weights, moved (u,)
//               float64.
// Parallel      a thread takes a neuron, so that a warp reads one word for 32 neurons and one weighted point at a time,
//               both broadcast; eight features in registers per pass over the points.
// Floor         2 u n d float64 operations, every pair whether it fires or not; bytes: 2 u d sizeof(REAL) + u n / 8.
// Deterministic yes, for any grid: points in order.
// Versions      this one only.  Not yet measured on hardware: tables of the sums of eight points in shared memory, as the
//               cpu device has them (an eighth of the operations); float64 tensor cores.

#define MOVED_FEATURES 8

extern "C" __global__ void __launch_bounds__(256)
move_mask(REAL* __restrict__ W, const double* __restrict__ weighted, const Index* __restrict__ bits,
          const double* __restrict__ weights, Index n, Index u, int d, double* __restrict__ moved) {
  for (Index r = thread_index(); r < u; r += thread_count()) {
    const Index* words = bits + r / 64 * n;
    double square = 0.0;
    for (int j0 = 0; j0 < d; j0 += MOVED_FEATURES) {
      double total[MOVED_FEATURES];
#pragma unroll
      for (int t = 0; t < MOVED_FEATURES; ++t) total[t] = 0.0;
      for (Index i = 0; i < n; ++i) {
        if (!((Word64)words[i] >> (r % 64) & 1)) continue;
#pragma unroll
        for (int t = 0; t < MOVED_FEATURES; ++t)
          if (j0 + t < d) total[t] = add(total[t], weighted[i * d + j0 + t]);
      }
#pragma unroll
      for (int t = 0; t < MOVED_FEATURES; ++t) {
        if (j0 + t >= d) continue;
        const double before = (double)W[r * d + j0 + t];
        const REAL after = (REAL)sub(before, mul(weights[r], total[t]));
        const double distance = sub((double)after, before);
        W[r * d + j0 + t] = after;
        square = add(square, mul(distance, distance));
      }
    }
    moved[r] = __dsqrt_rn(square);
  }
}
