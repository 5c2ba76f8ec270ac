/* The narrow products of a LoRA layer, with its dropout (lora_linear.py).
 *
 *     u = drop(x) A^T        y += scale * u B^T                                     forward
 *     d_u = scale * g B      dB = scale * g^T u      dA = d_u^T drop(x)             backward
 *     dx += drop(d_u A)
 *
 * Rows are done in tiles that stay in the cache: x and y, or g, x and dx, are read once. Sums over
 * rows are made of chunks of CHUNK_ROWS rows, whatever the number of threads is. Ranks are filled
 * up with zeros to a multiple of RANKS, features to a multiple of FEATURES.
 *
 * Products are of float32 values, or, on processors that have them, of pairs of bfloat16. A wide
 * weight is stored twice: by rank for sums over features, and, for pairs, with two ranks side by
 * side for sums over ranks.
 */

#include "values.h"

#define RANKS 8
#define FEATURES 32
#define CHUNK_ROWS 128
#define MOST_TILE_ROWS 32

static inline i64 padded(i64 size, i64 multiple) { return (size + multiple - 1) / multiple * multiple; }
static void *room(i64 num_bytes) { return aligned_alloc(64, (size_t)padded(num_bytes, 64)); }

/* Even, and so that a tile of a wide layer stays in the cache. */
static i64 tile_rows(i64 size) {
    const i64 rows = 65536 / size / 2 * 2;
    return rows < 4 ? 4 : least(rows, MOST_TILE_ROWS);
}

/* One number of the adapter: float32, or bfloat16 while answering. */
static inline float weight_at(const void *weights, i64 item_bytes, i64 place) {
    return item_bytes == 4 ? ((const float *)weights)[place]
                           : f32_of_bf16(((const bf16 *)weights)[place]);
}

