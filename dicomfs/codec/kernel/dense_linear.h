/* Weighted normal equations of a segment's taps, window sums of them, and their solution.
 *
 * A matrix holds the upper triangle in rows of whole groups of eight: row i has the groups from i / 8 on.  Its last
 * column is the right side.  All floating point here is binary32 in a fixed order; sums over samples are integers.
 */
#ifndef DICOMFS_DENSE_LINEAR_H
#define DICOMFS_DENSE_LINEAR_H

#include <string.h>

#include "dense_coder.h"
#include "dense_format.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

/* Vectors never cross a call, everything being inlined. */
#pragma GCC diagnostic ignored "-Wpsabi"
/* Products and sums are rounded one by one.  GCC knows no pragma for it: its -ffp-contract=off does. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#define DENSE_SEGMENT 16

typedef float dense_f8 __attribute__((vector_size(32), may_alias));
typedef int32_t dense_i8 __attribute__((vector_size(32), may_alias));
typedef int16_t dense_h8 __attribute__((vector_size(16), may_alias));
typedef uint32_t dense_u8 __attribute__((vector_size(32), may_alias));
typedef float dense_f4 __attribute__((vector_size(16), may_alias));
typedef int32_t dense_i4 __attribute__((vector_size(16), may_alias));
typedef uint16_t dense_u16x8 __attribute__((vector_size(16), may_alias, aligned(2)));

/* Groups before row i, and groups of a whole matrix. */
#define DENSE_ROW_AT(blocks, i) ((i) * (blocks) - 4 * ((i) >> 3) * (((i) >> 3) - 1) - ((i) & 7) * ((i) >> 3))
#define DENSE_GROUPS(blocks) (4 * (blocks) * ((blocks) + 1))
#define DENSE_MOST_GROUPS DENSE_GROUPS(6)

/* Taps of the last solution of level 1. */
#define DENSE_NARROW_TAPS 16

#define DENSE_RIDGE_FACTOR 1.0005f
#define DENSE_RIDGE 300.0f
#define DENSE_LEAST_PIVOT 1.0f

DENSE_INLINE dense_f8 dense_splat(float value) {
    return (dense_f8){value, value, value, value, value, value, value, value};
}

/* Raises `most` to `value` where that is larger (neither is NaN); and the same of four numbers, of which `most`
 * becomes `value` where it is none.
 * Pointers keep vectors out of signatures, whose meaning depends on the instruction set. */
#if defined(DENSE_USE_AVX2) || defined(__AVX2__)
DENSE_INLINE void dense_raise(dense_f8 *most, const dense_f8 *value) {
    *most = (dense_f8)_mm256_max_ps((__m256)*most, (__m256)*value);
}
#else
DENSE_INLINE void dense_raise(dense_f8 *most, const dense_f8 *value) {
    const dense_i8 higher = *value > *most;
    *most = (dense_f8)(((dense_i8)*value & higher) | ((dense_i8)*most & ~higher));
}
#endif

#if defined(__SSE2__)
DENSE_INLINE void dense_raise_four(dense_f4 *most, const dense_f4 *value) {
    *most = (dense_f4)_mm_max_ps((__m128)*most, (__m128)*value);
}
#else
DENSE_INLINE void dense_raise_four(dense_f4 *most, const dense_f4 *value) {
    const dense_i4 kept = *most > *value;
    *most = (dense_f4)(((dense_i4)*most & kept) | ((dense_i4)*value & ~kept));
}
#endif

/* sum + weight * matrix, element by element. */
DENSE_INLINE void dense_add_matrix(dense_f8 *sum, const dense_f8 *matrix, float weight, const int blocks) {
    const dense_f8 factor = dense_splat(weight);
    for (int i = 0; i < DENSE_GROUPS(blocks); i++)
        sum[i] = sum[i] + factor * matrix[i];
}

/* Two numbers of 16 bits as one. */
DENSE_INLINE int32_t dense_pair(const int16_t *numbers) {
    int32_t pair;
    memcpy(&pair, numbers, sizeof pair);
    return pair;
}

