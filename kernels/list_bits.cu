// list_bits.cu -- lists of points from words of points, neuron by neuron.
//
// Computes      for k < count: counts[k] = bits set in bits[t, k] over the words t < tiles; then the ascending points
//               64 t + p of the bits p that are set, from starts[k] on.
// Arguments     bits (tiles, count) int64; counts (count,) int32; starts (count + 1,) int64: their exclusive sums; points
//               (starts[count],) int32.
// Parallel      count_bits, list_bits: one thread per neuron walks its words; neighbouring threads read neighbouring words
//               and write neighbouring lists.
// Floor         2 x count tiles 8 bytes of bits, 4 + 8 per neuron, 4 per pair listed.
// Deterministic yes, exact.
// Versions      count, then list: this file.  Not yet measured on hardware: a warp per neuron where there are many words.

extern "C" __global__ void __launch_bounds__(256)
count_bits(const Index* __restrict__ bits, Index tiles, Index count, int* __restrict__ counts) {
  for (Index k = thread_index(); k < count; k += thread_count()) {
    int above = 0;
    for (Index t = 0; t < tiles; ++t) above += __popcll((Word64)bits[t * count + k]);
    counts[k] = above;
  }
}

extern "C" __global__ void __launch_bounds__(256)
list_bits(const Index* __restrict__ bits, Index tiles, Index count, const Index* __restrict__ starts,
          int* __restrict__ points) {
  for (Index k = thread_index(); k < count; k += thread_count()) {
    int* place = points + starts[k];
    for (Index t = 0; t < tiles; ++t)
      for (Word64 left = (Word64)bits[t * count + k]; left; left &= left - 1)
        *place++ = (int)(t * TILE_POINTS) + __ffsll((Index)left) - 1;
  }
}
