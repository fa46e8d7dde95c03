// normal_rows.cu -- initial weights: independent normals keyed by (seed, r, j), or normals conditioned on a cap.
//
// normal_rows   out[k, j] = REAL(quantile(u)), u the uniform number of words (0, 1) or (2, 3), for even or odd j, of
//               Philox4x32-10 with key seed and counter (r low, r high, j / 2, 0); r = start + k, halved when paired.
//               quantile is AS 241 (Wichura 1988) and its logarithm fdlibm's series, both with one rounding per
//               operation: devices/philox.py is the specification and the bits are equal.
// cap_rows      out[k, j] = REAL(z_j + (t - <z, e>) e_j), e = directions[i], i = owners[k], with z standard normal from the
//               counters (places[k], i, j / 2, CAPS) and t = -quantile(tails[i] u), u from (places[k], i, 0, CAP_DEPTHS):
//               what gpu_sublinear/model/caps.py derives.  Float64, one rounding per operation, <z, e> summed in order.
// Arguments     out (count, d) REAL; start, count, d, paired; seed.  directions (n, d), tails (n,) float64; owners (count,)
//               int32, places (count,) int64 below 2^32.
// Parallel      normal_rows: one thread per pair of columns (one Philox call).  cap_rows: one thread per row, because the
//               sum over features has one order; z is drawn twice, which costs less than keeping d doubles per thread.
//               Both grid-stride.
// Floor         count d sizeof(REAL) bytes written; about 45 double operations (80 in the tails, 15 % of draws) and
//               20 integer products per number, twice that for cap_rows.  Runs once per fit, in blocks of neurons.
// Deterministic yes, for any grid.
// Versions      branch per draw: this file.  Not yet measured on hardware; if it matters, sort out the tails with a
//               ballot so that a warp does not walk through all three ranges.

__device__ __forceinline__ double polynomial(double x, double c0, double c1, double c2, double c3, double c4,
                                             double c5, double c6, double c7) {
  double value = add(mul(c7, x), c6);
  value = add(mul(value, x), c5);
  value = add(mul(value, x), c4);
  value = add(mul(value, x), c3);
  value = add(mul(value, x), c2);
  value = add(mul(value, x), c1);
  return add(mul(value, x), c0);
}

// log x = k log 2 + log(1 + f), 1 + f in [sqrt(1/2), sqrt(2)): the sequence of philox.log; x normal and positive.
__device__ double fixed_log(double x) {
  const Index bits = __double_as_longlong(x);
  double mantissa = __longlong_as_double((bits & 0x000FFFFFFFFFFFFFll) | 0x3FE0000000000000ll);  // [1/2, 1)
  double k = (double)((int)(bits >> 52) - 1022);
  if (mantissa < 7.07106781186547524401e-01) {
    mantissa = mul(mantissa, 2.0);
    k = sub(k, 1.0);
  }
  const double f = sub(mantissa, 1.0);
  const double s = __ddiv_rn(f, add(2.0, f));
  const double z = mul(s, s);
  double series = 1.479819860511658591e-01;
  series = add(mul(series, z), 1.531383769920937332e-01);
  series = add(mul(series, z), 1.818357216161805012e-01);
  series = add(mul(series, z), 2.222219843214978396e-01);
  series = add(mul(series, z), 2.857142874366239149e-01);
  series = add(mul(series, z), 3.999999999940941908e-01);
  series = add(mul(series, z), 6.666666666666735130e-01);
  series = mul(z, series);
  const double half = mul(mul(0.5, f), f);
  return add(mul(k, 6.93147180559945286227e-01), sub(f, sub(half, mul(s, add(half, series)))));
}

__device__ double central_quantile(double q) {  // |q| <= 0.425
  const double r = sub(0.180625, mul(q, q));
  const double above = polynomial(r, 3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                                  1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                                  3.3430575583588128105e4, 2.5090809287301226727e3);
  const double below = polynomial(r, 1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
                                  2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
                                  5.2264952788528545610e3);
  return __ddiv_rn(mul(q, above), below);
}