/* Sums of products: each pair of eight with the one pair that all of them are multiplied by.  Left to itself, GCC for
 * x86 takes sums of many terms apart into trees, for which there are not enough registers. */
#define DENSE_KEEP_ORDER(sum) __asm__("" : "+x"(sum))
#if defined(__AVX2__) || defined(DENSE_USE_AVX2)
typedef __m256i dense_products;
DENSE_INLINE dense_products dense_no_products(void) { return _mm256_setzero_si256(); }
DENSE_INLINE dense_products dense_add_products(dense_products sum, const int16_t *pair, const int16_t *pairs) {
    const __m256i terms = _mm256_load_si256((const __m256i *)(const void *)pairs);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_set1_epi32(dense_pair(pair)), terms));
    DENSE_KEEP_ORDER(sum);
    return sum;
}
DENSE_INLINE dense_f8 dense_float_products(dense_products sum) { return (dense_f8)_mm256_cvtepi32_ps(sum); }
#elif defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
typedef struct {
    __m128i low, high;
} dense_products;
DENSE_INLINE dense_products dense_no_products(void) {
    return (dense_products){_mm_setzero_si128(), _mm_setzero_si128()};
}
DENSE_INLINE dense_products dense_add_products(dense_products sum, const int16_t *pair, const int16_t *pairs) {
    const __m128i *both = (const __m128i *)(const void *)pairs;
    const __m128i factor = _mm_set1_epi32(dense_pair(pair));
    sum.low = _mm_add_epi32(sum.low, _mm_madd_epi16(factor, _mm_load_si128(both)));
    sum.high = _mm_add_epi32(sum.high, _mm_madd_epi16(factor, _mm_load_si128(both + 1)));
    DENSE_KEEP_ORDER(sum.low);
    DENSE_KEEP_ORDER(sum.high);
    return sum;
}
DENSE_INLINE dense_f8 dense_float_products(dense_products sum) {
    dense_f8 out;
    _mm_store_ps((float *)&out, _mm_cvtepi32_ps(sum.low));
    _mm_store_ps((float *)&out + 4, _mm_cvtepi32_ps(sum.high));
    return out;
}
#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(DENSE_NO_INTRINSICS)
typedef struct {
    int32x4_t low, high;
} dense_products;
DENSE_INLINE dense_products dense_no_products(void) { return (dense_products){vdupq_n_s32(0), vdupq_n_s32(0)}; }
DENSE_INLINE int32x4_t dense_madd(int16x8_t a, int16x8_t b) {
    return vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
}
DENSE_INLINE dense_products dense_add_products(dense_products sum, const int16_t *pair, const int16_t *pairs) {
    const int16x8_t factor = vreinterpretq_s16_s32(vdupq_n_s32(dense_pair(pair)));
    return (dense_products){vaddq_s32(sum.low, dense_madd(factor, vld1q_s16(pairs))),
                            vaddq_s32(sum.high, dense_madd(factor, vld1q_s16(pairs + 8)))};
}
DENSE_INLINE dense_f8 dense_float_products(dense_products sum) {
    dense_f8 out;
    vst1q_f32((float *)&out, vcvtq_f32_s32(sum.low));
    vst1q_f32((float *)&out + 4, vcvtq_f32_s32(sum.high));
    return out;
}
#else
typedef dense_i8 dense_products;
DENSE_INLINE dense_products dense_no_products(void) { return (dense_i8){0}; }
DENSE_INLINE dense_products dense_add_products(dense_products sum, const int16_t *pair, const int16_t *pairs) {
    for (int i = 0; i < 8; i++)
        sum[i] += pair[0] * pairs[2 * i] + pair[1] * pairs[2 * i + 1];
    return sum;
}
DENSE_INLINE dense_f8 dense_float_products(dense_products sum) { return __builtin_convertvector(sum, dense_f8); }
#endif

