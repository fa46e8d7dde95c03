// forward.cu -- the network's output (without its factor m^{-1/2}) from the leaves that the query read.
//
// Computes      out[i] = sum over p in indptr[i] .. indptr[i + 1] of signs[indices[p]] (values[p] - shift), in float64.
// Arguments     indptr (n + 1,) int64; indices (nnz,) int32; values (nnz,), signs (m,) REAL; shift; out (n,) float64.
// Parallel      one block of 8 warps per point, grid-stride; a thread sums every 256th entry in order, then shuffles
//               and 8 partial sums in shared memory combine them.
// Floor         nnz (4 + 2 sizeof(REAL)) bytes; the signs are gathered, in ascending order.
// Deterministic yes: the order of the sums depends on the row's length alone (not the reference's order).
// Versions      one warp per point was the first draft: with few points and thousands of fired neurons it leaves most
//               of the machine idle.  Not yet measured on hardware.

__device__ __forceinline__ double warp_sum(double value) {
  for (int distance = WARP / 2; distance; distance /= 2) value = add(value, __shfl_down_sync(FULL_WARP, value, distance));
  return value;
}

extern "C" __global__ void __launch_bounds__(256)
forward(const Index* __restrict__ indptr, const int* __restrict__ indices, const REAL* __restrict__ values,
        const REAL* __restrict__ signs, double shift, Index n, double* __restrict__ out) {
  __shared__ double partial[8];
  for (Index i = blockIdx.x; i < n; i += gridDim.x) {
    double sum = 0.0;
    for (Index p = indptr[i] + threadIdx.x; p < indptr[i + 1]; p += blockDim.x)
      sum = add(sum, mul((double)signs[indices[p]], sub((double)values[p], shift)));
    sum = warp_sum(sum);
    if (lane_index() == 0) partial[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      double whole = partial[0];
      for (int warp = 1; warp < 8; ++warp) whole = add(whole, partial[warp]);
      out[i] = whole;
    }
    __syncthreads();
  }
}
