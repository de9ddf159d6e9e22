// Layers for one example: channels-last, fixed shapes, everything in the caches of one core.
//
// A convolution's kernel is (height, width, in, out), a dense one (out, in), each followed by its bias. Sizes that
// vectors run along are multiples of 16; compiled.py makes sure of that.
//
// A layer says how many numbers go IN and OUT and how many WEIGHTS it has, and does
//   prepare(weights)                        once, before the first example
//   forward(in, weights, out)
//   squared(in, slope)                      squared norm of this example's gradient, given the one at the outputs
//   add(factor, in, slope, sum)             that gradient, scaled, to a sum
//   backward(out, weights, slope, before)   the gradient at the inputs
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ACCUMULATORS = 28;
#elif defined(__AVX__)
constexpr int LANES = 8, ACCUMULATORS = 12;
#elif defined(__aarch64__)
constexpr int LANES = 4, ACCUMULATORS = 24;
#else
constexpr int LANES = 4, ACCUMULATORS = 12;
#endif

using Vec = float __attribute__((vector_size(4 * LANES)));
using Ints = int32_t __attribute__((vector_size(4 * LANES)));

inline Vec load(const float* at) {
    Vec value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

inline void store(float* at, Vec value) { std::memcpy(at, &value, sizeof value); }
inline Vec all(float value) { return Vec{} + value; }

inline float total(Vec value) {
    float sum = 0;
    for (int lane = 0; lane < LANES; ++lane) sum += value[lane];
    return sum;
}

inline float dot(const float* a, const float* b, int size) {
    Vec sums[4] = {};  // in a single chain, each addition would wait for the one before
    for (int k = 0; k < size; k += LANES) sums[k / LANES % 4] += load(a + k) * load(b + k);
    return total(sums[0] + sums[1] + (sums[2] + sums[3]));
}

inline void add_scaled(float factor, const float* from, float* to, int size) {
    for (int k = 0; k < size; k += LANES) store(to + k, load(to + k) + factor * load(from + k));
}

template <int N> using Count = std::integral_constant<int, N>;

// Calls f(start, Count<length>) for tiles that cover 0 to SIZE, of almost equal length and none longer than MOST.
template <int SIZE, int MOST, class F> inline void tiled(F f) {
    constexpr int tiles = (SIZE + MOST - 1) / MOST, length = (SIZE + tiles - 1) / tiles;
    int at = 0;
    for (; at + length <= SIZE; at += length) f(at, Count<length>{});
    if constexpr (SIZE % length != 0) f(at, Count<SIZE % length>{});
}

// All arithmetic of a convolution: ROWS x COLUMNS x V vectors in registers, to which
// sums[r][c] += scalars[r * ROW + c * COLUMN + i * STEP_I + j * STEP_J] * vectors[i * J + j] is added for all i and j.
template <int V, int ROW, int COLUMN, int I, int J, int STEP_I, int STEP_J, int ROWS, int COLUMNS>
inline __attribute__((always_inline)) void multiply(const float* scalars, const float* vectors,
                                                    Vec (&sums)[ROWS][COLUMNS][V]) {
    for (int i = 0; i < I; ++i) {
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) {
            Vec vector[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) vector[v] = load(vectors + ((i * J + j) * V + v) * LANES);
#pragma GCC unroll 32
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 32
                for (int c = 0; c < COLUMNS; ++c) {
                    const float scalar = scalars[r * ROW + c * COLUMN + i * STEP_I + j * STEP_J];
#pragma GCC unroll 8
                    for (int v = 0; v < V; ++v) sums[r][c][v] += scalar * vector[v];
                }
        }
    }
}

struct Weightless {
    static constexpr int WEIGHTS = 0;
    void prepare(const float*) {}
};