/* Adds the products of the terms of group `group` with those from the group on. */
DENSE_INLINE void dense_add_group(dense_f8 *matrix, const int16_t (*pairs)[2 * DENSE_MOST_TERMS], const int pair_count,
                                  const int group, const int blocks) {
    const int width = blocks - group;
    for (int i = group * 8; i < group * 8 + 8; i += 2) {
        dense_products sum[2][6];
        for (int j = 0; j < width; j++)
            sum[0][j] = sum[1][j] = dense_no_products();
#pragma GCC unroll 8
        for (int p = 0; p < pair_count; p++) {
            for (int j = 0; j < width; j++) {
                const int16_t *terms = &pairs[p][16 * (group + j)];
                sum[0][j] = dense_add_products(sum[0][j], &pairs[p][2 * i], terms);
                sum[1][j] = dense_add_products(sum[1][j], &pairs[p][2 * i + 2], terms);
            }
        }
        dense_f8 *row = matrix + DENSE_ROW_AT(blocks, i), *next = row + width;
        for (int j = 0; j < width; j++) {
            row[j] = row[j] + dense_float_products(sum[0][j]);
            next[j] = next[j] + dense_float_products(sum[1][j]);
        }
    }
}

/* Adds the products of all terms of a segment to matrix.  pairs[p][2 * t + i] is term t of sample 2 * p + i. */
DENSE_INLINE void dense_add_segment(dense_f8 *matrix, const int16_t (*pairs)[2 * DENSE_MOST_TERMS],
                                    const int pair_count, const int blocks) {
    dense_add_group(matrix, pairs, pair_count, 0, blocks);
    dense_add_group(matrix, pairs, pair_count, 1, blocks);
    dense_add_group(matrix, pairs, pair_count, 2, blocks);
    if (blocks > 3) {
        dense_add_group(matrix, pairs, pair_count, 3, blocks);
        dense_add_group(matrix, pairs, pair_count, 4, blocks);
        dense_add_group(matrix, pairs, pair_count, 5, blocks);
    }
}

/* What elimination leaves, group by group of eight columns: row k holds those from its own group on. */
typedef struct {
    dense_f8 row[DENSE_MOST_TERMS / 8][DENSE_MOST_TERMS];
    dense_f8 scaled[DENSE_MOST_TERMS / 8][DENSE_MOST_TERMS]; /* rows divided by their pivots */
    float lower[DENSE_MOST_TERMS][DENSE_MOST_TERMS] __attribute__((aligned(32))); /* these turned */
} dense_elimination;

/* All numbers like the one at `place`. */
DENSE_INLINE void dense_spread(dense_f4 *out, const dense_f4 *from, const int place) {
#if defined(__clang__)
    const float value = (*from)[place];
    *out = (dense_f4){value, value, value, value};
#else
    *out = __builtin_shuffle(*from, (dense_i4){place, place, place, place});
#endif
}

/* Finishes the `count` rows of a group as far as its own columns go.  Everything waits for this, and half a vector of
 * eight finds its own numbers sooner than those of the other half. */
DENSE_INLINE void dense_eliminate_own(dense_elimination *work, const dense_f8 *rows, dense_f8 *inverses,
                                      const int count, const int group) {
    const dense_f4 least = {DENSE_LEAST_PIVOT, DENSE_LEAST_PIVOT, DENSE_LEAST_PIVOT, DENSE_LEAST_PIVOT};
    dense_f4 half[8][2];
    memcpy(half, rows, sizeof half);
#pragma GCC unroll 8
    for (int k = 0; k < count; k++) {
        dense_f4 pivot, factor, scaled[2];
        dense_spread(&pivot, &half[k][k >> 2], k & 3);
        pivot = pivot * DENSE_RIDGE_FACTOR + DENSE_RIDGE;
        dense_raise_four(&pivot, &least);
        const dense_f4 inverse = 1.0f / pivot;
        inverses[k] = dense_splat(inverse[0]);
#pragma GCC unroll 2
        for (int h = k >> 2; h < 2; h++)
            scaled[h] = half[k][h] * inverse;
        ((dense_f4 *)&work->scaled[group][8 * group + k])[1] = scaled[1];
#pragma GCC unroll 8
        for (int i = k + 1; i < count; i++) {
            dense_spread(&factor, &scaled[i >> 2], i & 3);
            work->lower[8 * group + i][8 * group + k] = factor[0];
#pragma GCC unroll 2
            for (int h = i >> 2; h < 2; h++)
                half[i][h] = half[i][h] - factor * half[k][h];
        }
    }
}

