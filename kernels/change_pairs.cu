// change_pairs.cu -- from M^T M of one set of lists to that of another, by the pairs that flipped.
//
// Computes      per neuron, delta = 1_new - 1_old over the points: costs = |delta| (|old| + |new|), and
//               change[i, l] += delta_i new_l, change[l, i] += old_l delta_i for all i, l.
// Arguments     old and new lists: neurons (count,) int32 ascending, indptr (count + 1,) int64, points int32 ascending
//               per neuron.  Item t < old_count is old neuron t with its new list, if any; item old_count + k is new
//               neuron k, with no list at all where it has an old one, as that is an item already.  costs (old_count +
//               new_count,) int64; changed (items,) int64: the items with costs; change (n, n) int32, zeroed.
// Parallel      flip_costs: groups of 8 lanes take one item each; a binary search finds the neuron's other list, and one
//               in it for each point says who stayed.  change_counts: a warp per changed item votes on 32 points at a
//               time, then adds the two lists of the neuron for each that flipped.
// Floor         costs: 4 bytes per pair of both sets, 12 per neuron, 8 per item; a search is log2(length) reads, cached.
//               change: sum of costs integer atomics in the L2 cache, in rows (new) and columns (old); 8 n^2 + 16 n^2
//               bytes to clear the change and add it to the counts.
// Deterministic yes: integer sums.
// Versions      two launches with the cost between them: this file.  Atomics on the float64 counts would be exact too
//               (whole numbers below 2^53) and save the n x n change, but they are twice as wide.  Not yet
//               measured on hardware: a merge of the lists in shared memory where they are long.
//               Without the wish for 4 blocks in the launch bounds ptxas 13 aims at more, and spills.

#define GROUP 8
#define GROUPS (WARP / GROUP)

struct Lists {
  const int* neurons;
  const Index* indptr;
  const int* points;
  Index count;
};

struct Item {
  Index p, p_end, q, q_end;  // the neuron's range in the old points, and in the new ones
};

// Position of `wanted` in values[start .. stop], ascending, or -1.
__device__ __forceinline__ Index find(const int* __restrict__ values, Index start, Index stop, int wanted) {
  Index low = start, high = stop;
  while (low < high) {
    const Index middle = low + (high - low) / 2;
    if (values[middle] < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  return low < stop && values[low] == wanted ? low : -1;
}

__device__ __forceinline__ Item look_up(const Lists& before, const Lists& after, Index t) {
  Item item = {0, 0, 0, 0};
  if (t >= before.count + after.count) return item;
  const bool first = t < before.count;
  Index o = t, k = t - before.count;
  if (first)
    k = find(after.neurons, 0, after.count, before.neurons[o]);
  else if (find(before.neurons, 0, before.count, after.neurons[k]) >= 0)
    return item;
  if (first) item.p = before.indptr[o], item.p_end = before.indptr[o + 1];
  if (k >= 0) item.q = after.indptr[k], item.q_end = after.indptr[k + 1];
  return item;
}

extern "C" __global__ void __launch_bounds__(256, 4)
flip_costs(const int* __restrict__ old_neurons, const Index* __restrict__ old_indptr, const int* __restrict__ old_points,
           Index old_count, const int* __restrict__ new_neurons, const Index* __restrict__ new_indptr,
           const int* __restrict__ new_points, Index new_count, Index* __restrict__ costs) {
  const Lists before = {old_neurons, old_indptr, old_points, old_count};
  const Lists after = {new_neurons, new_indptr, new_points, new_count};
  const Index items = old_count + new_count;
  for (Index first = warp_index() * GROUPS; first < items; first += warp_count() * GROUPS) {
    const Index t = first + lane_index() / GROUP;
    const Item item = look_up(before, after, t);
    int stayed = 0;
    for (Index p = item.p + lane_index() % GROUP; p < item.p_end; p += GROUP)
      stayed += find(new_points, item.q, item.q_end, old_points[p]) >= 0;
    for (int distance = GROUP / 2; distance; distance /= 2) stayed += __shfl_xor_sync(FULL_WARP, stayed, distance);
    const Index both = item.p_end - item.p + item.q_end - item.q;
    if (t < items && lane_index() % GROUP == 0) costs[t] = (both - 2 * stayed) * both;
  }
}

extern "C" __global__ void __launch_bounds__(256, 4)
change_counts(const int* __restrict__ old_neurons, const Index* __restrict__ old_indptr,
              const int* __restrict__ old_points, Index old_count, const int* __restrict__ new_neurons,
              const Index* __restrict__ new_indptr, const int* __restrict__ new_points, Index new_count,
              const Index* __restrict__ changed, Index items, Index n, int* __restrict__ change) {
  const Lists before = {old_neurons, old_indptr, old_points, old_count};
  const Lists after = {new_neurons, new_indptr, new_points, new_count};
  const int lane = lane_index();
  for (Index c = warp_index(); c < items; c += warp_count()) {
    const Item item = look_up(before, after, changed[c]);
    const int *was = old_points + item.p, *is = new_points + item.q;
    const int was_count = (int)(item.p_end - item.p), is_count = (int)(item.q_end - item.q);
#pragma unroll 1
    for (int side = 0; side < 2; ++side) {  // points that left, then points that came
      const int *own = side ? is : was, *other = side ? was : is;
      const int own_count = side ? is_count : was_count, other_count = side ? was_count : is_count;
#pragma unroll 1
      for (int base = 0; base < own_count; base += WARP) {
        const bool mine = base + lane < own_count;
        const int point = mine ? own[base + lane] : 0;
        unsigned flipped = __ballot_sync(FULL_WARP, mine && find(other, 0, other_count, point) < 0);
        for (; flipped; flipped &= flipped - 1) {
          const Index i = __shfl_sync(FULL_WARP, point, __ffs((int)flipped) - 1);
#pragma unroll 1
          for (int q = lane; q < is_count; q += WARP) atomicAdd(change + i * n + is[q], side ? 1 : -1);
#pragma unroll 1
          for (int p = lane; p < was_count; p += WARP) atomicAdd(change + was[p] * n + i, side ? 1 : -1);
        }
      }
    }
  }
}
