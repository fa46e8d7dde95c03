// near_pairs.cu -- which listed pairs lie within reach of the threshold, neuron by neuron.
//
// Computes      for k < count, r = neurons[k]: the points of the entries starts[r] <= e < stops[r] with |values[e] - shift|
//               <= limits[k], in float64, in order; all points 0 .. n - 1 where limits[k] < 0.  count_near: counts[k] =
//               how many; list_near: the points, from places[k] on.
// Arguments     starts, stops (u,) int64; points (capacity,) int32; values (capacity,) REAL; neurons (count,) int32; limits
//               (count,) float64; counts (count,) int32; places (count + 1,) int64: their exclusive sums; out
//               (places[count],) int32.
// Parallel      groups of 8 lanes take one neuron each, a lane per entry; a vote gives each lane its place.
// Floor         bytes: sizeof(REAL) per entry and 32 (list_near 36) per neuron for each of the two, 8 per pair listed.
// Deterministic yes, exact.
// Versions      this one only.  Not yet measured on hardware: a warp per neuron where lists are long.

#define GROUP 8
#define GROUPS (WARP / GROUP)

struct Entries {
  Index start, stop;
  double limit;
};

// What the lane's group goes through: nothing beyond count, all points where the limit is negative.
__device__ __forceinline__ Entries entries_of(Index k, Index count, const int* neurons, const double* limits,
                                              const Index* starts, const Index* stops, int n) {
  if (k >= count) return Entries{0, 0, 0.0};
  const Index r = neurons[k];
  const double limit = limits[k];
  return limit < 0.0 ? Entries{0, n, limit} : Entries{starts[r], stops[r], limit};
}

// Votes of the lane's group for its entries e: bit t for lane t.
__device__ __forceinline__ Word votes_of(Entries entries, Index e, const REAL* values, double shift) {
  const bool near = e < entries.stop && (entries.limit < 0.0 || fabs(sub((double)values[e], shift)) <= entries.limit);
  return __ballot_sync(FULL_WARP, near) >> lane_index() / GROUP * GROUP & 0xffu;
}

extern "C" __global__ void __launch_bounds__(256)
count_near(const Index* __restrict__ starts, const Index* __restrict__ stops, const REAL* __restrict__ values,
           const int* __restrict__ neurons, const double* __restrict__ limits, double shift, Index count, int n,
           int* __restrict__ counts) {
  const int slot = lane_index() % GROUP;
  for (Index first = warp_index() * GROUPS; first < count; first += warp_count() * GROUPS) {
    const Index k = first + lane_index() / GROUP;
    const Entries entries = entries_of(k, count, neurons, limits, starts, stops, n);
    int found = 0;
    for (Index e = entries.start + slot; __any_sync(FULL_WARP, e < entries.stop); e += GROUP)
      found += __popc(votes_of(entries, e, values, shift));
    if (k < count && slot == 0) counts[k] = found;
  }
}

extern "C" __global__ void __launch_bounds__(256)
list_near(const Index* __restrict__ starts, const Index* __restrict__ stops, const int* __restrict__ points,
          const REAL* __restrict__ values, const int* __restrict__ neurons, const double* __restrict__ limits,
          double shift, Index count, int n, const Index* __restrict__ places, int* __restrict__ out) {
  const int slot = lane_index() % GROUP;
  for (Index first = warp_index() * GROUPS; first < count; first += warp_count() * GROUPS) {
    const Index k = first + lane_index() / GROUP;
    const Entries entries = entries_of(k, count, neurons, limits, starts, stops, n);
    Index place = k < count ? places[k] : 0;
    for (Index e = entries.start + slot; __any_sync(FULL_WARP, e < entries.stop); e += GROUP) {
      const Word votes = votes_of(entries, e, values, shift);
      if (votes >> slot & 1) out[place + __popc(votes & ((1u << slot) - 1u))] = entries.limit < 0.0 ? (int)e : points[e];
      place += __popc(votes);
    }
  }
}
