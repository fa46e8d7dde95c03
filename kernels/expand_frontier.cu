// expand_frontier.cu -- one level of the query of all threshold trees, the heart of the method.
//
// Computes      from the frontier, the (point, node) pairs of one level whose maximum is above the threshold, the pairs
//               of the next level: every child c of node q (q arity <= c < q arity + arity, c < size) of the same point
//               with nodes[i, offset + c] > threshold, strictly.  In order of (point, node) if the frontier is.
// Arguments     nodes (n, total) REAL; offset, size of the children's level; points, parents (count,) int32: the
//               frontier; sums (warps,) int32, then their inclusive sums (warps,) int64, with one entry for every 32
//               slots; visited (1,) uint64, increased by the number of values compared; out_points, out_nodes
//               (found,) int32; out_values (found,) REAL where leaves is not 0.
// Parallel      frontier entry f has slots f arity .. f arity + arity - 1, one per child, and consecutive lanes take
//               consecutive slots: the children of one node are neighbours in memory, a sector of 32 bytes for arity 8
//               in float32.  count_children: each group of 32 slots votes (ballot) and one lane writes how many are
//               above.  The caller scans these numbers and allocates exactly.  fill_children: vote again; a lane's place
//               is the end of its group's range, less the group's number, plus the set bits below it.  No capacity
//               that could overflow, no atomics on results.
// Floor         per slot sizeof(REAL) bytes twice (the second time mostly from L2), per entry of the frontier 8 bytes
//               twice, per 32 slots 4 + 8 + 8 bytes, per entry found 8 bytes (leaves: + sizeof(REAL)).
// Deterministic yes; the only atomics count visited values, as integers.
// Versions      two passes: this file.  Not yet measured on hardware: one pass into a buffer of all slots with a later
//               compaction; keeping the ballots (4 bytes per 32 slots) instead of reading the values again; several
//               levels per launch for small trees.

struct Slot {
  bool valid;   // the child exists
  bool above;   // ... and its value passes
  int point, node;
  REAL value;
};

__device__ __forceinline__ Slot look(const REAL* __restrict__ nodes, Index total, Index offset, Index size, int arity,
                                     const int* __restrict__ points, const int* __restrict__ parents, Index slot,
                                     Index slots, REAL threshold) {
  Slot s = {false, false, 0, 0, (REAL)0};
  if (slot >= slots) return s;
  const Index entry = slots <= 0xffffffffll ? (Index)((Word)slot / (Word)arity) : slot / arity;
  const Index child = (Index)parents[entry] * arity + (slot - entry * arity);
  if (child >= size) return s;
  s.valid = true;
  s.point = points[entry];
  s.node = (int)child;
  s.value = nodes[s.point * total + offset + child];
  s.above = s.value > threshold;
  return s;
}

extern "C" __global__ void __launch_bounds__(256)
count_children(const REAL* __restrict__ nodes, Index total, Index offset, Index size, int arity,
               const int* __restrict__ points, const int* __restrict__ parents, Index count, REAL threshold,
               int* __restrict__ sums, Word64* __restrict__ visited) {
  const Index slots = count * arity, groups = (slots + WARP - 1) / WARP;
  Word64 seen = 0;
  for (Index group = warp_index(); group < groups; group += warp_count()) {
    const Slot s = look(nodes, total, offset, size, arity, points, parents, group * WARP + lane_index(), slots, threshold);
    const unsigned above = __ballot_sync(FULL_WARP, s.above), valid = __ballot_sync(FULL_WARP, s.valid);
    if (lane_index() == 0) sums[group] = __popc(above);
    seen += __popc(valid);
  }
  if (lane_index() == 0 && seen) atomicAdd(visited, seen);
}

extern "C" __global__ void __launch_bounds__(256)
fill_children(const REAL* __restrict__ nodes, Index total, Index offset, Index size, int arity,
              const int* __restrict__ points, const int* __restrict__ parents, Index count, REAL threshold,
              const Index* __restrict__ ends, int* __restrict__ out_points, int* __restrict__ out_nodes,
              REAL* __restrict__ out_values, int leaves) {
  const Index slots = count * arity, groups = (slots + WARP - 1) / WARP;
  for (Index group = warp_index(); group < groups; group += warp_count()) {
    const Slot s = look(nodes, total, offset, size, arity, points, parents, group * WARP + lane_index(), slots, threshold);
    const unsigned above = __ballot_sync(FULL_WARP, s.above);
    if (!s.above) continue;
    const Index place = ends[group] - __popc(above) + __popc(above & ((1u << lane_index()) - 1u));
    out_points[place] = s.point;
    out_nodes[place] = s.node;
    if (leaves) out_values[place] = s.value;
  }
}
