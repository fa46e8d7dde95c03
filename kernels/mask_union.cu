// mask_union.cu -- how many neurons fire at all, from packed masks.
//
// Computes      fired[w] = bits set in the union of bits[w, i] over the points i.
// Arguments     bits (words, n) int64; fired (words,) int32, which the caller adds up.
// Parallel      a thread per word.
// Floor         u n / 8 bytes, u n / 64 operations on words.
// Deterministic yes, exact: whole numbers.
// Versions      this one only.  Not yet measured on hardware.

extern "C" __global__ void __launch_bounds__(256)
mask_union(const Index* __restrict__ bits, Index words, Index n, int* __restrict__ fired) {
  for (Index w = thread_index(); w < words; w += thread_count()) {
    Word64 some = 0;
    for (Index i = 0; i < n; ++i) some |= (Word64)bits[w * n + i];
    fired[w] = __popcll(some);
  }
}
