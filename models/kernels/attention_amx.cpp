// Full attention in bfloat16 on an x86 CPU with a tile unit, forward and backward: `models/kernels/attention.py` says why and calls it.
//
// Everything is built of one product of 32 x 32 tiles, done by the tile unit (AMX); a compiler that has none for its target
// refuses this file, and attention_avx512.cpp serves.  One task is one head of one slot, done by one thread in a fixed
// order, so that results are the same to the bit whatever the number of threads.
//
// The second operand of a product is packed in tiles of 16 pairs x 16 columns: element (2 j + t, i) at [j][i][t].
// S sequence, padded to a multiple of 32; K width of a head, a multiple of 32.

#include <immintrin.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

using bf16 = uint16_t;
constexpr int64_t TILE = 16 * 32;  // entries of a packed tile

struct alignas(64) Line { uint8_t bytes[64]; };

// Scratch that starts as zeros, on a cache line.
template <class T> struct Buffer {
    std::vector<Line> lines;
    explicit Buffer(int64_t n) : lines((n * sizeof(T) + 63) / 64) { zero(); }
    void zero() { std::memset(lines.data(), 0, lines.size() * sizeof(Line)); }
    operator T*() { return reinterpret_cast<T*>(lines.data()); }
};

// Rows of a tensor [B, S, N, K] that belong to one head: K entries each, `step` apart.
struct Rows { const bf16* at; int64_t step; };

inline float wide(bf16 x) { uint32_t bits = uint32_t(x) << 16; float f; std::memcpy(&f, &bits, 4); return f; }

inline __m512i narrow(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

// 2^x; nothing below 2^-150.  What is not a number stays so: the maximum of the two is then its second operand.
inline __m512 exp2(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150.f), x);
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(1.3333558e-3f);
    for (float c : {9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.f})
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(c));
    return _mm512_scalef_ps(y, whole);
}

struct Tiles {  // the tile unit of this thread, set up for 16 x 64 bytes; other libraries set it up for themselves
    Tiles() {
        struct alignas(64) { uint8_t palette = 1, start = 0, none[14] = {}; uint16_t colsb[16] = {}; uint8_t rows[16] = {}; } c;
        for (int i = 0; i < 8; ++i) { c.colsb[i] = 64; c.rows[i] = 16; }
        _tile_loadconfig(&c);
    }
    ~Tiles() { _tile_release(); }
};

// C[32, 32] (+)= the sum over n of A_i[32, 32] B_i[32, 32], with C of `ldc` and A of `lda` entries a row; `b_right` is
// how far the packed tile of the right half of B lies behind that of the left.
inline void product(float* c, int64_t ldc, const bf16* a, int64_t lda, int64_t a_step, const bf16* b, int64_t b_right,
                    int64_t b_step, int64_t n, bool add) {
    float* low = c + 16 * ldc;
    if (add) {
        _tile_loadd(0, c, ldc * 4); _tile_loadd(1, c + 16, ldc * 4);
        _tile_loadd(2, low, ldc * 4); _tile_loadd(3, low + 16, ldc * 4);
    } else {
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    }
    for (int64_t i = 0; i < n; ++i, a += a_step, b += b_step) {
        _tile_loadd(4, a, lda * 2); _tile_loadd(5, a + 16 * lda, lda * 2);
        _tile_loadd(6, b, 64); _tile_loadd(7, b + b_right, 64);
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, ldc * 4); _tile_stored(1, c + 16, ldc * 4);
    _tile_stored(2, low, ldc * 4); _tile_stored(3, low + 16, ldc * 4);
}

struct Shape {
    int64_t S, K, padded, chunks;  // chunks of 32 of a head's width
    Shape(int64_t S, int64_t K) : S(S), K(K), padded((S + 31) / 32 * 32), chunks(K / 32) {}
};

void copy_rows(bf16* to, Rows from, const Shape& s) {  // what lies behind the S rows stays zero
    for (int64_t r = 0; r < s.S; ++r) std::memcpy(to + r * s.K, from.at + r * from.step, 2 * s.K);
}

