// Full attention in bfloat16 on an x86 CPU with AVX512-BF16 and no tile unit, forward and backward.
// `models/kernels/attention.py` says why and calls it; attention_amx.cpp is the same for the tile unit.
//
// Everything is built of one product of 8 rows by up to 48 columns that stays in registers.  Short sequences are padded
// to 8 queries and 16 keys only, and fit the first-level cache; long ones go block by block.  One task is one head of one
// slot, done by one thread in a fixed order, so that results are the same to the bit whatever the number of threads.
//
// S sequence, P the same padded to a multiple of 16; K width of a head, a multiple of 32.  A pair is two bfloat16 that one
// instruction multiplies and adds: of neighbouring columns in "across", of neighbouring rows in "down".

#include <immintrin.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;
using Pair = uint32_t;
constexpr int64_t ROWS = 8;        // rows of a product
constexpr int64_t QUERIES = 64;    // queries of a block of the backward pass
constexpr int64_t KEYS = 96;       // keys of a block of the backward pass
constexpr float LOG2E = 1.44269504088896f;

struct alignas(64) Line { uint8_t bytes[64]; };

// Scratch on a cache line.
template <class T> struct Buffer {
    std::vector<Line> lines;
    explicit Buffer(int64_t n) : lines((n * sizeof(T) + 63) / 64) {}
    operator T*() { return reinterpret_cast<T*>(lines.data()); }
};

// Rows of a tensor [B, S, N, K] that belong to one head: K entries each, `step` apart.
struct Rows {
    const bf16* at;
    int64_t step;
    const bf16* operator[](int64_t r) const { return at + r * step; }
};

inline __m512i narrow(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

// (first[i], second[i]) for every i.
inline __m512i paired(__m512 first, __m512 second) {
    const __m512i low = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    alignas(64) static constexpr bf16 order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_load_si512(order), low);
}

// 2^x; nothing below 2^-150.  What is not a number stays so: the maximum of the two is then its second operand.
inline __m512 exp2(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-150.f), x);
    const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(1.3333558e-3f);
    for (float c : {9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.f})
        y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(c));
    return _mm512_scalef_ps(y, whole);
}

// sum[r][c] += the sum over n pairs j of a[r][j] b[j][c].  `a_step` is in bfloat16, `ldb` in pairs.
template <int C>
inline void multiply(__m512 (&sum)[ROWS][C], const bf16* const (&a)[ROWS], int64_t a_step, const Pair* b, int64_t ldb, int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
        __m512bh columns[C];
#pragma GCC unroll 3
        for (int c = 0; c < C; ++c) columns[c] = (__m512bh)_mm512_loadu_si512(b + j * ldb + 16 * c);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            Pair pair;
            std::memcpy(&pair, a[r] + j * a_step, 4);
            const __m512bh x = (__m512bh)_mm512_set1_epi32(int(pair));
#pragma GCC unroll 3
            for (int c = 0; c < C; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], x, columns[c]);
        }
    }
}

template <int C> inline void clear(__m512 (&sum)[ROWS][C]) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 3
        for (int c = 0; c < C; ++c) sum[r][c] = _mm512_setzero_ps();
}

// Pointers to 8 rows from r; the last row stands for those behind the end.
inline void eight(const bf16* (&to)[ROWS], Rows from, int64_t r, int64_t S) {
    for (int64_t i = 0; i < ROWS; ++i) to[i] = from[std::min(r + i, S - 1)];
}

// Calls f with the number of vectors of 16 keys, at most 3 at a time, as a constant.
template <class F> inline void by_columns(int64_t begin, int64_t end, F f) {
    int64_t j = begin;
    for (; j + 48 <= end; j += 48) f(j, std::integral_constant<int, 3>());
    if (end - j == 32) f(j, std::integral_constant<int, 2>());
    if (end - j == 16) f(j, std::integral_constant<int, 1>());
}

inline __mmask16 there(int64_t first, int64_t S) { return S - first >= 16 ? 0xffff : (1u << std::max<int64_t>(S - first, 0)) - 1; }

