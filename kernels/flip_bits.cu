// flip_bits.cu -- turns bits over and logs that, neuron by neuron.
//
// Computes      for the flips e of a neuron, runs[k] <= e < runs[k + 1], r = neurons[e], i = points[e]: bit i % 64 of
//               bits[r, i / 64] is turned over; before[e] = the log entry of r before it, entry size + e is its own, the
//               last one becomes heads[r]; coefficients[e] = -total[i] if the pair fires now, else total[i]; change[k] =
//               whether r fires on some point now, minus before.
// Arguments     bits (u, words) int64, in place; runs (count + 1,) int64; neurons, points, before (f,) int32, ascending by
//               neuron, then point; total (n,), coefficients (f,) float64; heads (u,) int32, in place; change (count,)
//               int32.
// Parallel      a thread takes a neuron's run.
// Floor         where every flip has a neuron of its own: f (52 + n / 8) bytes.
// Deterministic yes: whole numbers.
// Versions      this one only.  Not yet measured on hardware.

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
