// keep_above.cu -- the candidate pairs whose product exceeds a threshold, neuron by neuron.
//
// Computes      for k < count: the points of the candidates indptr[k] <= q < indptr[k + 1] with products[q] >
//               thresholds[k], strictly, from starts[k] on and, where valued is not 0, slots[k] and products[q] beside
//               each, all in order.
// Arguments     indptr (count + 1,) int64, points (c,) int32; products (c,), thresholds (count,) REAL; starts (count + 1,)
//               int64: exclusive sums of the numbers above; slots (count,) int32: position of the neuron among those that
//               fire; out_points, out_slots (nnz,) int32, out_values (nnz,) REAL.
// Parallel      groups of 8 lanes take one neuron each, a lane per candidate; a vote gives each lane its place.  The order
//               by points is a stable sort of out_points by the caller.
// Floor         bytes: c (4 + sizeof(REAL)), 24 per neuron; kept: nnz (8 + sizeof(REAL)), and the sort.
// Deterministic yes, exact.
// Versions      this one only.  Not yet measured on hardware: a sort of 16-bit points, or of none (counts per block of
//               neurons and point).
//               Without the wish for 4 blocks in the launch bounds ptxas 13 aims at more, and spills.

#define GROUP 8
#define GROUPS (WARP / GROUP)

extern "C" __global__ void __launch_bounds__(256, 4)
keep_above(const Index* __restrict__ indptr, const int* __restrict__ points, const REAL* __restrict__ products,
           const REAL* __restrict__ thresholds, const Index* __restrict__ starts, const int* __restrict__ slots, Index count,
           int* __restrict__ out_points, int* __restrict__ out_slots, REAL* __restrict__ out_values, int valued) {
  const int lane = lane_index(), group = lane / GROUP;
  for (Index first = warp_index() * GROUPS; first < count; first += warp_count() * GROUPS) {
    const Index k = first + group;
    const bool listed = k < count;
    const REAL threshold = listed ? thresholds[k] : (REAL)0;
    const Index stop = listed ? indptr[k + 1] : 0;
    Index place = listed ? starts[k] : 0;
    for (Index q = (listed ? indptr[k] : 0) + lane % GROUP; __any_sync(FULL_WARP, q < stop); q += GROUP) {
      const REAL value = q < stop ? products[q] : threshold;
      const unsigned above = __ballot_sync(FULL_WARP, value > threshold) >> group * GROUP & 0xffu;
      if (value > threshold) {
        const Index here = place + __popc(above & ((1u << lane % GROUP) - 1u));
        out_points[here] = points[q];
        if (valued) {
          out_slots[here] = slots[k];
          out_values[here] = value;
        }
      }
      place += __popc(above);
    }
  }
}
