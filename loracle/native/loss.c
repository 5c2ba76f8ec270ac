/* Cross entropy of rows of logits, with their gradient written over them (model/losses.py). */

#include "values.h"

#define LOSS(T)                                                                                  \
    /* losses = weight * -log softmax(logits)[token]; logits = weight * (softmax - one-hot). */  \
    void cross_entropy_##T(T *logits, const i64 *token_ids, const float *weights, float *losses, \
                           i64 num_rows, i64 size) {                                             \
        PARALLEL for (i64 n = 0; n < num_rows; n++) {                                            \
            T *row = logits + n * size;                                                          \
            float block[BLOCK], out[BLOCK], largest = -INFINITY, total = 0.0f;                   \
            BLOCKS {                                                                             \
                const float *v = loaded_##T(row + i, block, count);                              \
                _Pragma("omp simd reduction(max : largest)") for (i64 k = 0; k < count; k++)     \
                    largest = v[k] > largest ? v[k] : largest;                                   \
            }                                                                                    \
            BLOCKS {                                                                             \
                const float *v = loaded_##T(row + i, block, count);                              \
                float part = 0.0f;                                                               \
                _Pragma("omp simd reduction(+ : part)") for (i64 k = 0; k < count; k++)          \
                    part += exponential(v[k] - largest);                                         \
                total += part;                                                                   \
            }                                                                                    \
            const float at_token = f32_of_##T(row[token_ids[n]]);                                \
            losses[n] = weights[n] * (logf(total) + largest - at_token);                         \
            const float scale = weights[n] / total;                                              \
            BLOCKS {                                                                             \
                const float *v = loaded_##T(row + i, block, count);                              \
                for (i64 k = 0; k < count; k++) out[k] = scale * exponential(v[k] - largest);    \
                store_##T(out, row + i, count);                                                  \
            }                                                                                    \
            const float probability = exponential(at_token - largest) / total;                   \
            row[token_ids[n]] = f32_to_##T(weights[n] * (probability - 1.0f));                   \
        }                                                                                        \
    }

LOSS(f32)
LOSS(bf16)
