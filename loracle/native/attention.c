/* The elementwise parts of attention (forest/attention/span_products.py, model/fused_layers.py). */

#include "values.h"

#define ATTENTION(T)                                                                             \
    /* scores (H, Q, J) = softmax(scale * scores + bias), bias (Q, J): some of every row is seen. */\
    void masked_softmax_##T(T *scores, const T *bias, i64 num_heads, i64 num_queries,            \
                            i64 num_keys, float scale) {                                         \
        const i64 num_rows = num_heads * num_queries, size = num_keys;                           \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                            \
            T *row = scores + n * size;                                                          \
            const T *b = bias + n % num_queries * size;                                          \
            float s_block[BLOCK], b_block[BLOCK], values[size], largest = -INFINITY;             \
            BLOCKS {                                                                             \
                const float *s = loaded_##T(row + i, s_block, count);                            \
                const float *c = loaded_##T(b + i, b_block, count);                              \
                float *v = values + i;                                                           \
                _Pragma("omp simd reduction(max : largest)") for (i64 k = 0; k < count; k++) {   \
                    v[k] = s[k] * scale + c[k];                                                  \
                    largest = v[k] > largest ? v[k] : largest;                                   \
                }                                                                                \
            }                                                                                    \
            float total = 0.0f;                                                                  \
            _Pragma("omp simd reduction(+ : total)") for (i64 k = 0; k < size; k++) {            \
                const float e = exponential(values[k] - largest);                                \
                values[k] = values[k] == -INFINITY ? 0.0f : e;                                   \
                total += values[k];                                                              \
            }                                                                                    \
            const float share = 1.0f / total;                                                    \
            for (i64 k = 0; k < size; k++) values[k] *= share;                                   \
            store_##T(values, row, size);                                                        \
        }                                                                                        \
    }                                                                                            \
    /* gradient = scale * probability * (gradient - <gradient, probability>) */                  \
    void softmax_backward_##T(const T *probability, T *gradient, i64 num_rows, i64 size,         \
                              float scale) {                                                     \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                            \
            const T *p = probability + n * size;                                                 \
            T *row = gradient + n * size;                                                        \
            float p_block[BLOCK], g_block[BLOCK], out[BLOCK], along = 0.0f;                      \
            BLOCKS {                                                                             \
                const float *v = loaded_##T(p + i, p_block, count);                              \
                const float *g = loaded_##T(row + i, g_block, count);                            \
                _Pragma("omp simd reduction(+ : along)") for (i64 k = 0; k < count; k++)         \
                    along += v[k] * g[k];                                                        \
            }                                                                                    \
            BLOCKS {                                                                             \
                const float *v = loaded_##T(p + i, p_block, count);                              \
                const float *g = loaded_##T(row + i, g_block, count);                            \
                for (i64 k = 0; k < count; k++) out[k] = scale * v[k] * (g[k] - along);          \
                store_##T(out, row + i, count);                                                  \
            }                                                                                    \
        }                                                                                        \
    }                                                                                            \
    /* y = x cos + rotate_half(x) sin, or its backward. x and y (H, N, D), strides of heads and  \
     * tokens; cos and sin (N, D). D is even and at most 2 * BLOCK. */                           \
    void rotary_##T(const T *x, const T *cosine, const T *sine, T *y, i64 num_heads,             \
                    i64 num_rows, i64 size, i64 x_head, i64 x_row, i64 y_head, i64 y_row,        \
                    int backward) {                                                              \
        const i64 half = size / 2;                                                               \
        _Pragma("omp parallel for if (num_heads * num_rows * size > 32768)")                     \
        for (i64 n = 0; n < num_rows; n++) {                                                     \
            float c_block[2 * BLOCK], s_block[2 * BLOCK], x_block[2 * BLOCK], out[2 * BLOCK];    \
            const float *c = loaded_##T(cosine + n * size, c_block, size);                       \
            const float *s = loaded_##T(sine + n * size, s_block, size);                         \
            for (i64 h = 0; h < num_heads; h++) {                                                \
                const float *v = loaded_##T(x + h * x_head + n * x_row, x_block, size);          \
                const float *low = v, *high = v + half;                                          \
                if (backward)                                                                    \
                    for (i64 k = 0; k < half; k++) {                                             \
                        out[k] = low[k] * c[k] + high[k] * s[half + k];                          \
                        out[half + k] = high[k] * c[half + k] - low[k] * s[k];                   \
                    }                                                                            \
                else                                                                             \
                    for (i64 k = 0; k < half; k++) {                                             \
                        out[k] = low[k] * c[k] - high[k] * s[k];                                 \
                        out[half + k] = high[k] * c[half + k] + low[k] * s[half + k];            \
                    }                                                                            \
                store_##T(out, y + h * y_head + n * y_row, size);                                \
            }                                                                                    \
        }                                                                                        \
    }

ATTENTION(f32)
ATTENTION(bf16)
