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
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                            \
            float x_block[BLOCK], w_block[BLOCK], out[BLOCK], total = 0.0f;                      \
            BLOCKS {                                                                             \
                const float *v = loaded_##T(x + n * size + i, x_block, count);                   \
                _Pragma("omp simd reduction(+ : total)") for (i64 k = 0; k < count; k++)         \
                    total += v[k] * v[k];                                                        \
            }                                                                                    \
            const float scale = 1.0f / sqrtf(total / (float)size + eps);                         \
            inverse[n] = scale;                                                                  \
            BLOCKS {                                                                             \
                const float *v = loaded_##T(x + n * size + i, x_block, count);                   \
                const float *w = loaded_##T(weight + i, w_block, count);                         \
                for (i64 k = 0; k < count; k++) out[k] = v[k] * scale;                           \
                round_##T(out, count);                                                           \
                for (i64 k = 0; k < count; k++) out[k] *= w[k];                                  \
                store_##T(out, y + n * size + i, count);                                         \
            }                                                                                    \
        }                                                                                        \
    }                                                                                            \
    void rms_norm_backward_##T(const T *gradient, const T *x, const T *weight,                   \
                               const float *inverse, T *d_x, i64 num_rows, i64 size) {           \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                            \
            float g_block[BLOCK], x_block[BLOCK], w_block[BLOCK], out[BLOCK], along = 0.0f;      \
            BLOCKS {                                                                             \
                const float *g = loaded_##T(gradient + n * size + i, g_block, count);            \
                const float *v = loaded_##T(x + n * size + i, x_block, count);                   \
                const float *w = loaded_##T(weight + i, w_block, count);                         \
                _Pragma("omp simd reduction(+ : along)") for (i64 k = 0; k < count; k++)         \
                    along += g[k] * w[k] * v[k];                                                 \
            }                                                                                    \
            const float scale = inverse[n], share = along * scale * scale / (float)size;         \
            BLOCKS {                                                                             \
                const float *g = loaded_##T(gradient + n * size + i, g_block, count);            \
                const float *v = loaded_##T(x + n * size + i, x_block, count);                   \
                const float *w = loaded_##T(weight + i, w_block, count);                         \
                for (i64 k = 0; k < count; k++) out[k] = scale * (g[k] * w[k] - share * v[k]);   \
                store_##T(out, d_x + n * size + i, count);                                       \
            }                                                                                    \
        }                                                                                        \
    }                                                                                            \
    /* y = rounded(silu(gate)) * up */                                                           \
    void swiglu_##T(const T *gate, const T *up, T *y, i64 num_rows, i64 size) {                  \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                            \
            float g_block[BLOCK], u_block[BLOCK], out[BLOCK];                                    \
            BLOCKS {                                                                             \
                const float *g = loaded_##T(gate + n * size + i, g_block, count);                \
                const float *u = loaded_##T(up + n * size + i, u_block, count);                  \
                for (i64 k = 0; k < count; k++) out[k] = g[k] / (1.0f + exponential(-g[k]));     \
                round_##T(out, count);                                                           \
                for (i64 k = 0; k < count; k++) out[k] *= u[k];                                  \
                store_##T(out, y + n * size + i, count);                                         \
            }                                                                                    \
        }                                                                                        \
    }                                                                                            \
    void swiglu_backward_##T(const T *gradient, const T *gate, const T *up, T *d_gate, T *d_up,  \
                             i64 num_rows, i64 size) {                                           \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                            \
            float d_block[BLOCK], g_block[BLOCK], u_block[BLOCK], out_g[BLOCK], out_u[BLOCK];    \
            BLOCKS {                                                                             \
                const i64 first = n * size + i;                                                  \
                const float *d = loaded_##T(gradient + first, d_block, count);                   \
                const float *g = loaded_##T(gate + first, g_block, count);                       \
                const float *u = loaded_##T(up + first, u_block, count);                         \
                for (i64 k = 0; k < count; k++) {                                                \
                    const float sigmoid = 1.0f / (1.0f + exponential(-g[k]));                    \
                    out_u[k] = d[k] * g[k] * sigmoid;                                            \
                    out_g[k] = d[k] * u[k] * sigmoid * (1.0f + g[k] * (1.0f - sigmoid));         \
                }                                                                                \
                store_##T(out_g, d_gate + first, count);                                         \
                store_##T(out_u, d_up + first, count);                                           \
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