// Height, width, channels; filters; kernel, stride and padding, each down and across.
template <int H, int W, int C, int F, int KH, int KW, int SH, int SW, int PH, int PW> struct Conv {
    static constexpr int WIDE = W + 2 * PW, OH = (H + 2 * PH - KH) / SH + 1, OW = (WIDE - KW) / SW + 1;
    static constexpr int IN = H * W * C, OUT = OH * OW * F, RUN = KW * C, TAPS = KH * RUN, WEIGHTS = TAPS * F + F;
    static constexpr int V = F / LANES, ROW = WIDE * C;
    static constexpr bool PADDED = PH > 0 || PW > 0;

    alignas(64) float gradient[WEIGHTS];
    float frame[PADDED ? (H + 2 * PH) * ROW : 1] = {};
    float turned[C % LANES ? 1 : TAPS * F];  // the kernel as (height, width, out, in)

    void prepare(const float* weights) {
        if constexpr (C % LANES == 0)
            for (int tap = 0; tap < KH * KW; ++tap)
                for (int f = 0; f < F; ++f)
                    for (int c = 0; c < C; ++c) turned[(tap * F + f) * C + c] = weights[(tap * C + c) * F + f];
    }

    const float* framed(const float* in) const { return PADDED ? frame : in; }

    void forward(const float* in, const float* weights, float* out) {
        if constexpr (PADDED)
            for (int y = 0; y < H; ++y) std::copy_n(in + y * W * C, W * C, frame + (y + PH) * ROW + PW * C);
        in = framed(in);
        constexpr int across = std::min(OW, std::max(1, ACCUMULATORS / V));
        tiled<OH, std::max(1, ACCUMULATORS / (V * across))>([&](int y, auto rows) {
            tiled<OW, across>([&](int x, auto columns) {
                Vec sums[rows()][columns()][V];
                each(sums, [&](int, int, int v, Vec& sum) { sum = load(weights + TAPS * F + v * LANES); });
                multiply<V, SH * ROW, SW * C, KH, RUN, ROW, 1>(in + y * SH * ROW + x * SW * C, weights, sums);
                each(sums, [&](int r, int c, int v, Vec& sum) {
                    store(out + ((y + r) * OW + x + c) * F + v * LANES, sum);
                });
            });
        });
    }

    // Keeps this example's gradient, and returns its squared norm.
    float squared(const float* in, const float* slope) {
        in = framed(in);
        constexpr int across = std::min(RUN, std::max(1, ACCUMULATORS / V));
        tiled<KH, std::max(1, ACCUMULATORS / (V * across))>([&](int i, auto rows) {
            tiled<RUN, across>([&](int t, auto columns) {
                Vec sums[rows()][columns()][V] = {};
                multiply<V, ROW, 1, OH, OW, SH * ROW, SW * C>(in + i * ROW + t, slope, sums);
                each(sums, [&](int r, int c, int v, Vec& sum) {
                    store(gradient + ((i + r) * RUN + t + c) * F + v * LANES, sum);
                });
            });
        });
        for (int v = 0; v < V; ++v) {
            Vec bias = {};
            for (int k = 0; k < OH * OW; ++k) bias += load(slope + k * F + v * LANES);
            store(gradient + TAPS * F + v * LANES, bias);
        }
        return dot(gradient, gradient, WEIGHTS);
    }

    void add(float factor, const float*, const float*, float* sum) const {
        add_scaled(factor, gradient, sum, WEIGHTS);
    }

    void backward(const float*, const float*, const float* slope, float* before) const {
        static_assert(!PADDED && C % LANES == 0);
        constexpr int VC = C / LANES, across = std::min(OW, std::max(1, ACCUMULATORS / VC));
        std::fill_n(before, IN, 0.f);
        for (int i = 0; i < KH; ++i)
            for (int j = 0; j < KW; ++j)
                tiled<OH, std::max(1, ACCUMULATORS / (VC * across))>([&](int y, auto rows) {
                    tiled<OW, across>([&](int x, auto columns) {
                        Vec sums[rows()][columns()][VC] = {};
                        multiply<VC, OW * F, F, 1, F, 0, 1>(slope + (y * OW + x) * F, turned + (i * KW + j) * F * C,
                                                            sums);
                        each(sums, [&](int r, int c, int v, Vec& sum) {
                            float* at = before + ((y + r) * SH + i) * ROW + ((x + c) * SW + j) * C + v * LANES;
                            store(at, load(at) + sum);
                        });
                    });
                });
    }

  private:
    template <int R, int N, int D, class Do> static inline void each(Vec (&sums)[R][N][D], Do f) {
#pragma GCC unroll 32
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 32
            for (int c = 0; c < N; ++c)
#pragma GCC unroll 8
                for (int v = 0; v < D; ++v) f(r, c, v, sums[r][c][v]);
    }
};

