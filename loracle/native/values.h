/* What all kernels share: number types, exp, and the draws of dropout. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_BF16_PRODUCTS 1
#else
#define HAS_BF16_PRODUCTS 0
#endif

typedef int64_t i64;
typedef uint64_t u64;
typedef float f32;
typedef uint16_t bf16;

static inline float f32_of_f32(float x) { return x; }
static inline float f32_to_f32(float x) { return x; }
static inline float f32_of_bf16(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
/* To the nearest, ties to even; what is not a number stays so. */
static inline bf16 f32_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (bits & 0x7fffffffu) > 0x7f800000u ? (bf16)0x7fc0 : (bf16)rounded;
}

static inline float rounded_f32(float x) { return x; }
static inline float rounded_bf16(float x) { return f32_of_bf16(f32_to_bf16(x)); }

/* Work on bfloat16 is done in blocks of float32: loops over both types at once are slow. */
#define BLOCK 512
#define BLOCKS for (i64 i = 0, count = least(size, BLOCK); i < size; \
                    i += BLOCK, count = least(size - i, BLOCK))

static inline i64 least(i64 a, i64 b) { return a < b ? a : b; }

/* The values as float32: themselves, or written to block. */
static inline const float *loaded_f32(const f32 *from, float *block, i64 count) {
    (void)block, (void)count;
    return from;
}
static inline const float *loaded_bf16(const bf16 *from, float *block, i64 count) {
    for (i64 i = 0; i < count; i++) block[i] = f32_of_bf16(from[i]);
    return block;
}
static inline void store_f32(const float *from, f32 *to, i64 count) {
    memcpy(to, from, (size_t)count * 4);
}
static inline void store_bf16(const float *from, bf16 *to, i64 count) {
    i64 i = 0;
#if HAS_BF16_PRODUCTS
    for (; i + 16 <= count; i += 16)
        _mm256_storeu_si256((__m256i *)(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
#endif
    for (; i < count; i++) to[i] = f32_to_bf16(from[i]);
}
/* Rounded to the type and back. */
static inline void round_f32(float *block, i64 count) { (void)block, (void)count; }
static inline void round_bf16(float *block, i64 count) {
    bf16 rounded[BLOCK];
    store_bf16(block, rounded, count);
    loaded_bf16(rounded, block, count);
}

/* exp by 2^n times a polynomial: two units in the last place, and without branches. */
static inline float exponential(float x) {
    x = x > 88.0f ? 88.0f : x;
    x = x < -87.0f ? -87.0f : x;
    const float shifted = x * 1.44269504f + 12582912.0f; /* rounds to an integer */
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    const int32_t scale_bits = (int32_t)((uint32_t)(bits + 127) << 23);
    float scale;
    memcpy(&scale, &scale_bits, 4);
    return p * scale;
}

/* Few tokens are done before other threads have woken up. */
#define PARALLEL _Pragma("omp parallel for if (num_rows * size > 32768)")

static inline u64 mixed(u64 word) {
    word ^= word >> 30;
    word *= 0xBF58476D1CE4E5B9ull;
    word ^= word >> 27;
    word *= 0x94D049BB133111EBull;
    return word ^ (word >> 31);
}

/* What a layer's dropout draws from (token_dropout.py); keys NULL: nothing is dropped.
 * distribution: P(hits <= k), ascending, distribution_size of them. */
typedef struct {
    const u64 *keys;
    u64 layer_word;
    const double *distribution;
    i64 distribution_size;
} Dropout;

/* The features that token n has zeroed, some perhaps twice, in places: their number. There is room
 * for one more than distribution_size. */
static inline i64 draw_hits(const Dropout *dropout, i64 n, i64 size, uint32_t *places) {
    u64 state = mixed(dropout->keys[n] + dropout->layer_word);
    const double uniform = (double)(state >> 11) * 0x1p-53;
    const double *at = dropout->distribution;
    for (i64 left = dropout->distribution_size; left > 1;) { /* without branches on what is drawn */
        const i64 half = left / 2;
        at += at[half - 1] <= uniform ? half : 0;
        left -= half;
    }
    const i64 num_hits = at - dropout->distribution + (*at <= uniform);
    for (i64 hit = 0; hit < num_hits; hit += 2) {
        state += 0x9E3779B97F4A7C15ull;
        const u64 word = mixed(state);
        places[hit] = (uint32_t)(((word & 0xffffffffull) * (u64)size) >> 32);
        places[hit + 1] = (uint32_t)(((word >> 32) * (u64)size) >> 32);
    }
    return num_hits;
}
