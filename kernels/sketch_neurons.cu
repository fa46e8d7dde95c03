// sketch_neurons.cu -- the signed mask times a CountSketch of the neurons: (S A)^T, A = M o a.
//
// Computes      out[i, b] = sum over the neurons r of point i with bucket(r) = b of sign(r) signs[r].  bucket and sign come
//               from word r % 4 of Philox4x32-10 with key seed and counter (r / 4, 0, draw, NEURONS):
//               bucket = (word >> 1) buckets >> 31, sign by the lowest bit.
// Arguments     neurons (u,) int32; signs (m,) REAL, +-1; hashed (u,) int32: bucket, or ~bucket where sign(r) signs[r] is -1;
//               indptr (n + 1,) int64, compact (nnz,) int32: neurons of a point, as positions; out (n, buckets) float64;
//               `width` buckets at a time are summed in width ints of dynamic shared memory.
// Parallel      hash_neurons: one thread per neuron.  sketch_points: y of the grid runs over points, z over groups of
//               `width` buckets; a block sums in shared memory by integer atomics and writes its part of the row once.
// Floor         12 u bytes and one Philox per neuron; nnz 4 bytes read and 4 gathered from the L2 cache (times
//               buckets / width), 8 n buckets written; nnz atomics in shared memory.
// Deterministic yes: integer sums.
// Versions      hash first, count in shared memory: this file.  Rejected on paper: a Philox per pair (60 operations for 4
//               bytes of L2 cache); atomics on an int32 array in memory (16 more bytes per entry of out).  Not yet
//               measured on hardware: several blocks per point where points are few.

#define NEURONS (2u << 16)

extern "C" __global__ void __launch_bounds__(256)
hash_neurons(const int* __restrict__ neurons, const REAL* __restrict__ signs, Index u, int buckets, Word64 seed, Word draw,
             int* __restrict__ hashed) {
  for (Index k = thread_index(); k < u; k += thread_count()) {
    const Word r = (Word)neurons[k], pick = r % 4;
    const Random random = philox4x32(r / 4, 0u, draw, NEURONS, seed);
    const Word word = pick == 0 ? random.word[0] : pick == 1 ? random.word[1] : pick == 2 ? random.word[2] : random.word[3];
    const int bucket = (int)((Word64)(word >> 1) * (Word)buckets >> 31);
    hashed[k] = (word & 1u) == (signs[r] < (REAL)0 ? 1u : 0u) ? bucket : ~bucket;
  }
}

extern "C" __global__ void __launch_bounds__(256)
sketch_points(const Index* __restrict__ indptr, const int* __restrict__ compact, const int* __restrict__ hashed, Index n,
              int buckets, int width, double* __restrict__ out) {
  extern __shared__ int sums[];
  for (Index i = blockIdx.y; i < n; i += gridDim.y)
    for (int first = blockIdx.z * width; first < buckets; first += gridDim.z * width) {
      const int here = buckets - first < width ? buckets - first : width;
      for (int c = threadIdx.x; c < here; c += blockDim.x) sums[c] = 0;
      __syncthreads();
      for (Index p = indptr[i] + threadIdx.x; p < indptr[i + 1]; p += blockDim.x) {
        const int entry = hashed[compact[p]], c = (entry < 0 ? ~entry : entry) - first;
        if (c >= 0 && c < here) atomicAdd(&sums[c], entry < 0 ? -1 : 1);
      }
      __syncthreads();
      for (int c = threadIdx.x; c < here; c += blockDim.x) out[i * buckets + first + c] = (double)sums[c];
      // no barrier: a thread clears next what it alone read here
    }
}
