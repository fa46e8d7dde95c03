// flip_mask.cu -- turns bits over, logs that, and changes M^T M.
//
// Computes      flip_bits: for the flips e of a neuron, runs[k] <= e < runs[k + 1], r = neurons[e], i = points[e]: bit i % 64
//               of bits[r, i / 64] is turned over; before[e] = the log entry of r before it, entry size + e is its own,
//               the last one becomes heads[r]; coefficients[e] = -total[i] if the pair fires now, else total[i];
//               change[k] = whether r fires on some point now, minus before.
//               count_flips: twice[i, j] = sum over the flips (r, i) of delta_ri (M'_rj + M_rj), delta = M' - M, so that
//               half of twice and of its transpose make delta^T M' + M^T delta.
// Arguments     bits (u, words) int64, in place; runs (count + 1,) int64; neurons, points, before (f,) int32, ascending by
//               neuron, then point; total (n,), coefficients (f,) float64; heads (u,) int32, in place; change (count,)
//               int32.  After the flips: old (count, words) int64, words of the neurons of the runs before; slots (f,)
//               int32, the run of each flip; order (f,) int64, flips by point; ends (n + 1,) int64, where each point's
//               start in it; twice (n, n) int32.
// Parallel      flip_bits: a thread takes a neuron's run.  count_flips: y of the grid runs over points i, x over j; a thread
//               goes through the flips of its point, and a warp shares the words.
// Floor         where every flip has a neuron of its own: flip_bits f (52 + n / 8) bytes; count_flips 4 f n operations on
//               bits, 16 f + 4 n^2 bytes, and f n / 4 from the L2 cache.
// Deterministic yes: whole numbers.
// Versions      this one only.  Not yet measured on hardware: parts of the flips of a point for more blocks where n is
//               small; 64 counts in bit slices, as the cpu device has them.

__device__ __forceinline__ int bit(Index word, Index place) { return (int)((Word64)word >> place & 1); }

__device__ __forceinline__ int some(const Index* words, Index count) {
  Index every = 0;
  for (Index q = 0; q < count; ++q) every |= words[q];
  return every != 0;
}

extern "C" __global__ void __launch_bounds__(256)
flip_bits(Index* __restrict__ bits, Index words, const Index* __restrict__ runs, Index count,
          const int* __restrict__ neurons, const int* __restrict__ points, const double* __restrict__ total, int size,
          int* __restrict__ heads, int* __restrict__ before, double* __restrict__ coefficients, int* __restrict__ change) {
  for (Index k = thread_index(); k < count; k += thread_count()) {
    const Index r = neurons[runs[k]];
    Index* own = bits + r * words;
    const int fired = some(own, words);
    int head = heads[r];
    for (Index e = runs[k]; e < runs[k + 1]; ++e) {
      const int i = points[e];
      own[i / 64] = (Index)((Word64)own[i / 64] ^ 1ull << i % 64);
      before[e] = head;
      head = size + (int)e;
      coefficients[e] = bit(own[i / 64], i % 64) ? -total[i] : total[i];
    }
    heads[r] = head;
    change[k] = some(own, words) - fired;
  }
}

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