// The rows' transpose as pairs across: [K / 2][P]; zero behind the S rows.
void pack_across(Pair* to, Rows from, int64_t S, int64_t P, int64_t K) {
    for (int64_t top = 0; top < P; top += 16)
        for (int64_t k = 0; k < K; k += 32) {
            __m512i r[16], t[16];
            for (int i = 0; i < 16; ++i) r[i] = top + i < S ? _mm512_loadu_si512(from[top + i] + k) : _mm512_setzero_si512();
            for (int i = 0; i < 16; i += 2) {
                t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
                t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
            }
            for (int i = 0; i < 16; i += 4)
                for (int h = 0; h < 2; ++h) {
                    r[i + 2 * h] = _mm512_unpacklo_epi64(t[i + h], t[i + h + 2]);
                    r[i + 2 * h + 1] = _mm512_unpackhi_epi64(t[i + h], t[i + h + 2]);
                }
            for (int c = 0; c < 4; ++c) {
                const __m512i even0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), even1 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
                const __m512i odd0 = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd), odd1 = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
                Pair* at = to + (k / 2 + c) * P + top;
                _mm512_storeu_si512(at, _mm512_shuffle_i32x4(even0, even1, 0x88));
                _mm512_storeu_si512(at + 4 * P, _mm512_shuffle_i32x4(odd0, odd1, 0x88));
                _mm512_storeu_si512(at + 8 * P, _mm512_shuffle_i32x4(even0, even1, 0xdd));
                _mm512_storeu_si512(at + 12 * P, _mm512_shuffle_i32x4(odd0, odd1, 0xdd));
            }
        }
}

// The rows as pairs down: [P / 2][K]; zero behind the S rows.
void pack_down(Pair* to, Rows from, int64_t S, int64_t P, int64_t K) {
    for (int64_t r = 0; r < P; r += 2)
        for (int64_t k = 0; k < K; k += 32, to += 32) {
            const __m512i first = r < S ? _mm512_loadu_si512(from[r] + k) : _mm512_setzero_si512();
            const __m512i second = r + 1 < S ? _mm512_loadu_si512(from[r + 1] + k) : _mm512_setzero_si512();
            const __m512i place = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), behind = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
            const __m512i low = _mm512_unpacklo_epi16(first, second), high = _mm512_unpackhi_epi16(first, second);
            _mm512_storeu_si512(to, _mm512_permutex2var_epi64(low, place, high));
            _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi64(low, behind, high));
        }
}

inline void write(bf16* to, const __m512 (&x)[2], __m512 factor) {
    _mm512_storeu_si512(to, narrow(_mm512_mul_ps(x[0], factor), _mm512_mul_ps(x[1], factor)));
}

struct Forward {
    int64_t S, K, P;
    Buffer<Pair> kt, vp;
    Buffer<bf16> p;
    Buffer<float> scores;
    Forward(int64_t S, int64_t K) : S(S), K(K), P((S + 15) / 16 * 16), kt(P * K / 2), vp(P * K / 2), p(ROWS * P), scores(ROWS * P) {}

    void head(Rows q, Rows k, Rows v, bf16* out, int64_t step, float* lse) {
        pack_across(kt, k, S, P, K);
        pack_down(vp, v, S, P, K);
        const float scale = LOG2E / std::sqrt(float(K));
        for (int64_t i = 0; i < S; i += ROWS) {
            const int64_t rows = std::min(ROWS, S - i);
            const bf16* a[ROWS];
            eight(a, q, i, S);
            __m512 top[ROWS];
            for (auto& t : top) t = _mm512_set1_ps(-INFINITY);
            by_columns(0, P, [&](int64_t j, auto count) {
                constexpr int C = decltype(count)::value;
                __m512 sum[ROWS][C];
                clear(sum);
                multiply(sum, a, 2, kt + j, P, K / 2);
#pragma GCC unroll 3
                for (int c = 0; c < C; ++c) {
                    const __mmask16 real = there(j + 16 * c, S);
#pragma GCC unroll 8
                    for (int r = 0; r < ROWS; ++r) {
                        const __m512 x = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), real, sum[r][c]);
                        top[r] = _mm512_max_ps(top[r], x);
                        _mm512_store_ps(scores + r * P + j + 16 * c, x);
                    }
                }
            });
            float inverse[ROWS];
            for (int64_t r = 0; r < rows; ++r) lse[i + r] = softmax(r, _mm512_reduce_max_ps(top[r]), scale, inverse + r);
            for (int64_t r = 0; r < ROWS; ++r) a[r] = p + std::min(r, rows - 1) * P;
            for (int64_t c = 0; c < K; c += 32) {
                __m512 sum[ROWS][2];
                clear(sum);
                multiply(sum, a, 2, vp + c, K, (S + 1) / 2);
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r)
                    if (r < rows) write(out + (i + r) * step + c, sum[r], _mm512_set1_ps(inverse[r]));
            }
        }
    }

    // exp(scale (x - max)) of row r in bfloat16, one over its sum, and the logarithm of the sum of exponentials.
    float softmax(int64_t r, float most, float scale, float* inverse) {
        const float top = scale * most;
        const __m512 by = _mm512_set1_ps(scale), minus = _mm512_set1_ps(-top);
        __m512 sum = _mm512_setzero_ps();
        const float* x = scores + r * P;
        bf16* to = p + r * P;
        for (int64_t j = 0; j < P; j += 16) {
            const __m512 y = exp2(_mm512_fmadd_ps(_mm512_load_ps(x + j), by, minus));
            sum = _mm512_add_ps(sum, y);
            _mm256_store_si256((__m256i*)(to + j), (__m256i)_mm512_cvtneps_pbh(y));
        }
        const float total = _mm512_reduce_add_ps(sum);
        *inverse = 1 / total;
        return (top + std::log2(total)) / LOG2E;
    }
};