// The rows' transpose [K, S] as second operand: a tile of 16 rows and chunk c at [row / 16][c].
void pack_transposed(bf16* to, const bf16* rows, const Shape& s) {
    const auto* source = reinterpret_cast<const uint32_t*>(rows);
    auto* target = reinterpret_cast<uint32_t*>(to);
    for (int64_t g = 0; g < s.padded / 16; ++g)
        for (int64_t c = 0; c < s.chunks; ++c, target += TILE / 2)
            for (int64_t j = 0; j < 16; ++j)
                for (int64_t i = 0; i < 16; ++i) target[16 * j + i] = source[(16 * g + i) * (s.K / 2) + 16 * c + j];
}

// The rows [S, K] themselves as second operand: a tile of 32 rows and 16 columns at [row / 32][column / 16].
void pack(bf16* to, const bf16* rows, const Shape& s) {
    for (int64_t r = 0; r < s.padded; r += 32)
        for (int64_t g = 0; g < s.K / 16; ++g, to += TILE)
            for (int64_t j = 0; j < 16; ++j)
                for (int64_t i = 0; i < 16; ++i) {
                    to[32 * j + 2 * i] = rows[(r + 2 * j) * s.K + 16 * g + i];
                    to[32 * j + 2 * i + 1] = rows[(r + 2 * j + 1) * s.K + 16 * g + i];
                }
}

void write_rows(bf16* to, int64_t step, const float* from, const float* factor, int64_t count, int64_t K) {
    for (int64_t r = 0; r < count; ++r)
        for (int64_t k = 0; k < K; k += 32) {
            __m512 by = _mm512_set1_ps(factor[r]);
            __m512 low = _mm512_mul_ps(_mm512_loadu_ps(from + r * K + k), by);
            __m512 high = _mm512_mul_ps(_mm512_loadu_ps(from + r * K + k + 16), by);
            _mm512_storeu_si512(to + r * step + k, narrow(low, high));
        }
}

constexpr float LOG2E = 1.44269504088896f;

struct Forward {
    Shape s;
    Buffer<bf16> q, k, kt, v, vp, p;
    Buffer<float> scores, o;
    explicit Forward(Shape s) : s(s), q(s.padded * s.K), k(s.padded * s.K), kt(s.padded * s.K), v(s.padded * s.K),
        vp(s.padded * s.K), p(32 * s.padded), scores(32 * s.padded), o(32 * s.K) {}

    void head(Rows rq, Rows rk, Rows rv, bf16* out, int64_t out_step, float* lse) {
        copy_rows(q, rq, s); copy_rows(k, rk, s); copy_rows(v, rv, s);
        pack_transposed(kt, k, s); pack(vp, v, s);
        const float scale = LOG2E / std::sqrt(float(s.K));
        for (int64_t i = 0; i < s.S; i += 32) {
            for (int64_t j = 0; j < s.padded; j += 32)
                product(scores + j, s.padded, q + i * s.K, s.K, 32, kt + j * s.K, s.chunks * TILE, TILE, s.chunks, false);
            const int64_t rows = std::min<int64_t>(32, s.S - i);
            float inverse[32];
            for (int64_t r = 0; r < rows; ++r) lse[i + r] = softmax(scores + r * s.padded, p + r * s.padded, scale, inverse + r);
            for (int64_t g = 0; g < s.K; g += 32)
                product(o + g, s.K, p, s.padded, 32, vp + g / 16 * TILE, TILE, s.K / 16 * TILE, s.padded / 32, false);
            write_rows(out + i * out_step, out_step, o, inverse, rows, s.K);
        }
    }

    // exp(scale (x - max)) of one row in bfloat16, one over its sum, and the logarithm of the sum of exponentials.
    float softmax(float* x, bf16* to, float scale, float* inverse) {
        for (int64_t j = s.S; j < s.padded; ++j) x[j] = -INFINITY;
        __m512 top0 = _mm512_set1_ps(-INFINITY), top1 = top0;
        for (int64_t j = 0; j < s.padded; j += 32) {
            top0 = _mm512_max_ps(top0, _mm512_loadu_ps(x + j));
            top1 = _mm512_max_ps(top1, _mm512_loadu_ps(x + j + 16));
        }
        const float top = scale * _mm512_reduce_max_ps(_mm512_max_ps(top0, top1));
        const __m512 by = _mm512_set1_ps(scale), minus = _mm512_set1_ps(-top);
        __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
        for (int64_t j = 0; j < s.padded; j += 32) {
            __m512 low = exp2(_mm512_fmadd_ps(_mm512_loadu_ps(x + j), by, minus));
            __m512 high = exp2(_mm512_fmadd_ps(_mm512_loadu_ps(x + j + 16), by, minus));
            sum0 = _mm512_add_ps(sum0, low); sum1 = _mm512_add_ps(sum1, high);
            _mm512_storeu_si512(to + j, narrow(low, high));
        }
        const float sum = _mm512_reduce_add_ps(_mm512_add_ps(sum0, sum1));
        *inverse = 1 / sum;
        return (top + std::log2(sum)) / LOG2E;
    }
};

