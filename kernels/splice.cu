// splice.cu -- lists of points with some of them replaced.
//
// Computes      out[joined[k] .. joined[k + 1]] = the list source[k] of the new ones where source[k] >= 0, else list k of
//               the old ones, for k < count.
// Arguments     indptr (count + 1,) int64, points int32: old; new_indptr (p + 1,) int64, new_points int32: new; source
//               (count,) int64; joined (count + 1,) int64; out (joined[count],) int32.
// Parallel      groups of 8 lanes take one list each, a sector of 32 bytes at a time; grid-stride.
// Floor         8 bytes per entry of out, 32 per list.
// Deterministic yes: a copy.
// Versions      this one only.  Not yet measured on hardware: whole runs of lists between two replaced ones as one copy,
//               which pays where few are replaced.

#define GROUP 8

extern "C" __global__ void __launch_bounds__(256)
splice(const Index* __restrict__ indptr, const int* __restrict__ points, const Index* __restrict__ new_indptr,
       const int* __restrict__ new_points, const Index* __restrict__ source, const Index* __restrict__ joined, Index count,
       int* __restrict__ out) {
  for (Index k = thread_index() / GROUP; k < count; k += thread_count() / GROUP) {
    const Index from = source[k], start = joined[k], length = joined[k + 1] - start;
    const int* list = from >= 0 ? new_points + new_indptr[from] : points + indptr[k];
    for (Index q = threadIdx.x % GROUP; q < length; q += GROUP) out[start + q] = list[q];
  }
}
