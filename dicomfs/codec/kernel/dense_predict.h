/* Prediction: terms of a segment, weights by local least squares, and the cells that they are learnt from. */
#ifndef DICOMFS_DENSE_PREDICT_H
#define DICOMFS_DENSE_PREDICT_H

#include "dense_model.h"

/* The taps in the row being coded come first in every list: their values are not known before. */
#define TAP_W 0
#define TAP_WW 1
#define TAP_WWW 2
#define ROW_TAPS 3

/* A sample counts in the normal equations by the square of WEIGHT_SCALE / (mean error + WEIGHT_FLOOR), but by less
 * where a term would leave 14 bits. */
#define WEIGHT_SCALE 32.0f
#define WEIGHT_FLOOR 0.5f
#define LARGEST_TERM 8191.0f

/* What the windows of the solutions weigh finished cells with: N, NW and NE, then of the frame before the same place,
 * S of it, and E, W, SE, SW of it.  Of the row of cells being coded all of them take the cell itself, W and E, the
 * second one WW and EE too; only the third one weighs them, and does without E. */
typedef struct {
    float north, north_west, north_east, before, before_south, before_sides;
} dense_window;

#define NARROW_OWN 2.0f
#define NARROW_WEST 0.5f

static const dense_window dense_windows[DENSE_SOLUTIONS] = {
    {1.0f, 0.7f, 0.7f, 0.8f, 0.5f, 0.0f},
    {1.0f, 0.9f, 0.9f, 0.8f, 0.6f, 0.5f},
    {0.6f, 0.0f, 0.3f, 0.4f, 0.0f, 0.0f},
};

DENSE_INLINE dense_i8 dense_load_whole(const uint16_t *samples) {
#if defined(DENSE_USE_AVX2) || defined(__AVX2__)
    return (dense_i8)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)samples));
#else
    return __builtin_convertvector(*(const dense_u16x8 *)samples, dense_i8);
#endif
}

DENSE_INLINE dense_f8 dense_load_samples(const uint16_t *samples) {
    return __builtin_convertvector(dense_load_whole(samples), dense_f8);
}

/* Finds where the taps of the samples of row y lie; those of references that are not there stay null. */
DENSE_INLINE void dense_find_taps(dense_model *model, int64_t y, const int level) {
    const dense_tap *list = dense_taps[level][model->header.list];
    for (int i = 0; i < 8 * DENSE_BLOCKS(level) - 1; i++) {
        const uint16_t *plane = list[i].plane ? model->reference[list[i].plane - 1] : model->row0;
        model->tap[i] = plane ? plane + (y + list[i].row) * (int64_t)model->stride + list[i].column : NULL;
    }
}

/* Eight samples' terms of the taps that lie in finished rows, and what these add to the predictions. */
DENSE_INLINE void dense_prepare_terms(dense_model *model, int64_t y, int64_t x, int place, const float *weights,
                                      const int level) {
    dense_segment *segment = &model->segment;
    const int terms = 8 * DENSE_BLOCKS(level);
    const int64_t at = y * (int64_t)model->stride + x;
    dense_f8 base = dense_load_samples(model->row0 + at - model->stride);
    if (model->reference[0])
        base = (base + dense_load_samples(model->reference[0] + at)) * 0.5f;
    *(dense_f8 *)&segment->base[place] = base;
    dense_f8 sum[DENSE_SOLUTIONS];
    for (int s = 0; s < DENSE_SOLUTIONS; s++)
        sum[s] = dense_splat(0.0f);
#pragma GCC unroll 24
    for (int i = ROW_TAPS; i < terms - 1; i++) {
        const uint16_t *row = model->tap[i];
        dense_f8 term = dense_splat(0.0f);
        if (row)
            term = dense_load_samples(row + x) - base;
        *(dense_f8 *)&segment->terms[i][place] = term;
        for (int s = 0; s < DENSE_USED_SOLUTIONS(level); s++)
            sum[s] = sum[s] + term * weights[s * DENSE_MOST_TERMS + i];
    }
    for (int s = 0; s < DENSE_USED_SOLUTIONS(level); s++)
        *(dense_f8 *)&segment->partial[s][place] = sum[s];
}

