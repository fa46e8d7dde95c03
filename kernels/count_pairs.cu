// count_pairs.cu -- M^T M: how many neurons fire on both of two points.
//
// Computes      out[i, l] = sum over the neurons k of point i (compact[p], indptr[i] <= p < indptr[i + 1]) of
//               [l is among t_points of k].
// Arguments     indptr (n + 1,) int64, compact (nnz,) int32; t_indptr (u + 1,) int64, t_points (nnz,) int32; out (n, n)
//               int32, zeroed; `width` columns of out are counted at a time, in width ints of dynamic shared memory.
// Parallel      y of the grid runs over points, z over groups of `width` columns, x over parts of the point's neurons.
//               A block counts in shared memory; groups of 8 lanes take one neuron each and read its points, a sector
//               at a time; at the end the block adds its non-zero counts to out.
// Floor         sum_r |fire(r)|^2 increments in shared memory, each with 4 bytes of t_points from the L2 cache; out
//               once (times the parts).  Where width < n the lists are read n / width times.
// Deterministic yes: integer sums.
// Versions      this one only.  Not yet measured on hardware: half of the pairs by symmetry; bit masks with popcount or
//               an int8 product where most neurons fire (algorithm.md 3.4).

#define GROUP 8

extern "C" __global__ void __launch_bounds__(256)
count_pairs(const Index* __restrict__ indptr, const int* __restrict__ compact, const Index* __restrict__ t_indptr,
            const int* __restrict__ t_points, int n, int width, int* __restrict__ out) {
  extern __shared__ int counts[];
  const int group = blockIdx.x * (blockDim.x / GROUP) + threadIdx.x / GROUP, groups = gridDim.x * (blockDim.x / GROUP);
  for (int i = blockIdx.y; i < n; i += gridDim.y)
    for (int first = blockIdx.z * width; first < n; first += gridDim.z * width) {
      for (int c = threadIdx.x; c < width; c += blockDim.x) counts[c] = 0;
      __syncthreads();
      for (Index p = indptr[i] + group; p < indptr[i + 1]; p += groups) {
        const int k = compact[p];
        for (Index q = t_indptr[k] + threadIdx.x % GROUP; q < t_indptr[k + 1]; q += GROUP) {
          const int column = t_points[q] - first;
          if (column >= 0 && column < width) atomicAdd(&counts[column], 1);
        }
      }
      __syncthreads();
      int* row = out + (Index)i * n + first;
      for (int c = threadIdx.x; c < width; c += blockDim.x)
        if (counts[c]) atomicAdd(&row[c], counts[c]);  // no barrier after: a thread clears what it has read itself
    }
}
