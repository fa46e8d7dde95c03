// probe.cu -- does this GPU compile, launch and compute?  Run once per process before anything else.
//
// Computes   out[k] = REAL(k) / 2 + (number of odd lanes before k's lane in its warp), k < count: arithmetic and one
//            warp vote, so that a driver, compiler or architecture that does not fit shows at once.
// Arguments  out (count,) REAL.  One warp of threads is enough.

extern "C" __global__ void probe(REAL* out, Index count) {
  const int lane = lane_index();
  for (Index base = warp_index() * WARP; base < count; base += warp_count() * WARP) {
    const Index k = base + lane;
    const unsigned odd = __ballot_sync(FULL_WARP, lane & 1);
    if (k < count) out[k] = add(mul((REAL)k, (REAL)0.5), (REAL)__popc(odd & ((1u << lane) - 1u)));
  }
}