/* How large the errors were around eight samples, as far as finished rows tell. */
DENSE_INLINE void dense_prepare_energy(dense_model *model, int64_t y, int64_t x, int place) {
    dense_segment *segment = &model->segment;
    const int64_t stride = (int64_t)model->stride, at = y * stride + x;
    const uint16_t *north = model->error0 + at - stride;
    const dense_i8 sides = dense_load_whole(north - 1) + dense_load_whole(north + 1);
    *(dense_i8 *)&segment->above[place] = 3 * dense_load_whole(north) + 2 * sides + dense_load_whole(north - stride);
    if (!model->reference[0])
        return;
    const uint16_t *here = model->reference_errors + at, *samples = model->reference[0] + at;
    const dense_i8 behind =
        4 * dense_load_whole(here) + 2 * (dense_load_whole(here + 1) + dense_load_whole(here + stride)) +
        dense_load_whole(here - 1) + dense_load_whole(here - stride) + dense_load_whole(here + stride - 1) +
        dense_load_whole(here + stride + 1);
    *(dense_i8 *)&segment->behind[place] = behind;
    const dense_f8 number = __builtin_convertvector(behind + 1, dense_f8);
    *(dense_i8 *)&segment->behind_log[place] = ((dense_i8)number >> 22) - (127 << 1);
    const dense_i8 value = dense_load_whole(samples);
    *(dense_i8 *)&segment->sides[place] =
        -2 * (dense_load_whole(samples - 1) < value) - (dense_load_whole(samples + 1) < value);
}

DENSE_INLINE void dense_prepare(dense_model *model, int64_t y, int64_t x0, const float *weights, const int level) {
    for (int place = 0; place < DENSE_SEGMENT; place += 8) {
        dense_prepare_terms(model, y, x0 + place, place, weights, level);
        dense_prepare_energy(model, y, x0 + place, place);
    }
}

/* Completes the terms of eight finished samples, and finds what to weigh them with; those from `count` on with 0. */
DENSE_INLINE void dense_weigh_samples(dense_segment *segment, const uint16_t *row, int place, int count,
                                      dense_f8 *weights, const int level) {
    const int terms = 8 * DENSE_BLOCKS(level);
    const dense_f8 base = *(const dense_f8 *)&segment->base[place];
    for (int i = 0; i < ROW_TAPS; i++)
        *(dense_f8 *)&segment->terms[i][place] = dense_load_samples(row + place - 1 - i) - base;
    *(dense_f8 *)&segment->terms[terms - 1][place] = dense_load_samples(row + place) - base;
    dense_f8 largest = dense_splat(1.0f);
#pragma GCC unroll 24
    for (int i = 0; i < terms; i++) {
        const dense_f8 size = (dense_f8)(*(const dense_i8 *)&segment->terms[i][place] & 0x7FFFFFFF);
        dense_raise(&largest, &size);
    }
    const dense_f8 spread = *(const dense_f8 *)&segment->energy[place] * (1.0f / 48.0f) + WEIGHT_FLOOR;
    const dense_f8 wanted = WEIGHT_SCALE / spread, most = LARGEST_TERM / largest;
    const dense_i8 over = wanted > most;
    const dense_i8 scale = ((dense_i8)most & over) | ((dense_i8)wanted & ~over);
    *weights = (dense_f8)(scale & ((dense_i8){0, 1, 2, 3, 4, 5, 6, 7} + place < count));
}

/* Eight samples' whole parts of a term with their weights. */
DENSE_INLINE dense_i8 dense_whole_term(const float *term, const dense_f8 *weights) {
    return __builtin_convertvector(*(const dense_f8 *)term * *weights, dense_i8);
}

/* Writes eight terms of eight samples as whole numbers of 16 bits, sample by sample, two samples of a term together:
 * those of samples 2 * p and 2 * p + 1 at out[p]. */