template <int IN_, int OUT_> struct Dense {
    static constexpr int IN = IN_, OUT = OUT_, WEIGHTS = OUT * IN + OUT;

    void prepare(const float*) {}

    void forward(const float* in, const float* weights, float* out) {
        for (int o = 0; o < OUT; ++o) out[o] = weights[OUT * IN + o] + dot(in, weights + o * IN, IN);
    }

    // The gradient has rank one: (|x|^2 + 1) |g|^2, where the one is the bias.
    float squared(const float* in, const float* slope) {
        float outputs = 0;
        for (int o = 0; o < OUT; ++o) outputs += slope[o] * slope[o];
        return (dot(in, in, IN) + 1) * outputs;
    }

    void add(float factor, const float* in, const float* slope, float* sum) const {
        for (int o = 0; o < OUT; ++o) {
            add_scaled(factor * slope[o], in, sum + o * IN, IN);
            sum[OUT * IN + o] += factor * slope[o];
        }
    }

    void backward(const float*, const float* weights, const float* slope, float* before) const {
        std::fill_n(before, IN, 0.f);
        for (int o = 0; o < OUT; ++o) add_scaled(slope[o], weights + o * IN, before, IN);
    }
};

template <int N> struct Tanh : Weightless {
    static constexpr int IN = N, OUT = N;

    // Eigen's and XLA's rational approximation, off by a few units in the last place. NaN stays NaN.
    void forward(const float* in, const float*, float* out) {
        constexpr float top[] = {-2.76076847742355e-16f, 2.00018790482477e-13f, -8.60467152213735e-11f,
                                 5.12229709037114e-08f,  1.48572235717979e-05f, 6.37261928875436e-04f,
                                 4.89352455891786e-03f};
        constexpr float bottom[] = {1.19825839466702e-06f, 1.18534705686654e-04f, 2.26843463243900e-03f,
                                    4.89352518554385e-03f};
        const Vec most = all(7.90531110763549805f);
        for (int k = 0; k < N; k += LANES) {
            Vec x = load(in + k);
            x = x < -most ? -most : x;
            x = x > most ? most : x;
            Vec square = x * x, numerator = all(top[0]), denominator = all(bottom[0]);
            for (int term = 1; term < 7; ++term) numerator = numerator * square + top[term];
            for (int term = 1; term < 4; ++term) denominator = denominator * square + bottom[term];
            store(out + k, x * numerator / denominator);
        }
    }

    void backward(const float* out, const float*, const float* slope, float* before) const {
        for (int k = 0; k < N; k += LANES) store(before + k, load(slope + k) * (1 - load(out + k) * load(out + k)));
    }
};

template <int N> struct Relu : Weightless {
    static constexpr int IN = N, OUT = N;

    void forward(const float* in, const float*, float* out) {
        for (int k = 0; k < N; k += LANES) store(out + k, load(in + k) < 0 ? Vec{} : load(in + k));
    }

    void backward(const float* out, const float*, const float* slope, float* before) const {
        for (int k = 0; k < N; k += LANES) store(before + k, load(out + k) <= 0 ? Vec{} : load(slope + k));
    }
};

// Maximum over windows KH x KW with strides SH, SW; the first of equals gets the gradient, as in PyTorch.
template <int H, int W, int C, int KH, int KW, int SH, int SW> struct MaxPool : Weightless {
    static constexpr int OH = (H - KH) / SH + 1, OW = (W - KW) / SW + 1, IN = H * W * C, OUT = OH * OW * C;

    Ints places[OUT / LANES];

    void forward(const float* in, const float*, float* out) {
        each([&](int from, int to) {
            Vec best = load(in + from);
            Ints place = {};
            for (int k = 1; k < KH * KW; ++k) {
                const Vec value = load(in + from + (k / KW * W + k % KW) * C);
                const Ints better = (value > best) | (value != value);
                best = better ? value : best;
                place = better ? Ints{} + k : place;
            }
            store(out + to, best);
            places[to / LANES] = place;
        });
    }

    void backward(const float*, const float*, const float* slope, float* before) const {
        std::fill_n(before, IN, 0.f);
        each([&](int from, int to) {
            for (int k = 0; k < KH * KW; ++k) {
                float* at = before + from + (k / KW * W + k % KW) * C;
                store(at, load(at) + (places[to / LANES] == k ? load(slope + to) : Vec{}));
            }
        });
    }

  private:
    template <class Do> static inline void each(Do f) {
        for (int y = 0; y < OH; ++y)
            for (int x = 0; x < OW; ++x)
                for (int c = 0; c < C; c += LANES) f((y * SH * W + x * SW) * C + c, (y * OW + x) * C + c);
    }
};

}  // namespace