// The weights are computed anew, transposed: keys by queries, 32 of each at a time.
struct Backward {
    Shape s;
    Buffer<bf16> q, qt, qp, g, gt, gp, k, kT, v, p, d, dp;
    Buffer<float> scores, slopes, dq, dk, dv, dq_rows, level, delta;
    explicit Backward(Shape s) : s(s), q(s.padded * s.K), qt(s.padded * s.K), qp(s.padded * s.K), g(s.padded * s.K),
        gt(s.padded * s.K), gp(s.padded * s.K), k(s.padded * s.K), kT(s.padded * s.K), v(s.padded * s.K), p(32 * 32), d(32 * 32),
        dp(32 * 32), scores(32 * 32), slopes(32 * 32), dq(32 * s.K), dk(s.padded * s.K), dv(s.padded * s.K), dq_rows(32 * s.K),
        level(s.padded), delta(s.padded) {}

    void head(Rows rg, Rows rq, Rows rk, Rows rv, Rows ro, const float* lse, bf16* out_q, bf16* out_k, bf16* out_v, int64_t step) {
        copy_rows(q, rq, s); copy_rows(g, rg, s); copy_rows(k, rk, s); copy_rows(v, rv, s);
        pack_transposed(qt, q, s); pack(qp, q, s); pack_transposed(gt, g, s); pack(gp, g, s);
        for (int64_t r = 0; r < s.S; ++r) {
            float sum = 0;
            for (int64_t i = 0; i < s.K; ++i) {
                kT[i * s.padded + r] = k[r * s.K + i];
                sum += wide(ro.at[r * ro.step + i]) * wide(g[r * s.K + i]);
            }
            delta[r] = sum;
            level[r] = LOG2E * lse[r];
        }
        dk.zero(); dv.zero();
        const float scale = 1 / std::sqrt(float(s.K));
        float factor[32], one[32];
        for (int i = 0; i < 32; ++i) { factor[i] = scale; one[i] = 1; }
        for (int64_t i = 0; i < s.S; i += 32) {
            dq.zero();
            for (int64_t j = 0; j < s.padded; j += 32) block(i, j, LOG2E * scale);
            for (int64_t r = 0; r < 32; ++r)
                for (int64_t c = 0; c < s.K; ++c) dq_rows[r * s.K + c] = dq[c * 32 + r];
            write_rows(out_q + i * step, step, dq_rows, factor, std::min<int64_t>(32, s.S - i), s.K);
        }
        for (int64_t j = 0; j < s.S; j += 32) {
            const int64_t rows = std::min<int64_t>(32, s.S - j);
            write_rows(out_k + j * step, step, dk + j * s.K, factor, rows, s.K);
            write_rows(out_v + j * step, step, dv + j * s.K, one, rows, s.K);
        }
    }

    void block(int64_t i, int64_t j, float scale) {  // queries i.., keys j..
        const int64_t right = s.chunks * TILE;
        product(scores, 32, k + j * s.K, s.K, 32, qt + i * s.K, right, TILE, s.chunks, false);
        product(slopes, 32, v + j * s.K, s.K, 32, gt + i * s.K, right, TILE, s.chunks, false);
        weights(i, std::min<int64_t>(32, s.S - j), scale);
        for (int64_t c = 0; c < s.K; c += 32) {
            product(dv + j * s.K + c, s.K, p, 32, 0, gp + i * s.K + c / 16 * TILE, TILE, 0, 1, true);
            product(dk + j * s.K + c, s.K, d, 32, 0, qp + i * s.K + c / 16 * TILE, TILE, 0, 1, true);
            product(dq + c * 32, 32, kT + c * s.padded + j, s.padded, 0, dp, TILE, 0, 1, true);
        }
    }

