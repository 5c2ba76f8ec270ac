/* The elementwise parts of a decoder layer in one pass over the activations each.
 *
 * Built by __init__.py with the machine's own compiler, and optional: fused_layers.py has the
 * same results by torch's operations. Rows are independent, so the number of threads changes
 * nothing. Values are float32, or bfloat16 held as its upper 16 bits; every function exists for
 * both, named ..._f32 and ..._bf16. Sums and steps in between are float32.
 */

#include "values.h"

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
                const float normed = rounded_##T(f32_of_##T(row[i]) * scale);         \
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
                out[i] = f32_to_##T(rounded_##T(silu) * f32_of_##T(u[i]));            \
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

KERNELS(f32)
KERNELS(bf16)

/* y is x with the features zeroed that each token's key draws. x may be y. item_bytes: of one
 * value. */
void drop(const char *x, char *y, Dropout dropout, i64 num_rows, i64 size, i64 item_bytes) {
    PARALLEL for (i64 n = 0; n < num_rows; n++) {
        uint32_t places[dropout.distribution_size + 2];
        char *out = y + n * size * item_bytes;
        if (x != y) memcpy(out, x + n * size * item_bytes, (size_t)(size * item_bytes));
        const i64 num_hits = draw_hits(&dropout, n, size, places);
        for (i64 hit = 0; hit < num_hits; hit++) {
            if (item_bytes == 2) ((uint16_t *)out)[places[hit]] = 0;
            else ((uint32_t *)out)[places[hit]] = 0;
        }
    }
}
