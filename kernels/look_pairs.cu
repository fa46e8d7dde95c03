// look_pairs.cu -- exact pre-activations of chosen pairs, and whose bit is wrong.
//
// Computes      products[e] = <rows_k, x_i> in float64 for k < count, starts[k] <= e < starts[k + 1], i = points[e]; wrong[e]
//               = whether (products[e] > shift) differs from bit i % 64 of bits[neurons[k], i / 64].
// Arguments     rows (count, d) float64; X (n, d) REAL; bits (u, words) int64; neurons (count,) int32; starts (count + 1,)
//               int64; points (c,) int32; products (c,) float64; wrong (c,) bool.
// Parallel      groups of 8 lanes take one neuron each and walk its pairs; a lane sums every eighth feature, then shuffles.
// Floor         c d float64 fused products; bytes: 8 d + 20 per neuron, 13 per pair; rows of X from the L2 cache.
// Deterministic yes, for any grid: features by lanes, lanes in a tree.
// Versions      this one only.  Not yet measured on hardware: a lane per pair with rows staged through shared memory, as in
//               evaluate_candidates.cu; a row kept in registers while its pairs are walked.
//               Without the wish for 4 blocks in the launch bounds ptxas 13 aims at more, and spills.

#define GROUP 8
#define GROUPS (WARP / GROUP)

extern "C" __global__ void __launch_bounds__(256, 4)
look_pairs(const double* __restrict__ rows, const REAL* __restrict__ X, int d, const Index* __restrict__ bits,
           Index words, const int* __restrict__ neurons, const Index* __restrict__ starts,
           const int* __restrict__ points, double shift, Index count, double* __restrict__ products,
           unsigned char* __restrict__ wrong) {
  const int slot = lane_index() % GROUP;
  for (Index first = warp_index() * GROUPS; first < count; first += warp_count() * GROUPS) {
    const Index k = first + lane_index() / GROUP;
    const Index stop = k < count ? starts[k + 1] : 0;
    for (Index e = k < count ? starts[k] : 0; __any_sync(FULL_WARP, e < stop); ++e) {
      const Index i = e < stop ? points[e] : 0;
      double sum = 0.0;
      if (e < stop)
        for (int j = slot; j < d; j += GROUP) sum = __fma_rn(rows[k * d + j], (double)X[i * d + j], sum);
      for (int distance = GROUP / 2; distance; distance /= 2)
        sum = add(sum, __shfl_xor_sync(FULL_WARP, sum, distance));
      if (e < stop && slot == 0) {
        products[e] = sum;
        wrong[e] = (sum > shift) != (((Word64)bits[neurons[k] * words + i / 64] >> (i % 64) & 1) != 0);
      }
    }
  }
}
