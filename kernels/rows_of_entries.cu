// rows_of_entries.cu -- the row number of every entry of a list of lists.
//
// Computes      rows[p] = i for indptr[i] <= p < indptr[i + 1].
// Arguments     indptr (n + 1,) int64; rows (nnz,) int32.
// Parallel      y of the grid runs over rows, x over the entries of one row, both with strides.
// Floor         4 nnz + 8 n bytes.
// Deterministic yes.
// Versions      CuPy has no repeat with counts on the device, and a binary search per entry reads log2(n) offsets.
//               Not yet measured on hardware.

extern "C" __global__ void __launch_bounds__(256)
rows_of_entries(const Index* __restrict__ indptr, Index n, int* __restrict__ rows) {
  for (Index i = blockIdx.y; i < n; i += gridDim.y)
    for (Index p = indptr[i] + thread_index(); p < indptr[i + 1]; p += thread_count()) rows[p] = (int)i;
}
