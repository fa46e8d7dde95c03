// mask_counts.cu -- how many neurons fire on each point, from packed masks.
//
// Computes      counts[p, i] = bits set in bits[w, i] over the words w = p, p + parts, ...
// Arguments     bits (words, n) int64; counts (parts, n) int64, which the caller adds up.
// Parallel      a thread per (part, point).
// Floor         u n / 8 bytes, u n / 64 population counts.
// Deterministic yes, exact: whole numbers.
// Versions      this one only.  Not yet measured on hardware.

extern "C" __global__ void __launch_bounds__(256)
mask_counts(const Index* __restrict__ bits, Index words, Index n, Index parts, Index* __restrict__ counts) {
  for (Index t = thread_index(); t < parts * n; t += thread_count()) {
    Index total = 0;
    for (Index w = t / n; w < words; w += parts) total += __popcll((Word64)bits[w * n + t % n]);
    counts[t] = total;
  }
}