    // The weights p [32 keys, 32 queries], the scores' gradient d [32, 32] and the same packed by pairs of keys.
    void weights(int64_t i, int64_t keys, float scale) {
        const __m512 by = _mm512_set1_ps(scale);
        alignas(64) bf16 order[32];
        for (int n = 0; n < 16; ++n) { order[2 * n] = bf16(n); order[2 * n + 1] = bf16(16 + n); }
        const __m512i woven = _mm512_load_si512(order);
        const __m512 level0 = _mm512_loadu_ps(level + i), level1 = _mm512_loadu_ps(level + i + 16);
        const __m512 delta0 = _mm512_loadu_ps(delta + i), delta1 = _mm512_loadu_ps(delta + i + 16);
        for (int64_t r = 0; r < 32; r += 2) {
            __m512 slope[2][2];
            for (int64_t t = 0; t < 2; ++t) {
                const float *x = scores + (r + t) * 32, *y = slopes + (r + t) * 32;
                const __mmask16 there = r + t < keys ? 0xffff : 0;  // a padded key has no weight
                __m512 p0 = _mm512_maskz_mov_ps(there, exp2(_mm512_fmsub_ps(_mm512_loadu_ps(x), by, level0)));
                __m512 p1 = _mm512_maskz_mov_ps(there, exp2(_mm512_fmsub_ps(_mm512_loadu_ps(x + 16), by, level1)));
                slope[t][0] = _mm512_mul_ps(p0, _mm512_sub_ps(_mm512_loadu_ps(y), delta0));
                slope[t][1] = _mm512_mul_ps(p1, _mm512_sub_ps(_mm512_loadu_ps(y + 16), delta1));
                _mm512_storeu_si512(p + (r + t) * 32, narrow(p0, p1));
                _mm512_storeu_si512(d + (r + t) * 32, narrow(slope[t][0], slope[t][1]));
            }
            for (int64_t half = 0; half < 2; ++half)
                _mm512_storeu_si512(dp + half * TILE + r * 16,
                                    _mm512_permutexvar_epi16(woven, narrow(slope[0][half], slope[1][half])));
        }
    }
};

// Strides of a tensor [B, S, N, K] in entries; the last is 1.
Rows rows_of(const bf16* at, const int64_t* strides, int64_t b, int64_t n) {
    return {at + b * strides[0] + n * strides[2], strides[1]};
}

}  // namespace

// The kernel's tile unit: 1 where the system lets this process use it, -1 where it does not.
extern "C" int prepare() {
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0 ? 1 : -1;
}

// q, k, v [B, S, N, K] with strides; out [B, S, N, K] contiguous; lse [B, N, S].
extern "C" void attention_forward(const bf16* q, const bf16* k, const bf16* v, const int64_t* strides, bf16* out, float* lse,
                                  int64_t B, int64_t S, int64_t N, int64_t K, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Tiles tiles;
        Forward forward(Shape(S, K));
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < B * N; ++task) {
            const int64_t b = task / N, n = task % N;
            forward.head(rows_of(q, strides, b, n), rows_of(k, strides + 4, b, n), rows_of(v, strides + 8, b, n),
                         out + (b * S * N + n) * K, N * K, lse + task * S);
        }
    }
}

// Strides of g (the output's gradient), q, k, v, o; dq, dk, dv [B, S, N, K] contiguous.
extern "C" void attention_backward(const bf16* g, const bf16* q, const bf16* k, const bf16* v, const bf16* o,
                                   const int64_t* strides, const float* lse, bf16* dq, bf16* dk, bf16* dv, int64_t B, int64_t S,
                                   int64_t N, int64_t K, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Tiles tiles;
        Backward backward(Shape(S, K));
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < B * N; ++task) {
            const int64_t b = task / N, n = task % N, at = (b * S * N + n) * K;
            backward.head(rows_of(g, strides, b, n), rows_of(q, strides + 4, b, n), rows_of(k, strides + 8, b, n),
                          rows_of(v, strides + 12, b, n), rows_of(o, strides + 16, b, n), lse + task * S, dq + at, dk + at,
                          dv + at, N * K);
        }
    }
}
