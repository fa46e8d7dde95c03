// count_flips.cu -- how M^T M changes by flips.
//
// Computes      twice[i, j] = sum over the flips (r, i) of delta_ri (M'_rj + M_rj), delta = M' - M, so that half of twice
//               and of its transpose make delta^T M' + M^T delta.
// Arguments     bits (u, words) int64, after the flips; old (count, words) int64, words of the neurons that have flips
//               before them; neurons (f,) int32; slots (f,) int32, the row of old for each flip; order (f,) int64, flips
//               by point; ends (n + 1,) int64, where each point's start in it; twice (n, n) int32.
// Parallel      y of the grid runs over points i, x over j; a thread goes through the flips of its point, and a warp
//               shares the words.
// Floor         4 f n operations on bits, 16 f + 4 n^2 bytes, and f n / 4 from the L2 cache.
// Deterministic yes: whole numbers.
// Versions      this one only.  Not yet measured on hardware: parts of the flips of a point for more blocks where n is
//               small; 64 counts in bit slices, as the cpu device has them.

__device__ __forceinline__ int bit(Index word, Index place) { return (int)((Word64)word >> place & 1); }

extern "C" __global__ void __launch_bounds__(256)
count_flips(const Index* __restrict__ bits, const Index* __restrict__ old, Index words, const int* __restrict__ neurons,
            const int* __restrict__ slots, const Index* __restrict__ order, const Index* __restrict__ ends, Index n,
            int* __restrict__ twice) {
  for (Index i = blockIdx.y; i < n; i += gridDim.y)
    for (Index j = thread_index(); j < n; j += thread_count()) {
      int sum = 0;
      for (Index t = ends[i]; t < ends[i + 1]; ++t) {
        const Index e = order[t];
        const Index *now = bits + neurons[e] * words, *was = old + slots[e] * words;
        const int both = bit(now[j / 64], j % 64) + bit(was[j / 64], j % 64);
        sum += bit(now[i / 64], i % 64) ? both : -both;
      }
      twice[i * n + j] = sum;
    }
}