/* Solves for rows `from` to `from` + 7 of a matrix in columns of group `column`. */
DENSE_INLINE void dense_eliminate_block(const dense_f8 *matrix, dense_elimination *work, dense_f8 *inverses,
                                        const int count, const int group, const int column, const int blocks) {
    const int from = 8 * group;
    dense_f8 rows[8];
    for (int i = 0; i < count; i++)
        rows[i] = matrix[DENSE_ROW_AT(blocks, from + i) + column - group];
    for (int k = 0; k < from; k++) {
        const dense_f8 row = work->row[column][k];
        const float *factors = (const float *)&work->scaled[group][k];
        for (int i = 0; i < count; i++) {
            if (column == group)
                work->lower[from + i][k] = factors[i];
            rows[i] = rows[i] - dense_splat(factors[i]) * row;
        }
    }
    if (column == group) {
        dense_eliminate_own(work, rows, inverses, count, group);
        return;
    }
#pragma GCC unroll 8
    for (int k = 0; k < count; k++) {
        work->row[column][from + k] = rows[k];
        work->scaled[column][from + k] = rows[k] * inverses[k];
#pragma GCC unroll 8
        for (int i = k + 1; i < count; i++)
            rows[i] = rows[i] - dense_splat(work->lower[from + i][from + k]) * rows[k];
    }
}

/* The same in all columns that are needed later. */
DENSE_INLINE void dense_eliminate_group(const dense_f8 *matrix, dense_elimination *work, const int taps,
                                        const int group, const int blocks) {
    const int left = taps - 8 * group, count = left < 8 ? left : 8;
    dense_f8 inverses[8] = {{0}};
    for (int column = group; column < blocks; column++)
        if (8 * column < taps || column == blocks - 1)
            dense_eliminate_block(matrix, work, inverses, count, group, column, blocks);
}

/* Solves for the weights of the first `taps` terms by elimination without pivoting.  Those of other terms become 0. */
DENSE_INLINE void dense_solve(const dense_f8 *matrix, float *weights, const int taps, const int blocks) {
    dense_elimination work;
    dense_f4 right[DENSE_MOST_TERMS / 4];
    for (int j = 0; j < taps; j++)
        *(dense_f8 *)&work.lower[j][j & ~7] = dense_splat(0.0f);
    dense_eliminate_group(matrix, &work, taps, 0, blocks);
    dense_eliminate_group(matrix, &work, taps, 1, blocks);
    if (taps > 16)
        dense_eliminate_group(matrix, &work, taps, 2, blocks);
    if (taps > 24) {
        dense_eliminate_group(matrix, &work, taps, 3, blocks);
        dense_eliminate_group(matrix, &work, taps, 4, blocks);
        dense_eliminate_group(matrix, &work, taps, 5, blocks);
    }
    for (int j = 0; j < 8 * blocks; j++)
        weights[j] = j < taps ? ((const float *)&work.scaled[blocks - 1][j])[7] : 0.0f;
    for (int k = 0; 4 * k < taps; k++)
        right[k] = *(const dense_f4 *)&weights[4 * k];
    for (int from = (taps - 1) / 4; from >= 0; from--) {
#pragma GCC unroll 4
        for (int place = 3; place >= 0; place--) {
            const int j = 4 * from + place;
            dense_f4 weight;
            if (j >= taps)
                continue;
            dense_spread(&weight, &right[from], place);
            weights[j] = weight[0];
            const dense_f4 *lower = (const dense_f4 *)work.lower[j];
            for (int k = 0; k <= from; k++)
                right[k] = right[k] - lower[k] * weight;
        }
    }
}

#endif