struct Backward {
    int64_t S, K, P;
    Buffer<Pair> kt, vt, kp, qp, gp, weights, slopes;  // the last two [QUERIES / 2][KEYS], pairs down
    Buffer<bf16> d;                                    // the scores' gradient [QUERIES, KEYS]
    Buffer<float> dq, dk, dv, level, delta;
    Backward(int64_t S, int64_t K) : S(S), K(K), P((S + 15) / 16 * 16), kt(P * K / 2), vt(P * K / 2), kp(P * K / 2), qp(P * K / 2),
        gp(P * K / 2), weights(QUERIES / 2 * KEYS), slopes(QUERIES / 2 * KEYS), d(QUERIES * KEYS), dq(QUERIES * K), dk(P * K),
        dv(P * K), level(P), delta(P) {}

    void head(Rows g, Rows q, Rows k, Rows v, Rows o, const float* lse, bf16* out_q, bf16* out_k, bf16* out_v, int64_t step) {
        pack_across(kt, k, S, P, K); pack_across(vt, v, S, P, K);
        pack_down(kp, k, S, P, K); pack_down(qp, q, S, P, K); pack_down(gp, g, S, P, K);
        for (int64_t r = 0; r < P; ++r) {
            const int64_t real = std::min(r, S - 1);
            __m512 sum = _mm512_setzero_ps();
            for (int64_t c = 0; c < K; c += 32)
                sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_loadu_si512(o[real] + c), (__m512bh)_mm512_loadu_si512(g[real] + c));
            delta[r] = _mm512_reduce_add_ps(sum);
            level[r] = LOG2E * lse[real];
        }
        const float scale = 1 / std::sqrt(float(K));
        for (int64_t i = 0; i < S; i += QUERIES) {
            const int64_t queries = (std::min(QUERIES, S - i) + ROWS - 1) / ROWS * ROWS;
            for (int64_t j = 0; j < P; j += KEYS) {
                const int64_t keys = std::min(KEYS, P - j);
                for (int64_t r = 0; r < queries; r += ROWS) {
                    scores(g, q, i, r, j, keys, LOG2E * scale);
                    const bf16* a[ROWS];
                    for (int64_t n = 0; n < ROWS; ++n) a[n] = d + (r + n) * KEYS;
                    add(dq + r * K, a, 2, kp + j / 2 * K, keys / 2, j > 0);
                }
                for (int64_t n = 0; n < keys; n += ROWS) {
                    const bf16 *a[ROWS], *b[ROWS];
                    for (int64_t m = 0; m < ROWS; ++m) {
                        a[m] = reinterpret_cast<const bf16*>(weights + n + m);
                        b[m] = reinterpret_cast<const bf16*>(slopes + n + m);
                    }
                    add(dv + (j + n) * K, a, 2 * KEYS, gp + i / 2 * K, queries / 2, i > 0);
                    add(dk + (j + n) * K, b, 2 * KEYS, qp + i / 2 * K, queries / 2, i > 0);
                }
            }
            write_rows(out_q + i * step, step, dq, scale, std::min(QUERIES, S - i));
        }
        write_rows(out_k, step, dk, scale, S);
        write_rows(out_v, step, dv, 1, S);
    }

    // The weights and the scores' gradient of queries i + r.. (eight) and keys j...
    inline void scores(Rows g, Rows q, int64_t i, int64_t r, int64_t j, int64_t keys, float scale) {
        const bf16 *aq[ROWS], *ag[ROWS];
        eight(aq, q, i + r, S);
        eight(ag, g, i + r, S);
        const __m512 by = _mm512_set1_ps(scale);
        by_columns(0, keys, [&](int64_t n, auto count) {
            constexpr int C = decltype(count)::value;
            alignas(64) float p[ROWS][C][16];
            __m512 sum[ROWS][C];
            clear(sum);
            multiply(sum, aq, 2, kt + j + n, P, K / 2);
#pragma GCC unroll 4
            for (int m = 0; m < ROWS; m += 2) {
                const __m512 level0 = _mm512_set1_ps(level[i + r + m]), level1 = _mm512_set1_ps(level[i + r + m + 1]);
#pragma GCC unroll 3
                for (int c = 0; c < C; ++c) {
                    const __mmask16 real = there(j + n + 16 * c, S);  // a padded key has no weight
                    const __m512 p0 = _mm512_maskz_mov_ps(real, exp2(_mm512_fmsub_ps(sum[m][c], by, level0)));
                    const __m512 p1 = _mm512_maskz_mov_ps(real, exp2(_mm512_fmsub_ps(sum[m + 1][c], by, level1)));
                    _mm512_store_ps(p[m][c], p0);
                    _mm512_store_ps(p[m + 1][c], p1);
                    _mm512_store_si512(weights + (r + m) / 2 * KEYS + n + 16 * c, paired(p0, p1));
                }
            }
            clear(sum);
            multiply(sum, ag, 2, vt + j + n, P, K / 2);
#pragma GCC unroll 4
            for (int m = 0; m < ROWS; m += 2) {
                const __m512 delta0 = _mm512_set1_ps(delta[i + r + m]), delta1 = _mm512_set1_ps(delta[i + r + m + 1]);
#pragma GCC unroll 3
                for (int c = 0; c < C; ++c) {
                    const __m512 d0 = _mm512_mul_ps(_mm512_load_ps(p[m][c]), _mm512_sub_ps(sum[m][c], delta0));
                    const __m512 d1 = _mm512_mul_ps(_mm512_load_ps(p[m + 1][c]), _mm512_sub_ps(sum[m + 1][c], delta1));
                    bf16* row = d + (r + m) * KEYS + n + 16 * c;
                    _mm256_store_si256((__m256i*)row, (__m256i)_mm512_cvtneps_pbh(d0));
                    _mm256_store_si256((__m256i*)(row + KEYS), (__m256i)_mm512_cvtneps_pbh(d1));
                    _mm512_store_si512(slopes + (r + m) / 2 * KEYS + n + 16 * c, paired(d0, d1));
                }
            }
        });
    }

    // c [8, K] (+)= the product of 8 rows a and the pairs b [n, K].
    inline void add(float* to, const bf16* const (&a)[ROWS], int64_t a_step, const Pair* b, int64_t n, bool more) {
        for (int64_t c = 0; c < K; c += 32) {
            __m512 sum[ROWS][2];
            clear(sum);
            if (more)
#pragma GCC unroll 8
                for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
                    for (int h = 0; h < 2; ++h) sum[r][h] = _mm512_load_ps(to + r * K + c + 16 * h);
            multiply(sum, a, a_step, b + c, K, n);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
                for (int h = 0; h < 2; ++h) _mm512_store_ps(to + r * K + c + 16 * h, sum[r][h]);
        }
    }

    void write_rows(bf16* to, int64_t step, const float* from, float factor, int64_t count) {
        for (int64_t r = 0; r < count; ++r)
            for (int64_t c = 0; c < K; c += 32) {
                const __m512 x[2] = {_mm512_load_ps(from + r * K + c), _mm512_load_ps(from + r * K + c + 16)};
                write(to + r * step + c, x, _mm512_set1_ps(factor));
            }
    }
};

// Strides of a tensor [B, S, N, K] in entries; the last is 1.
Rows rows_of(const bf16* at, const int64_t* strides, int64_t b, int64_t n) {
    return {at + b * strides[0] + n * strides[2], strides[1]};
}

}  // namespace

// 0: this kernel uses no tile unit.
extern "C" int prepare() { return 0; }

// q, k, v [B, S, N, K] with strides; out [B, S, N, K] contiguous; lse [B, N, S].
extern "C" void attention_forward(const bf16* q, const bf16* k, const bf16* v, const int64_t* strides, bf16* out, float* lse,
                                  int64_t B, int64_t S, int64_t N, int64_t K, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Forward forward(S, K);
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
        Backward backward(S, K);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < B * N; ++task) {
            const int64_t b = task / N, n = task % N, at = (b * S * N + n) * K;
            backward.head(rows_of(g, strides, b, n), rows_of(q, strides + 4, b, n), rows_of(k, strides + 8, b, n),
                          rows_of(v, strides + 12, b, n), rows_of(o, strides + 16, b, n), lse + task * S, dq + at, dk + at,
                          dv + at, N * K);
        }
    }
}
