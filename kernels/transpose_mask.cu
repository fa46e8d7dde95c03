// transpose_mask.cu -- packed masks from words of neurons to words of points: a transposition of bits.
//
// Computes      out[r, q], bit k = bits[r / 64, 64 q + k], bit r % 64, for r < u, q < columns; 0 for points from n on.
// Arguments     bits (words, n) int64, words = ceil(u / 64); out (u, columns) int64, columns = ceil(n / 64).
// Parallel      a warp takes a tile of 64 neurons x 64 points, two words a lane.  A vote over one bit of all lanes is half
//               a word of the result, and the lane of that neuron keeps it.
// Floor         u n / 4 bytes.
// Deterministic yes, exact.
// Versions      this one only.  Not yet measured on hardware: a tile through shared memory, so that a neuron's words are
//               written together; the exchange of halves, quarters, ... by shuffles (6 steps instead of 128 votes).

extern "C" __global__ void __launch_bounds__(256)
transpose_mask(const Index* __restrict__ bits, Index words, Index n, Index u, Index columns, Index* __restrict__ out) {
  const int lane = lane_index();
  for (Index tile = warp_index(); tile < words * columns; tile += warp_count()) {
    const Index w = tile / columns, q = tile % columns, i = 64 * q + lane;
    const Word64 first = i < n ? (Word64)bits[w * n + i] : 0ull;
    const Word64 second = i + WARP < n ? (Word64)bits[w * n + i + WARP] : 0ull;
    for (int half = 0; half < 64; half += WARP) {
      Word64 own = 0;  // of neuron 64 w + half + lane
#pragma unroll 8
      for (int k = 0; k < WARP; ++k) {
        const Word low = __ballot_sync(FULL_WARP, first >> (half + k) & 1);
        const Word high = __ballot_sync(FULL_WARP, second >> (half + k) & 1);
        if (lane == k) own = (Word64)low | (Word64)high << 32;
      }
      const Index r = 64 * w + half + lane;
      if (r < u) out[r * columns + q] = (Index)own;
    }
  }
}