#if defined(DENSE_USE_AVX2) || defined(__AVX2__)
DENSE_INLINE void dense_pair_terms(const float (*terms)[DENSE_SEGMENT], const dense_f8 *weights,
                                   int16_t (*out)[2 * DENSE_MOST_TERMS]) {
    __m256i two[4], low[2], high[2];
    for (int i = 0; i < 4; i++)
        two[i] = _mm256_packs_epi32((__m256i)dense_whole_term(terms[i], weights),
                                    (__m256i)dense_whole_term(terms[i + 4], weights));
    for (int i = 0; i < 2; i++) {
        low[i] = _mm256_unpacklo_epi32(two[2 * i], two[2 * i + 1]);
        high[i] = _mm256_unpackhi_epi32(two[2 * i], two[2 * i + 1]);
    }
    /* The first four terms and the others, of pairs 0 and 2 and of pairs 1 and 3. */
    const __m256i even[2] = {_mm256_unpacklo_epi64(low[0], low[1]), _mm256_unpacklo_epi64(high[0], high[1])};
    const __m256i odd[2] = {_mm256_unpackhi_epi64(low[0], low[1]), _mm256_unpackhi_epi64(high[0], high[1])};
    _mm256_store_si256((__m256i *)(void *)out[0], _mm256_permute2x128_si256(even[0], even[1], 0x20));
    _mm256_store_si256((__m256i *)(void *)out[1], _mm256_permute2x128_si256(odd[0], odd[1], 0x20));
    _mm256_store_si256((__m256i *)(void *)out[2], _mm256_permute2x128_si256(even[0], even[1], 0x31));
    _mm256_store_si256((__m256i *)(void *)out[3], _mm256_permute2x128_si256(odd[0], odd[1], 0x31));
}
#else
DENSE_INLINE void dense_transpose4(dense_i4 *a, dense_i4 *b, dense_i4 *c, dense_i4 *d) {
#if defined(__clang__)
#define INTERLEAVE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
#define INTERLEAVE(x, y, i, j, k, l) __builtin_shuffle(x, y, (dense_i4){i, j, k, l})
#endif
    const dense_i4 low0 = INTERLEAVE(*a, *b, 0, 4, 1, 5), high0 = INTERLEAVE(*a, *b, 2, 6, 3, 7);
    const dense_i4 low1 = INTERLEAVE(*c, *d, 0, 4, 1, 5), high1 = INTERLEAVE(*c, *d, 2, 6, 3, 7);
    *a = INTERLEAVE(low0, low1, 0, 1, 4, 5);
    *b = INTERLEAVE(low0, low1, 2, 3, 6, 7);
    *c = INTERLEAVE(high0, high1, 0, 1, 4, 5);
    *d = INTERLEAVE(high0, high1, 2, 3, 6, 7);
#undef INTERLEAVE
}

DENSE_INLINE void dense_pair_terms(const float (*terms)[DENSE_SEGMENT], const dense_f8 *weights,
                                   int16_t (*out)[2 * DENSE_MOST_TERMS]) {
    typedef int16_t dense_i16x8 __attribute__((vector_size(16)));
    dense_i4 whole[8];
    for (int i = 0; i < 8; i++)
        whole[i] = (dense_i4)__builtin_convertvector(dense_whole_term(terms[i], weights), dense_i16x8);
    dense_transpose4(&whole[0], &whole[1], &whole[2], &whole[3]);
    dense_transpose4(&whole[4], &whole[5], &whole[6], &whole[7]);
    for (int p = 0; p < 4; p++) {
        *(dense_i4 *)out[p] = whole[p];
        *(dense_i4 *)(out[p] + 8) = whole[4 + p];
    }
}
#endif

/* Adds the `count` samples of a finished segment to its cell. */
DENSE_INLINE void dense_train(dense_model *model, int64_t y, int64_t x0, int count, dense_f8 *cell, const int level) {
    int16_t pairs[DENSE_SEGMENT / 2][2 * DENSE_MOST_TERMS] __attribute__((aligned(64)));
    dense_segment *segment = &model->segment;
    const uint16_t *row = model->row0 + y * (int64_t)model->stride + x0;
    for (int place = 0; place < DENSE_SEGMENT; place += 8) {
        dense_f8 weights;
        dense_weigh_samples(segment, row, place, count, &weights, level);
        for (int i = 0; i < 8 * DENSE_BLOCKS(level); i += 8)
            dense_pair_terms((const float(*)[DENSE_SEGMENT])&segment->terms[i][place], &weights,
                             (int16_t(*)[2 * DENSE_MOST_TERMS])&pairs[place / 2][2 * i]);
    }
    dense_add_segment(cell, (const int16_t(*)[2 * DENSE_MOST_TERMS])pairs, DENSE_SEGMENT / 2, DENSE_BLOCKS(level));
}

