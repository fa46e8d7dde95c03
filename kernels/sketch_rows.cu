// sketch_rows.cu -- rows of a sparse matrix times a sparse-sign sketch: J S^T.
//
// Computes      out[i, b] = sum over the entries (i, c) of the matrix and t < nonzeros with bucket_t(c) = b of
//               sign_t(c) round(data_ic scale), as 64-bit integers; the caller divides by scale sqrt(nonzeros).
//               bucket and sign come from word c % 4 of Philox4x32-10 with key seed and counter (c / 4, 0, draw,
//               SKETCH + t): bucket = (word >> 1) rows >> 31, sign by the lowest bit.
// Fixed point   scale is a power of two with nonzeros L A scale <= 2^61, L the longest row, A the largest |data|: every
//               bucket's sum stays below 2^62, and integer addition has no rounding, hence no order.  Each entry is
//               rounded once, by at most 1 / (2 scale) <= 2 nonzeros L A 2^-61 in units of the matrix: for 2^24 entries
//               a row and 4 nonzeros 2^-34 A, finer than float32 data.
// Arguments     data (nnz,) REAL, indices (nnz,) int32, indptr (count + 1,) int64; out (count, rows) int64 as unsigned,
//               zeroed; rows, nonzeros, seed, draw, scale.
// Parallel      y of the grid runs over matrix rows, x over a row's entries, both with strides; one Philox call and one
//               64-bit integer atomic per entry and nonzero, spread over `rows` addresses.
// Floor         nnz (sizeof(REAL) + 4) bytes read, nnz nonzeros atomics of 8 bytes in the L2 cache.
// Deterministic yes: integer sums.
// Versions      global atomics: this file.  Not yet measured on hardware: one Philox call for four neighbouring columns;
//               sums of a row in shared memory where 8 rows bytes fit.

#define SKETCH (1u << 16)

extern "C" __global__ void __launch_bounds__(256)
sketch_rows(const REAL* __restrict__ data, const int* __restrict__ indices, const Index* __restrict__ indptr, Index count,
            Word64* __restrict__ out, int rows, int nonzeros, Word64 seed, Word draw, double scale) {
  for (Index i = blockIdx.y; i < count; i += gridDim.y)
    for (Index p = indptr[i] + thread_index(); p < indptr[i + 1]; p += thread_count()) {
      const Word column = (Word)indices[p];
      const Index value = (Index)rint(mul((double)data[p], scale));
      for (int t = 0; t < nonzeros; ++t) {
        const Random random = philox4x32(column / 4, 0u, draw, SKETCH + (Word)t, seed);
        const Word pick = column % 4;
        const Word word = pick == 0 ? random.word[0] : pick == 1 ? random.word[1] : pick == 2 ? random.word[2] : random.word[3];
        const Index bucket = (Index)((Word64)(word >> 1) * (Word)rows >> 31);
        atomicAdd(out + i * rows + bucket, (Word64)(word & 1u ? -value : value));
      }
    }
}