/* Vectors of the widest registers. */
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float vf __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static inline float sum_of(vf v) {
    float total = 0.0f;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

/* sums[m * ranks + r] = <tile row m, weights row r>, for an even number of rows. */
static void narrow_f32(const f32 *tile, i64 num_rows, i64 width, const f32 *weights, i64 ranks,
                       float *sums) {
    for (i64 m = 0; m < num_rows; m += 2)
        for (i64 r = 0; r < ranks; r += 4) {
            const f32 *x0 = tile + m * width, *x1 = x0 + width, *w = weights + r * width;
            vf a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
            for (i64 i = 0; i < width; i += LANES) {
                const vf x = *(const vf *)(x0 + i), z = *(const vf *)(x1 + i);
                const vf w0 = *(const vf *)(w + i), w1 = *(const vf *)(w + width + i);
                const vf w2 = *(const vf *)(w + 2 * width + i);
                const vf w3 = *(const vf *)(w + 3 * width + i);
                a0 += x * w0, a1 += x * w1, a2 += x * w2, a3 += x * w3;
                b0 += z * w0, b1 += z * w1, b2 += z * w2, b3 += z * w3;
            }
            float *s = sums + m * ranks + r, *t = s + ranks;
            s[0] = sum_of(a0), s[1] = sum_of(a1), s[2] = sum_of(a2), s[3] = sum_of(a3);
            t[0] = sum_of(b0), t[1] = sum_of(b1), t[2] = sum_of(b2), t[3] = sum_of(b3);
        }
}

/* out (2, width) = u (2, ranks) weights. */
static void widen_f32(const f32 *u, const f32 *weights, i64 ranks, i64 width, float *out) {
    for (i64 i = 0; i < width; i += 2 * LANES) {
        vf a0 = {0}, a1 = {0}, b0 = {0}, b1 = {0};
        for (i64 r = 0; r < ranks; r++) {
            const vf w0 = *(const vf *)(weights + r * width + i);
            const vf w1 = *(const vf *)(weights + r * width + i + LANES);
            a0 += u[r] * w0, a1 += u[r] * w1;
            b0 += u[ranks + r] * w0, b1 += u[ranks + r] * w1;
        }
        *(vf *)(out + i) = a0, *(vf *)(out + i + LANES) = a1;
        *(vf *)(out + width + i) = b0, *(vf *)(out + width + i + LANES) = b1;
    }
}

/* total (ranks, width) += u^T tile. */
static void outer_f32(const f32 *tile, const f32 *u, i64 num_rows, i64 width, i64 ranks,
                      float *total) {
    for (i64 i = 0; i < width; i += 2 * LANES)
        for (i64 r = 0; r < ranks; r += 4) {
            float *t = total + r * width + i;
            vf s[4][2];
            for (int k = 0; k < 4; k++)
                s[k][0] = *(vf *)(t + k * width), s[k][1] = *(vf *)(t + k * width + LANES);
            for (i64 m = 0; m < num_rows; m++) {
                const vf x0 = *(const vf *)(tile + m * width + i);
                const vf x1 = *(const vf *)(tile + m * width + i + LANES);
                for (int k = 0; k < 4; k++) {
                    const float scalar = u[m * ranks + r + k];
                    s[k][0] += scalar * x0, s[k][1] += scalar * x1;
                }
            }
            for (int k = 0; k < 4; k++)
                *(vf *)(t + k * width) = s[k][0], *(vf *)(t + k * width + LANES) = s[k][1];
        }
}

static inline f32 *paired_f32(f32 *by_rank, i64 ranks, i64 width) {
    (void)ranks, (void)width;
    return by_rank;
}
static inline i64 place_f32(i64 i) { return i; }

#if HAS_BF16_PRODUCTS

static void narrow_bf16(const bf16 *tile, i64 num_rows, i64 width, const bf16 *weights, i64 ranks,
                        float *sums) {
    for (i64 m = 0; m < num_rows; m += 2)
        for (i64 r = 0; r < ranks; r += RANKS) {
            const bf16 *x0 = tile + m * width, *x1 = x0 + width, *w = weights + r * width;
            __m512 s[2][RANKS];
            for (int k = 0; k < RANKS; k++) s[0][k] = s[1][k] = _mm512_setzero_ps();
            for (i64 i = 0; i < width; i += 32) {
                const __m512bh x = (__m512bh)_mm512_loadu_si512(x0 + i);
                const __m512bh z = (__m512bh)_mm512_loadu_si512(x1 + i);
#pragma GCC unroll 8
                for (int k = 0; k < RANKS; k++) {
                    const __m512bh v = (__m512bh)_mm512_loadu_si512(w + k * width + i);
                    s[0][k] = _mm512_dpbf16_ps(s[0][k], x, v);
                    s[1][k] = _mm512_dpbf16_ps(s[1][k], z, v);
                }
            }
            for (int k = 0; k < RANKS; k++) {
                sums[m * ranks + r + k] = _mm512_reduce_add_ps(s[0][k]);
                sums[(m + 1) * ranks + r + k] = _mm512_reduce_add_ps(s[1][k]);
            }
        }
}

/* Two numbers side by side, in every pair of lanes. */
static inline __m512bh pair(const bf16 *low, const bf16 *high) {
    return (__m512bh)_mm512_set1_epi32((int32_t)((uint32_t)*low | (uint32_t)*high << 16));
}

/* weights: pairs of ranks side by side, (ranks / 2, width, 2). */
static void widen_bf16(const bf16 *u, const bf16 *weights, i64 ranks, i64 width, float *out) {
    for (i64 first = 0; first < ranks; first += RANKS) {
        __m512bh a[RANKS / 2], b[RANKS / 2];
        for (int k = 0; k < RANKS / 2; k++) {
            const bf16 *low = u + first + 2 * k;
            a[k] = pair(low, low + 1), b[k] = pair(low + ranks, low + ranks + 1);
        }
        for (i64 i = 0; i < width; i += 16) {
            __m512 s = first ? _mm512_loadu_ps(out + i) : _mm512_setzero_ps();
            __m512 t = first ? _mm512_loadu_ps(out + width + i) : _mm512_setzero_ps();
#pragma GCC unroll 4
            for (int k = 0; k < RANKS / 2; k++) {
                const bf16 *w = weights + ((first / 2 + k) * width + i) * 2;
                const __m512bh v = (__m512bh)_mm512_loadu_si512(w);
                s = _mm512_dpbf16_ps(s, a[k], v), t = _mm512_dpbf16_ps(t, b[k], v);
            }
            _mm512_storeu_ps(out + i, s), _mm512_storeu_ps(out + width + i, t);
        }
    }
}

/* Columns of total stand as place_bf16 says. */
static void outer_bf16(const bf16 *tile, const bf16 *u, i64 num_rows, i64 width, i64 ranks,
                       float *total) {
    __m512bh pairs[MOST_TILE_ROWS / 2][RANKS];
    for (i64 r = 0; r < ranks; r += RANKS) {
        for (i64 m = 0; m < num_rows; m += 2)
            for (int k = 0; k < RANKS; k++) {
                const bf16 *low = u + m * ranks + r + k;
                pairs[m / 2][k] = pair(low, low + ranks);
            }
        for (i64 i = 0; i < width; i += 32) {
            float *t = total + r * width + i;
            __m512 s[RANKS][2];
#pragma GCC unroll 8
            for (int k = 0; k < RANKS; k++) {
                s[k][0] = _mm512_loadu_ps(t + k * width);
                s[k][1] = _mm512_loadu_ps(t + k * width + 16);
            }
            for (i64 m = 0; m < num_rows; m += 2) {
                const __m512i x = _mm512_loadu_si512(tile + m * width + i);
                const __m512i z = _mm512_loadu_si512(tile + (m + 1) * width + i);
                const __m512bh low = (__m512bh)_mm512_unpacklo_epi16(x, z);
                const __m512bh high = (__m512bh)_mm512_unpackhi_epi16(x, z);
#pragma GCC unroll 8
                for (int k = 0; k < RANKS; k++) {
                    s[k][0] = _mm512_dpbf16_ps(s[k][0], pairs[m / 2][k], low);
                    s[k][1] = _mm512_dpbf16_ps(s[k][1], pairs[m / 2][k], high);
                }
            }
#pragma GCC unroll 8
            for (int k = 0; k < RANKS; k++) {
                _mm512_storeu_ps(t + k * width, s[k][0]);
                _mm512_storeu_ps(t + k * width + 16, s[k][1]);
            }
        }
    }
}

static bf16 *paired_bf16(bf16 *by_rank, i64 ranks, i64 width) {
    bf16 *pairs = room(ranks * width * 2);
    for (i64 r = 0; r < ranks; r++)
        for (i64 i = 0; i < width; i++)
            pairs[((r / 2) * width + i) * 2 + r % 2] = by_rank[r * width + i];
    return pairs;
}
/* Where outer_bf16 leaves feature i: unpacking works within eighths. */
static inline i64 place_bf16(i64 i) {
    return i / 32 * 32 + (i % 8) / 4 * 16 + (i % 32) / 8 * 4 + i % 4;
}

#endif

/* row += scale * added */
static inline void add_row_f32(f32 *row, const float *added, float scale, i64 size) {
    for (i64 i = 0; i < size; i++) row[i] += scale * added[i];
}
static inline void add_row_bf16(bf16 *row, const float *added, float scale, i64 size) {
    float block[BLOCK];
    BLOCKS {
        loaded_bf16(row + i, block, count);
        for (i64 k = 0; k < count; k++) block[k] += scale * added[i + k];
        store_bf16(block, row + i, count);
    }
}

/* T: of the activations; V: of the products. */
#define LORA(T, V)                                                                               \
    /* Rows [n, n + count) of x, with zeros behind, and with every token's hits zeroed. */       \
    static void load_tile_##T(const T *x, i64 n, i64 count, i64 size, i64 width,                 \
                              const Dropout *dropout, V *tile, uint32_t *hits,                   \
                              i64 hits_room, i64 *num_hits) {                                    \
        for (i64 m = 0; m < count + count % 2; m++) {                                            \
            V *row = tile + m * width;                                                           \
            if (m == count) {                                                                    \
                memset(row, 0, (size_t)width * sizeof(V));                                       \
                break;                                                                           \
            }                                                                                    \
            const T *from = x + (n + m) * size;                                                  \
            if (sizeof(T) == sizeof(V)) memcpy(row, from, (size_t)size * sizeof(T));             \
            else for (i64 i = 0; i < size; i++) row[i] = f32_to_##V(f32_of_##T(from[i]));        \
            for (i64 i = size; i < width; i++) row[i] = 0;                                       \
            if (dropout == NULL || dropout->keys == NULL) continue;                              \
            uint32_t *places = hits + m * hits_room;                                             \
            num_hits[m] = draw_hits(dropout, n + m, size, places);                               \
            for (i64 hit = 0; hit < num_hits[m]; hit++) row[places[hit]] = 0;                    \
        }                                                                                        \
    }                                                                                            \
    /* (rank, size) numbers at weights[r * by_rank + i * by_feature], filled up with zeros. */   \
    static V *by_rank_##T(const void *weights, i64 item_bytes, i64 by_rank, i64 by_feature,      \
                          i64 rank, i64 size, i64 ranks, i64 width) {                            \
        V *packed = room(ranks * width * (i64)sizeof(V));                                        \
        memset(packed, 0, (size_t)(ranks * width) * sizeof(V));                                  \
        for (i64 r = 0; r < rank; r++)                                                           \
            for (i64 i = 0; i < size; i++) {                                                     \
                const i64 place = r * by_rank + i * by_feature;                                  \
                packed[r * width + i] =                                                          \
                    f32_to_##V(rounded_##T(weight_at(weights, item_bytes, place)));              \
            }                                                                                    \
        return packed;                                                                           \
    }                                                                                            \
    /* a (R, I), b (O, R); y (N, O) is added to; u (N, ranks) is written. */                     \
    void lora_forward_##T(const T *x, const void *a, const void *b, T *y, T *u, i64 num_rows,    \
                          i64 in_size, i64 out_size, i64 rank, i64 item_bytes, float scale,      \
                          Dropout dropout) {                                                     \
        const i64 ranks = padded(rank, RANKS), in_width = padded(in_size, FEATURES);             \
        const i64 out_width = padded(out_size, FEATURES), rows = tile_rows(in_width);            \
        const i64 num_tiles = (num_rows + rows - 1) / rows;                                      \
        const i64 hits_room = dropout.distribution_size + 2;                                     \
        V *a_packed = by_rank_##T(a, item_bytes, in_size, 1, rank, in_size, ranks, in_width);    \
        V *b_packed = by_rank_##T(b, item_bytes, 1, rank, rank, out_size, ranks, out_width);     \
        V *b_pairs = paired_##V(b_packed, ranks, out_width);                                     \
        _Pragma("omp parallel if (num_rows * (in_size + out_size) > 32768)") {                   \
            V *tile = room(rows * in_width * (i64)sizeof(V));                                    \
            uint32_t *hits = room(rows * hits_room * 4);                                         \
            float *wide = room(2 * out_width * 4), sums[MOST_TILE_ROWS * ranks];                 \
            V narrow[MOST_TILE_ROWS * ranks];                                                    \
            i64 num_hits[MOST_TILE_ROWS];                                                        \
            _Pragma("omp for schedule(static)") for (i64 t = 0; t < num_tiles; t++) {            \
                const i64 n = t * rows, count = least(rows, num_rows - n);                       \
                load_tile_##T(x, n, count, in_size, in_width, &dropout, tile, hits, hits_room,   \
                              num_hits);                                                         \
                narrow_##V(tile, count + count % 2, in_width, a_packed, ranks, sums);            \
                for (i64 k = 0; k < count * ranks; k++) u[n * ranks + k] = f32_to_##T(sums[k]);  \
                for (i64 k = 0; k < (count + count % 2) * ranks; k++)                            \
                    narrow[k] = f32_to_##V(rounded_##T(sums[k]));                                \
                for (i64 m = 0; m < count; m += 2) {                                             \
                    widen_##V(narrow + m * ranks, b_pairs, ranks, out_width, wide);              \
                    for (i64 k = 0; k < 2 && m + k < count; k++)                                 \
                        add_row_##T(y + (n + m + k) * out_size, wide + k * out_width, scale,     \
                                    out_size);                                                   \
                }                                                                                \
            }                                                                                    \
            free(tile), free(hits), free(wide);                                                  \
        }                                                                                        \
        if ((void *)b_pairs != (void *)b_packed) free(b_pairs);                                  \
        free(a_packed), free(b_packed);                                                          \
    }                                                                                            \
    /* One chunk's rows: its parts of dA and dB are added to the totals; dx is added to. */      \
    static void backward_chunk_##T(const T *g, const T *x, const T *u, const V *b_packed,        \
                                   const V *a_pairs, T *d_x, i64 first, i64 stop, i64 in_size,   \
                                   i64 out_size, i64 ranks, float scale, const Dropout *dropout, \
                                   float *total_a, float *total_b) {                             \
        const i64 in_width = padded(in_size, FEATURES), out_width = padded(out_size, FEATURES);  \
        const i64 widest = in_width > out_width ? in_width : out_width;                          \
        const i64 rows = tile_rows(widest), hits_room = dropout->distribution_size + 2;          \
        V *tile = room(rows * widest * (i64)sizeof(V));                                          \
        uint32_t *hits = room(rows * hits_room * 4);                                             \
        float *wide = room(2 * in_width * 4), sums[MOST_TILE_ROWS * ranks];                      \
        V narrow[MOST_TILE_ROWS * ranks];                                                        \
        i64 num_hits[MOST_TILE_ROWS];                                                            \
        for (i64 n = first; n < stop; n += rows) {                                               \
            const i64 count = least(rows, stop - n), even = count + count % 2;                   \
            load_tile_##T(g, n, count, out_size, out_width, NULL, tile, NULL, 0, NULL);          \
            memset(narrow, 0, sizeof(narrow));                                                   \
            for (i64 k = 0; k < count * ranks; k++)                                              \
                narrow[k] = f32_to_##V(f32_of_##T(u[n * ranks + k]));                            \
            outer_##V(tile, narrow, even, out_width, ranks, total_b);                            \
            narrow_##V(tile, even, out_width, b_packed, ranks, sums);                            \
            for (i64 k = 0; k < even * ranks; k++)                                               \
                narrow[k] = f32_to_##V(rounded_##T(scale * sums[k]));                            \
            load_tile_##T(x, n, count, in_size, in_width, dropout, tile, hits, hits_room,        \
                          num_hits);                                                             \
            outer_##V(tile, narrow, even, in_width, ranks, total_a);                             \
            for (i64 m = 0; d_x != NULL && m < count; m += 2) {                                  \
                widen_##V(narrow + m * ranks, a_pairs, ranks, in_width, wide);                   \
                for (i64 k = 0; k < 2 && m + k < count; k++) {                                   \
                    float *row = wide + k * in_width;                                            \
                    const i64 num = dropout->keys ? num_hits[m + k] : 0;                         \
                    for (i64 hit = 0; hit < num; hit++) row[hits[(m + k) * hits_room + hit]] = 0;\
                    add_row_##T(d_x + (n + m + k) * in_size, row, 1.0f, in_size);                \
                }                                                                                \
            }                                                                                    \
        }                                                                                        \
        free(tile), free(hits), free(wide);                                                      \
    }                                                                                            \
    /* g (N, O), x (N, I), u (N, ranks); d_x (N, I), which is added to, or NULL; d_a (R, I) and  \
     * d_b (O, R), float32, are written. */                                                      \
    void lora_backward_##T(const T *g, const T *x, const T *u, const void *a, const void *b,     \
                           T *d_x, float *d_a, float *d_b, i64 num_rows, i64 in_size,            \
                           i64 out_size, i64 rank, i64 item_bytes, float scale,                  \
                           Dropout dropout) {                                                    \
        const i64 ranks = padded(rank, RANKS), in_width = padded(in_size, FEATURES);             \
        const i64 out_width = padded(out_size, FEATURES);                                        \
        const i64 num_chunks = (num_rows + CHUNK_ROWS - 1) / CHUNK_ROWS;                         \
        V *a_packed = by_rank_##T(a, item_bytes, in_size, 1, rank, in_size, ranks, in_width);    \
        V *b_packed = by_rank_##T(b, item_bytes, 1, rank, rank, out_size, ranks, out_width);     \
        V *a_pairs = paired_##V(a_packed, ranks, in_width);                                      \
        const i64 of_chunk = ranks * (in_width + out_width);                                     \
        float *totals = room(num_chunks * of_chunk * 4);                                         \
        memset(totals, 0, (size_t)(num_chunks * of_chunk) * 4);                                  \
        _Pragma("omp parallel for schedule(static) if (num_chunks > 1)")                         \
        for (i64 c = 0; c < num_chunks; c++) {                                                   \
            float *total = totals + c * of_chunk;                                                \
            backward_chunk_##T(g, x, u, b_packed, a_pairs, d_x, c * CHUNK_ROWS,                  \
                               least((c + 1) * CHUNK_ROWS, num_rows), in_size, out_size, ranks,  \
                               scale, &dropout, total, total + ranks * in_width);                \
        }                                                                                        \
        for (i64 c = 1; c < num_chunks; c++)                                                     \
            for (i64 k = 0; k < of_chunk; k++) totals[k] += totals[c * of_chunk + k];            \
        for (i64 r = 0; r < rank; r++) {                                                         \
            const float *of_a = totals + r * in_width;                                           \
            const float *of_b = totals + ranks * in_width + r * out_width;                       \
            for (i64 i = 0; i < in_size; i++) d_a[r * in_size + i] = of_a[place_##V(i)];         \
            for (i64 i = 0; i < out_size; i++) d_b[i * rank + r] = scale * of_b[place_##V(i)];   \
        }                                                                                        \
        if ((void *)a_pairs != (void *)a_packed) free(a_pairs);                                  \
        free(a_packed), free(b_packed), free(totals);                                            \
    }

LORA(f32, f32)
#if HAS_BF16_PRODUCTS
LORA(bf16, bf16)
#else
LORA(bf16, f32)
#endif