/* The part of a cell's window that lies in the finished row of cells and in the frame before. */
DENSE_INLINE void dense_fix_window(const dense_model *model, uint32_t cell_row, uint32_t x, const dense_window *window,
                                   dense_f8 *fixed, const int level) {
    const int blocks = DENSE_BLOCKS(level);
    const size_t groups = DENSE_GROUPS(blocks), row = model->cells * groups;
    const dense_f8 *north = dense_cell(model, 0, x, level);
    memset(fixed, 0, groups * sizeof *fixed);
    dense_add_matrix(fixed, north, window->north, blocks);
    if (window->north_west != 0.0f)
        dense_add_matrix(fixed, north - groups, window->north_west, blocks);
    dense_add_matrix(fixed, north + groups, window->north_east, blocks);
    if (!model->frame)
        return;
    const int south = cell_row + 1 < model->cell_rows, west = x > 0, east = x + 1 < model->cells;
    const dense_f8 *before = model->history + cell_row * row + x * groups;
    dense_add_matrix(fixed, before, window->before, blocks);
    if (south && window->before_south != 0.0f)
        dense_add_matrix(fixed, before + row, window->before_south, blocks);
    if (window->before_sides == 0.0f)
        return;
    if (east)
        dense_add_matrix(fixed, before + groups, window->before_sides, blocks);
    if (west)
        dense_add_matrix(fixed, before - groups, window->before_sides, blocks);
    if (south && east)
        dense_add_matrix(fixed, before + row + groups, window->before_sides, blocks);
    if (south && west)
        dense_add_matrix(fixed, before + row - groups, window->before_sides, blocks);
}

DENSE_INLINE void dense_fix_windows(dense_model *model, uint32_t cell_row, const int level) {
    const size_t groups = DENSE_GROUPS(DENSE_BLOCKS(level));
    dense_f8 *fixed = model->fixed;
    for (uint32_t x = 0; x < model->cells; x++)
        for (int s = 0; s < DENSE_USED_SOLUTIONS(level); s++, fixed += groups)
            dense_fix_window(model, cell_row, x, &dense_windows[s], fixed, level);
}

/* The solutions that there are: one copy of each for both directions is enough. */
static __attribute__((noinline)) void dense_solve_dense(const dense_f8 *matrix, float *weights) {
    dense_solve(matrix, weights, 8 * DENSE_BLOCKS(0) - 1, DENSE_BLOCKS(0));
}

static __attribute__((noinline)) void dense_solve_archive(const dense_f8 *matrix, float *weights) {
    dense_solve(matrix, weights, 8 * DENSE_BLOCKS(1) - 1, DENSE_BLOCKS(1));
}

static __attribute__((noinline)) void dense_solve_narrow(const dense_f8 *matrix, float *weights) {
    dense_solve(matrix, weights, DENSE_NARROW_TAPS, DENSE_BLOCKS(1));
}

/* Weights of all solutions for a cell, as far as it is known. */
DENSE_INLINE void dense_solve_cell(const dense_model *model, uint32_t x, float *weights, const int level) {
    const int blocks = DENSE_BLOCKS(level), groups = DENSE_GROUPS(blocks);
    const dense_f8 *own = dense_cell(model, 1, x, level), *fixed = model->fixed;
    dense_f8 sum[DENSE_MOST_GROUPS];
    fixed += (size_t)x * groups * DENSE_USED_SOLUTIONS(level);
    for (int i = 0; i < groups; i++)
        sum[i] = ((fixed[i] + own[i]) + own[i - groups]) + own[i + groups];
    if (!level) {
        dense_solve_dense(sum, weights);
        return;
    }
    dense_solve_archive(sum, weights);
    fixed += groups;
    for (int i = 0; i < groups; i++)
        sum[i] = ((((fixed[i] + own[i]) + own[i - groups]) + own[i + groups]) + own[i - 2 * groups]) +
                 own[i + 2 * groups];
    dense_solve_archive(sum, weights + DENSE_MOST_TERMS);
    fixed += groups;
    const dense_f8 own_weight = dense_splat(NARROW_OWN), west_weight = dense_splat(NARROW_WEST);
    for (int i = 0; i < groups; i++)
        sum[i] = (fixed[i] + own_weight * own[i]) + west_weight * own[i - groups];
    dense_solve_narrow(sum, weights + 2 * DENSE_MOST_TERMS);
}

/* Keeps a finished row of cells for the next frame and makes room for the next row. */
DENSE_INLINE void dense_turn_cells(dense_model *model, uint32_t cell_row, const int level) {
    const size_t row = (size_t)model->cells * DENSE_GROUPS(DENSE_BLOCKS(level)), bytes = row * sizeof(dense_f8);
    memcpy(model->history + cell_row * row, dense_cell(model, 1, 0, level), bytes);
    dense_f8 *turn = model->cell[0];
    model->cell[0] = model->cell[1];
    model->cell[1] = turn;
    memset(dense_cell(model, 1, 0, level), 0, bytes);
}

#endif
