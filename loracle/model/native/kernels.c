/* The elementwise parts of a decoder layer in one pass over the activations each.
 *
 * Built by __init__.py with the machine's own compiler, and optional: fused_layers.py has the
 * same results by torch's operations. Rows are independent, so the number of threads changes
 * nothing. Values are float32, or bfloat16 held as its upper 16 bits; every function exists for
 * both, named ..._f32 and ..._bf16. Sums and steps in between are float32.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef uint64_t u64;
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

#define KERNELS(T)                                                                               \
    /* y = w * rounded(x / sqrt(mean(x^2) + eps)); inverse (N,) is kept for the backward. */     \
    void rms_norm_##T(const T *x, const T *weight, T *y, float *inverse, i64 num_rows, i64 size, \
                      float eps) {                                                               \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                           \
            const T *row = x + n * size;                                                         \
            T *out = y + n * size;                                                               \
            float total = 0.0f;                                                                  \
            _Pragma("omp simd reduction(+ : total)") for (i64 i = 0; i < size; i++) {            \
                const float value = f32_of_##T(row[i]);                                          \
                total += value * value;                                                          \
            }                                                                                    \
            const float scale = 1.0f / sqrtf(total / (float)size + eps);                         \
            inverse[n] = scale;                                                                  \
            for (i64 i = 0; i < size; i++) {                                                     \
                const float normed = f32_of_##T(f32_to_##T(f32_of_##T(row[i]) * scale));         \
                out[i] = f32_to_##T(normed * f32_of_##T(weight[i]));                             \
            }                                                                                    \
        }                                                                                        \
    }                                                                                            \
    void rms_norm_backward_##T(const T *gradient, const T *x, const T *weight,                   \
                               const float *inverse, T *d_x, i64 num_rows, i64 size) {           \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                           \
            const T *row = x + n * size, *g = gradient + n * size;                               \
            T *out = d_x + n * size;                                                             \
            const float scale = inverse[n];                                                      \
            float along = 0.0f;                                                                  \
            _Pragma("omp simd reduction(+ : along)") for (i64 i = 0; i < size; i++)              \
                along += f32_of_##T(g[i]) * f32_of_##T(weight[i]) * f32_of_##T(row[i]);          \
            const float share = along * scale * scale / (float)size;                             \
            for (i64 i = 0; i < size; i++)                                                       \
                out[i] = f32_to_##T(scale * (f32_of_##T(g[i]) * f32_of_##T(weight[i]) -          \
                                             share * f32_of_##T(row[i])));                       \
        }                                                                                        \
    }                                                                                            \
    /* y = rounded(silu(gate)) * up */                                                           \
    void swiglu_##T(const T *gate, const T *up, T *y, i64 num_rows, i64 size) {                  \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                           \
            const T *g = gate + n * size, *u = up + n * size;                                    \
            T *out = y + n * size;                                                               \
            for (i64 i = 0; i < size; i++) {                                                     \
                const float value = f32_of_##T(g[i]);                                            \
                const float silu = value / (1.0f + exponential(-value));                         \
                out[i] = f32_to_##T(f32_of_##T(f32_to_##T(silu)) * f32_of_##T(u[i]));            \
            }                                                                                    \
        }                                                                                        \
    }                                                                                            \
    void swiglu_backward_##T(const T *gradient, const T *gate, const T *up, T *d_gate, T *d_up,  \
                             i64 num_rows, i64 size) {                                           \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                           \
            const i64 first = n * size;                                                          \
            const T *d = gradient + first, *g = gate + first, *u = up + first;                   \
            T *out_g = d_gate + first, *out_u = d_up + first;                                    \
            for (i64 i = 0; i < size; i++) {                                                     \
                const float value = f32_of_##T(g[i]), d_y = f32_of_##T(d[i]);                    \
                const float sigmoid = 1.0f / (1.0f + exponential(-value));                       \
                out_u[i] = f32_to_##T(d_y * value * sigmoid);                                    \
                out_g[i] = f32_to_##T(d_y * f32_of_##T(u[i]) * sigmoid *                         \
                                      (1.0f + value * (1.0f - sigmoid)));                        \
            }                                                                                    \
        }                                                                                        \
    }

typedef float f32;
KERNELS(f32)
KERNELS(bf16)

static inline u64 mixed(u64 word) {
    word ^= word >> 30;
    word *= 0xBF58476D1CE4E5B9ull;
    word ^= word >> 27;
    word *= 0x94D049BB133111EBull;
    return word ^ (word >> 31);
}

/* The hits of token_dropout.py: y is x with the features zeroed that the token's key draws.
 * x may be y. distribution: P(hits <= k), ascending. item_bytes: of one value. */
void drop(const char *x, char *y, const u64 *keys, u64 layer_word, const double *distribution,
          i64 distribution_size, i64 num_rows, i64 size, i64 item_bytes) {
    const u64 gamma = 0x9E3779B97F4A7C15ull;
    PARALLEL for (i64 n = 0; n < num_rows; n++) {
        char *out = y + n * size * item_bytes;
        if (x != y) memcpy(out, x + n * size * item_bytes, (size_t)(size * item_bytes));
        u64 state = mixed(keys[n] + layer_word);
        const double uniform = (double)(state >> 11) * 0x1p-53;
        i64 low = 0, high = distribution_size; /* the first place above uniform */
        while (low < high) {
            const i64 middle = (low + high) / 2;
            if (distribution[middle] <= uniform) low = middle + 1;
            else high = middle;
        }
        for (i64 hit = 0; hit < low; hit += 2) {
            state += gamma;
            const u64 word = mixed(state);
            const u64 halves[2] = {word & 0xffffffffull, word >> 32};
            for (int half = 0; half < 2 && hit + half < low; half++) {
                const u64 place = (halves[half] * (u64)size) >> 32;
                if (item_bytes == 2) ((uint16_t *)out)[place] = 0;
                else ((uint32_t *)out)[place] = 0;
            }
        }
    }
}
