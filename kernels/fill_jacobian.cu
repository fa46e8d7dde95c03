// fill_jacobian.cu -- the sparse Jacobian J (n, u d), and J^T (u d, n) as rows of its own.
//
// Computes      J[i, k d + j] = (J^T)[k d + j, i] = (scale a_r) x_ij with r = neurons[k], where r fires on i; scale a_r
//               is exact because a_r is +-1, so there is one rounding and both matrices hold the same bits.
// Arguments     indptr (n + 1,) int64, compact (nnz,) int32: neurons of a point, as positions k; t_indptr (u + 1,) int64,
//               t_points (nnz,) int32: points of a neuron; neurons (u,) int32; signs (m,), X (n, d) REAL; scale;
//               data (nnz d,) REAL, columns (nnz d,) int32; rows_end (u d,) int64: ends of the rows of J^T.
// Parallel      fill_jacobian: y of the grid runs over points, x over the d k_i entries of the row, in order of memory.
//               fill_jacobian_t: one warp per neuron; entry l of its d x count block is feature l / count, point
//               l % count, so that writes are in order of memory and X is gathered from the L2 cache.
// Floor         nnz d (sizeof(REAL) + 4) bytes written per matrix; the reads are small and repeat.
// Deterministic yes: nothing is summed.
// Versions      this one only.  Not yet measured on hardware.  The factored operator needs neither matrix.

extern "C" __global__ void __launch_bounds__(256)
fill_jacobian(const Index* __restrict__ indptr, const int* __restrict__ compact, const int* __restrict__ neurons,
              const REAL* __restrict__ signs, const REAL* __restrict__ X, REAL scale, Index n, int d,
              REAL* __restrict__ data, int* __restrict__ columns) {
  for (Index i = blockIdx.y; i < n; i += gridDim.y) {
    const Index start = indptr[i], length = (indptr[i + 1] - start) * d;  // below 2^31, as the columns are
    for (Index l = thread_index(); l < length; l += thread_count()) {
      const int p = (int)l / d, j = (int)l - p * d, k = compact[start + p];
      data[start * d + l] = mul(mul(scale, signs[neurons[k]]), X[i * d + j]);
      columns[start * d + l] = k * d + j;
    }
  }
}

extern "C" __global__ void __launch_bounds__(256)
fill_jacobian_t(const Index* __restrict__ t_indptr, const int* __restrict__ t_points, const int* __restrict__ neurons,
                const REAL* __restrict__ signs, const REAL* __restrict__ X, REAL scale, Index u, int d,
                REAL* __restrict__ data, int* __restrict__ columns, Index* __restrict__ rows_end) {
  for (Index k = warp_index(); k < u; k += warp_count()) {
    const Index start = t_indptr[k];
    const int count = (int)(t_indptr[k + 1] - start);
    const REAL weight = mul(scale, signs[neurons[k]]);
    for (int l = lane_index(); l < count * d; l += WARP) {  // below 2^31, as the number of entries is
      const int j = l / count, i = t_points[start + (l - j * count)];
      data[start * d + l] = mul(weight, X[(Index)i * d + j]);
      columns[start * d + l] = i;
    }
    for (int j = lane_index(); j < d; j += WARP) rows_end[k * d + j] = start * d + (Index)(j + 1) * count;
  }
}
