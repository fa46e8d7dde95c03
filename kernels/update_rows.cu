// update_rows.cu -- the weight update of the neurons that moved.
//
// Computes      W[neurons[k], j] = W[neurons[k], j] - delta[k, j], one rounding.
// Arguments     W (m, d) REAL in place; neurons (count,) int32, distinct; delta (count, d) REAL.
// Parallel      one thread per entry, grid-stride; distinct neurons, so nobody else touches the entry.
// Floor         3 count d sizeof(REAL) + 4 count bytes.
// Deterministic yes.
// Versions      this one only.  Not yet measured on hardware.

extern "C" __global__ void __launch_bounds__(256)
update_rows(REAL* __restrict__ W, const int* __restrict__ neurons, const REAL* __restrict__ delta, Index count, int d) {
  for (Index t = thread_index(); t < count * d; t += thread_count()) {
    const Index k = t / d;
    REAL* weight = W + (Index)neurons[k] * d + (t - k * d);
    *weight = sub(*weight, delta[t]);
  }
}
