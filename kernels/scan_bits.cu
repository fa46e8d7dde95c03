// scan_bits.cu -- which pairs exceed their neuron's threshold, one bit each: candidates of the certified lazy index.
//
// Computes      for k < count, r = neurons[k]: bits[t, k], bit p: whether ((x_i0 w_r0 + x_i1 w_r1) + x_i2 w_r2) + ... >
//               thresholds[k], i = 64 t + p, products and sums rounded as in fill_leaves; 0 for points from n on.
// Arguments     X (n, d), W (m, d), thresholds (count,) REAL; neurons (count,) int32; bits (tiles, count) int64, tiles =
//               ceil(n / 64).  list_bits.cu makes lists of them.
// Parallel      the tile of fill_leaves, 64 points x 128 neurons for a block of 8 warps, 16 features at a time through
//               shared memory, 8 points x 4 neurons in a thread's registers; a thread compares its 32 numbers and leaves
//               4 bytes in shared memory, then 128 threads write one word each, neighbours in memory.  The caller takes
//               as many neurons at a time as 64 MiB of bits hold.
// Floor         count n d products and as many sums (not fused, as the computed number demands): this is what it costs.
//               Bytes: sizeof(REAL) (count d + n d), count n / 8 of bits.
// Deterministic yes; bits equal on every device.
// Versions      bits, then lists: this file.  Rejected on paper: computing twice, to count and to fill (twice the floor
//               to save 3/8 byte per pair); numbers in memory, then a compaction (4 to 8 bytes per pair, 32 to 64 times
//               the bits); appending by atomics (order of the output left to chance).  Not yet measured on hardware:
//               what fill_leaves.cu lists, and a first pass with fused multiply-adds or TF32 tensor cores that leaves
//               only pairs within its rounding of the threshold to the computed number (half of the floor, or less).

extern "C" __global__ void __launch_bounds__(256)
scan_bits(const REAL* __restrict__ X, Index n, const REAL* __restrict__ W, const int* __restrict__ neurons,
          const REAL* __restrict__ thresholds, Index count, int d, Index* __restrict__ bits) {
  alignas(16) __shared__ REAL points_tile[TILE_FEATURES * (TILE_POINTS + TILE_PAD)];
  alignas(16) __shared__ REAL neurons_tile[TILE_FEATURES * (TILE_NEURONS + TILE_PAD)];
  __shared__ Word64 words[TILE_NEURONS];
  const int lane = lane_index(), warp = threadIdx.x / WARP;
  const Index point_tiles = (n + TILE_POINTS - 1) / TILE_POINTS;
  const Index tiles = point_tiles * ((count + TILE_NEURONS - 1) / TILE_NEURONS);
  for (Index tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const Index t = tile % point_tiles, i0 = t * TILE_POINTS, k0 = tile / point_tiles * TILE_NEURONS;
    REAL sum[8][4];
    tile_numbers(sum, points_tile, neurons_tile, X, i0, n, W, neurons, k0, count, d);

    unsigned char* bytes = (unsigned char*)words;  // byte `warp` of a word holds the points of that warp
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const Index k = k0 + q * WARP + lane;
      unsigned above = 0;
      if (k < count) {
        const REAL threshold = thresholds[k];
#pragma unroll
        for (int p = 0; p < 8; ++p) above |= (i0 + warp * 8 + p < n && sum[p][q] > threshold ? 1u : 0u) << p;
      }
      bytes[(q * WARP + lane) * 8 + warp] = (unsigned char)above;
    }
    __syncthreads();
    if (threadIdx.x < TILE_NEURONS && k0 + threadIdx.x < count)
      bits[t * count + k0 + threadIdx.x] = (Index)words[threadIdx.x];
    // the barriers of the next tile's features keep its bytes behind these reads
  }
}
