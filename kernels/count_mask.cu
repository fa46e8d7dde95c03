// count_mask.cu -- M^T M from packed masks.
//
// Computes      counts[i, j] = sum_w popcount(bits[w, i] & bits[w, j]), i, j < n.
// Arguments     bits (words, n) int64; counts (n, n) float64.
// Parallel      a block takes a tile of 32 x 32 pairs of points, every thread 4 of them; 32 words of its 64 points at a
//               time through shared memory.  Tiles above the diagonal are mirrored, not computed.
// Floor         n^2 words / 2 population counts of 64 bits (16 results of 32 bits per multiprocessor and clock).
// Deterministic yes, exact: whole numbers below 2^53.
// Versions      this one only.  Not yet measured on hardware: tensor cores, 1-bit (mma b1 with AND and POPC) or int8.

#define COUNT_TILE 32
#define COUNT_WORDS 32

extern "C" __global__ void __launch_bounds__(256)
count_mask(const Index* __restrict__ bits, Index words, Index n, double* __restrict__ counts) {
  __shared__ Word64 left[COUNT_WORDS][COUNT_TILE], right[COUNT_WORDS][COUNT_TILE];
  const int column = threadIdx.x % COUNT_TILE, row = threadIdx.x / COUNT_TILE;
  const Index side = (n + COUNT_TILE - 1) / COUNT_TILE;
  for (Index tile = blockIdx.x; tile < side * side; tile += gridDim.x) {
    const Index i0 = tile / side * COUNT_TILE, j0 = tile % side * COUNT_TILE;
    if (j0 > i0) continue;
    Index total[4] = {0, 0, 0, 0};
    for (Index w0 = 0; w0 < words; w0 += COUNT_WORDS) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const Index w = w0 + row + 8 * t;
        left[row + 8 * t][column] = w < words && i0 + column < n ? (Word64)bits[w * n + i0 + column] : 0ull;
        right[row + 8 * t][column] = w < words && j0 + column < n ? (Word64)bits[w * n + j0 + column] : 0ull;
      }
      __syncthreads();
      for (int k = 0; k < COUNT_WORDS; ++k) {
        const Word64 own = right[k][column];
#pragma unroll
        for (int t = 0; t < 4; ++t) total[t] += __popcll(left[k][row + 8 * t] & own);
      }
      __syncthreads();
    }
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const Index i = i0 + row + 8 * t, j = j0 + column;
      if (i >= n || j >= n) continue;
      counts[i * n + j] = (double)total[t];
      if (j0 < i0) counts[j * n + i] = (double)total[t];  // a tile on the diagonal has both already
    }
  }
}