__device__ double outer_quantile(double tail) {  // tail = min(u, 1 - u); the quantile of 1 - tail
  const double root = __dsqrt_rn(-fixed_log(tail));
  if (root <= 5.0) {
    const double r = sub(root, 1.6);
    return __ddiv_rn(polynomial(r, 1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
                                3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
                                2.27238449892691845833e-2, 7.74545014278341407640e-4),
                     polynomial(r, 1.0, 2.05319162663775882187e0, 1.67638483018380384940e0,
                                6.89767334985100004550e-1, 1.48103976427480074590e-1, 1.51986665636164571966e-2,
                                5.47593808499534494600e-4, 1.05075007164441684324e-9));
  }
  const double r = sub(root, 5.0);
  return __ddiv_rn(polynomial(r, 6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
                              2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                              2.71155556874348757815e-5, 2.01033439929228813265e-7),
                   polynomial(r, 1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1,
                              1.48753612908506148525e-2, 7.86869131145613259100e-4, 1.84631831751005468180e-5,
                              1.42151175831644588870e-7, 2.04426310338993978564e-15));
}

__device__ __forceinline__ double uniform(Word high, Word low) {
  const Word64 cell = ((Word64)(high >> 6) << 26) | (low >> 6);         // 52 bits
  return mul(add((double)cell, 0.5), 2.220446049250313080847e-16);      // 2^-52: centre of the cell, exact
}

__device__ double normal_quantile(double u) {
  const double q = sub(u, 0.5);
  if (fabs(q) <= 0.425) return central_quantile(q);
  const double value = outer_quantile(q < 0.0 ? u : sub(1.0, u));
  return q < 0.0 ? -value : value;
}

extern "C" __global__ void __launch_bounds__(256)
normal_rows(REAL* __restrict__ out, Index start, Index count, int d, int paired, Word64 seed) {
  const int pairs = (d + 1) / 2;
  for (Index t = thread_index(); t < count * pairs; t += thread_count()) {
    const Index k = t / pairs;
    const int pair = (int)(t - k * pairs);
    const Word64 r = (Word64)(start + k) >> (paired ? 1 : 0);
    const Random random = philox4x32((Word)r, (Word)(r >> 32), (Word)pair, 0u, seed);
    REAL* entry = out + k * d + 2 * pair;
    entry[0] = (REAL)normal_quantile(uniform(random.word[0], random.word[1]));
    if (2 * pair + 1 < d) entry[1] = (REAL)normal_quantile(uniform(random.word[2], random.word[3]));
  }
}

#define CAPS 0x30000u
#define CAP_DEPTHS 0x30001u

extern "C" __global__ void __launch_bounds__(256)
cap_rows(REAL* __restrict__ out, const double* __restrict__ directions, const double* __restrict__ tails,
         const int* __restrict__ owners, const Index* __restrict__ places, Index count, int d, Word64 seed) {
  for (Index k = thread_index(); k < count; k += thread_count()) {
    const Word owner = (Word)owners[k], place = (Word)places[k];
    const double* e = directions + (Index)owners[k] * d;
    double along = -0.0;  // -0 + x is x to the bit
    for (int j = 0; j < d; j += 2) {
      const Random random = philox4x32(place, owner, (Word)(j / 2), CAPS, seed);
      along = add(along, mul(normal_quantile(uniform(random.word[0], random.word[1])), e[j]));
      if (j + 1 < d) along = add(along, mul(normal_quantile(uniform(random.word[2], random.word[3])), e[j + 1]));
    }
    const Random deep = philox4x32(place, owner, 0u, CAP_DEPTHS, seed);
    const double depth = -normal_quantile(mul(tails[owners[k]], uniform(deep.word[0], deep.word[1])));
    const double rest = sub(depth, along);
    for (int j = 0; j < d; j += 2) {
      const Random random = philox4x32(place, owner, (Word)(j / 2), CAPS, seed);
      const double first = normal_quantile(uniform(random.word[0], random.word[1]));
      out[k * d + j] = (REAL)add(first, mul(rest, e[j]));
      if (j + 1 == d) continue;
      const double second = normal_quantile(uniform(random.word[2], random.word[3]));
      out[k * d + j + 1] = (REAL)add(second, mul(rest, e[j + 1]));
    }
  }
}
