/* Coding of one frame, encoder and decoder in one text.  Included by one file for each instruction set. */
#ifndef DICOMFS_DENSE_CORE_H
#define DICOMFS_DENSE_CORE_H

#include "dense_entropy.h"

#define TAP_W 0
#define TAP_WW 1
#define TAP_WWW 2
#define ROW_TAPS 3

#ifndef WEIGHT_SCALE
#define WEIGHT_SCALE 32.0f
#endif
#ifndef WEIGHT_FLOOR
#define WEIGHT_FLOOR 0.5f
#endif
#define LARGEST_TERM 8191.0f

/* One level per quarter of an octave of value + 1. */
DENSE_INLINE uint32_t dense_quarter_log(uint32_t value) {
    const float number = (float)(int32_t)(value + 1);
    uint32_t word;
    memcpy(&word, &number, sizeof word);
    return (word >> 21) - (127u << 2);
}

DENSE_INLINE dense_f8 dense_load_samples(const uint16_t *samples) {
    return __builtin_convertvector(*(const dense_u16x8 *)samples, dense_f8);
}

DENSE_INLINE dense_i8 dense_load_whole(const uint16_t *samples) {
    return __builtin_convertvector(*(const dense_u16x8 *)samples, dense_i8);
}

/* Where a tap of the sample at (0, x) of row y lies, or null. */
DENSE_INLINE const uint16_t *dense_tap_row(const dense_model *model, const dense_tap *tap, int64_t row) {
    const uint16_t *plane = tap->plane ? model->reference[tap->plane - 1] : model->row0;
    return plane ? plane + (row + tap->row) * (int64_t)model->stride + tap->column : NULL;
}

/* Terms of the taps that lie in finished rows, their part of the prediction, and the energy of their surroundings. */
DENSE_INLINE void dense_prepare(dense_model *model, int64_t y, int64_t x0, const float *weights, const int blocks) {
    dense_segment *segment = &model->segment;
    const int taps = 8 * blocks - 1;
    const int64_t stride = (int64_t)model->stride, at = y * stride + x0;
    const dense_tap *list = dense_taps[model->header.level][model->header.list];
    const uint16_t *north = model->row0 + at - stride, *reference = model->reference[0];
    for (int half = 0; half < 2; half++) {
        dense_f8 base = dense_load_samples(north + 8 * half);
        if (reference)
            base = (base + dense_load_samples(reference + at + 8 * half)) * 0.5f;
        *(dense_f8 *)&segment->base[8 * half] = base;
        dense_f8 sum = dense_splat(0.0f);
        for (int i = ROW_TAPS; i < taps; i++) {
            const uint16_t *row = dense_tap_row(model, &list[i], y);
            dense_f8 term = dense_splat(0.0f);
            if (row)
                term = dense_load_samples(row + x0 + 8 * half) - base;
            *(dense_f8 *)&segment->terms[i][8 * half] = term;
            sum = sum + term * weights[i];
        }
        *(dense_f8 *)&segment->partial[8 * half] = sum;
        const uint16_t *errors = model->error0 + at - stride + 8 * half;
        const dense_i8 sides = dense_load_whole(errors - 1) + dense_load_whole(errors + 1);
        *(dense_i8 *)&segment->above[8 * half] =
            3 * dense_load_whole(errors) + 2 * sides + dense_load_whole(errors - stride);
        if (reference) {
            errors = model->reference_errors + at + 8 * half;
            *(dense_i8 *)&segment->behind[8 * half] =
                4 * dense_load_whole(errors) +
                2 * (dense_load_whole(errors + 1) + dense_load_whole(errors + stride)) +
                dense_load_whole(errors - 1) + dense_load_whole(errors - stride) +
                dense_load_whole(errors + stride - 1) + dense_load_whole(errors + stride + 1);
        }
    }
}

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

/* Adds a finished segment of `count` samples to its cell. */
DENSE_INLINE void dense_train(dense_model *model, int64_t y, int64_t x0, int count, dense_f8 *cell,
                              const int blocks) {
    dense_segment *segment = &model->segment;
    const int terms = 8 * blocks;
    const uint16_t *row = model->row0 + y * (int64_t)model->stride + x0;
    dense_i4 whole[DENSE_MOST_TERMS][4];
    for (int half = 0; half < 2; half++) {
        const dense_f8 base = *(const dense_f8 *)&segment->base[8 * half];
        for (int i = 0; i < ROW_TAPS; i++)
            *(dense_f8 *)&segment->terms[i][8 * half] = dense_load_samples(row + 8 * half - 1 - i) - base;
        *(dense_f8 *)&segment->terms[terms - 1][8 * half] = dense_load_samples(row + 8 * half) - base;
        dense_f8 largest = dense_splat(1.0f);
        for (int i = 0; i < terms; i++) {
            const dense_f8 term = *(const dense_f8 *)&segment->terms[i][8 * half];
            const dense_f8 size = (dense_f8)((dense_i8)term & 0x7FFFFFFF);
            const dense_i8 larger = size > largest;
            largest = (dense_f8)(((dense_i8)size & larger) | ((dense_i8)largest & ~larger));
        }
        const dense_f8 spread = *(const dense_f8 *)&segment->energy[8 * half] * (1.0f / 48.0f) + WEIGHT_FLOOR;
        const dense_f8 wanted = WEIGHT_SCALE / spread, most = LARGEST_TERM / largest;
        const dense_i8 over = wanted > most;
        dense_i8 scale = ((dense_i8)most & over) | ((dense_i8)wanted & ~over);
        const dense_i8 place = (dense_i8){0, 1, 2, 3, 4, 5, 6, 7} + 8 * half;
        scale &= place < count;
        for (int i = 0; i < terms; i++) {
            const dense_i8 value = __builtin_convertvector(
                *(const dense_f8 *)&segment->terms[i][8 * half] * (dense_f8)scale, dense_i8);
            int16_t narrow[8] __attribute__((aligned(16)));
            typedef int16_t i16x8 __attribute__((vector_size(16), may_alias));
            *(i16x8 *)narrow = __builtin_convertvector(value, i16x8);
            whole[i][half] = *(const dense_i4 *)narrow;
        }
    }
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < terms; i += 4) {
            dense_i4 a = whole[i][half], b = whole[i + 1][half], c = whole[i + 2][half], d = whole[i + 3][half];
            dense_transpose4(&a, &b, &c, &d);
            *(dense_i4 *)&segment->pairs[4 * half][2 * i] = a;
            *(dense_i4 *)&segment->pairs[4 * half + 1][2 * i] = b;
            *(dense_i4 *)&segment->pairs[4 * half + 2][2 * i] = c;
            *(dense_i4 *)&segment->pairs[4 * half + 3][2 * i] = d;
        }
    dense_add_segment(cell, (const int16_t(*)[2 * DENSE_MOST_TERMS])segment->pairs, DENSE_SEGMENT / 2, blocks);
}

/* The part of the window sums that lies in finished rows of cells and in the frame before. */
DENSE_INLINE void dense_fix_windows(dense_model *model, uint32_t cell_row, const int blocks) {
    const int groups = DENSE_GROUPS(blocks);
    for (uint32_t x = 0; x < model->cells; x++) {
        dense_f8 *fixed = model->fixed + (size_t)x * groups;
        const dense_f8 *north = model->cell[0] + (size_t)(x + 1) * groups;
        memset(fixed, 0, (size_t)groups * sizeof *fixed);
        dense_add_matrix(fixed, north, 1.0f, blocks);
        dense_add_matrix(fixed, north - groups, 0.7f, blocks);
        dense_add_matrix(fixed, north + groups, 0.7f, blocks);
        if (model->frame) {
            const dense_f8 *before = model->history + ((size_t)cell_row * model->cells + x) * groups;
            dense_add_matrix(fixed, before, 0.8f, blocks);
            if (cell_row + 1 < model->cell_rows)
                dense_add_matrix(fixed, before + (size_t)model->cells * groups, 0.5f, blocks);
        }
    }
}

DENSE_INLINE void dense_solve_cell(dense_model *model, uint32_t x, float *weights, const int blocks) {
    const int groups = DENSE_GROUPS(blocks);
    dense_f8 sum[DENSE_MOST_GROUPS];
    const dense_f8 *fixed = model->fixed + (size_t)x * groups;
    const dense_f8 *own = model->cell[1] + (size_t)(x + 1) * groups;
    for (int i = 0; i < groups; i++)
        sum[i] = ((fixed[i] + own[i]) + own[i - groups]) + own[i + groups];
    dense_solve(sum, weights, 8 * blocks - 1, blocks);
}

DENSE_INLINE void dense_adapt_bias(dense_bias *bias, int32_t error, const int32_t *rate) {
    bias->mean += (int32_t)(((int64_t)(error * 256 - bias->mean) * rate[bias->count]) >> 16);
    bias->count += bias->count < 255;
}

DENSE_INLINE int dense_sign_context(const int8_t *signs) { return 3 * signs[0] + signs[1]; }

/* Codes the sample at x; row points to it, i is its place in the segment. */
DENSE_INLINE void dense_sample(dense_model *model, int64_t y, int64_t x, int i, const float *weights, int32_t actual,
                               const int decoding) {
    dense_segment *segment = &model->segment;
    const int64_t stride = (int64_t)model->stride, at = y * stride + x;
    uint16_t *here = model->row0 + at, *error_here = model->error0 + at;
    const uint16_t *behind = model->reference[0] ? model->reference[0] + at : NULL;
    const int32_t most = (int32_t)model->header.largest;
    const int32_t w = here[-1], ww = here[-2], n = here[-stride], nw = here[-stride - 1], ne = here[-stride + 1],
                  nn = here[-2 * stride];
    const float base = segment->base[i];
    float value = segment->partial[i] + weights[TAP_WWW] * ((float)here[-3] - base);
    value = value + weights[TAP_WW] * ((float)ww - base);
    value = value + weights[TAP_W] * ((float)w - base);
    value = (value + base) * 32.0f + 0.5f;
    if (!(value > 0.0f))
        value = 0.0f;
    const float top = (float)(most * 32);
    if (value > top)
        value = top;
    const int32_t raw = (int32_t)value;

    const uint32_t ec = (uint32_t)(segment->above[i] + 3 * error_here[-1] + error_here[-2]);
    const uint32_t er = behind ? (uint32_t)segment->behind[i] : ec;
    const uint32_t energy = behind ? (2 * ec + er + 1) / 3 : ec;
    segment->energy[i] = (float)(int32_t)energy;
    const uint32_t q = dense_quarter_log(energy), qc = dense_quarter_log(ec) >> 1, qr = dense_quarter_log(er) >> 1;

    int8_t *sign_here = model->signs[1] + x, *sign_north = model->signs[0] + x;
    const int32_t fifth = behind ? behind[0] : ww;
    const uint32_t compared = (uint32_t)(w * 32 > raw) | (uint32_t)(n * 32 > raw) << 1 |
                              (uint32_t)(nw * 32 > raw) << 2 | (uint32_t)(ne * 32 > raw) << 3 |
                              (uint32_t)(fifth * 32 > raw) << 4 | (uint32_t)((2 * w - ww) * 32 > raw) << 5 |
                              (uint32_t)((2 * n - nn) * 32 > raw) << 6;
    dense_bias *bias0 = model->bias[0] + compared * (DENSE_ENERGIES / 4) + (q >> 2);
    const uint32_t sides = behind ? (uint32_t)(behind[-1] < behind[0]) * 2 + (behind[1] < behind[0]) : 0;
    const uint32_t signs = (uint32_t)(3 * (sign_here[-1] + 1) + sign_north[0] + 1);
    dense_bias *bias1 = model->bias[1] + (signs * (DENSE_ENERGIES / 4) + (q >> 2)) * 4 + sides;
    const int32_t mu = dfk_clamp(raw + ((bias0->mean + bias1->mean) >> 9), 0, most * 32);
    const int32_t predicted = (mu + 16) >> 5, fraction = mu - predicted * 32 + 16;
    const int32_t log_energy = (int32_t)(q >> 2);
    const int scale = energy >= 128 ? (int)dfk_log2(energy) - 6 : 0;
    (void)log_energy;

    dense_context context;
    context.mixer = model->mixer + (q / 3 > 15 ? 15 : q / 3) * DENSE_INPUTS;
    uint32_t *own_slots[DENSE_MIXED];
    own_slots[0] = model->slots[0] + q * NODES;
    own_slots[1] = model->slots[1] + (qc * (DENSE_ENERGIES / 2) + qr) * NODES;
    own_slots[2] = model->slots[2] + ((uint32_t)(fraction > 31 ? 31 : fraction) / 2 * (DENSE_ENERGIES / 2) + (q >> 1)) * NODES;
    memcpy(context.slots, own_slots, sizeof own_slots);

    int32_t residual = actual - predicted;
    int spiked = 0;
    for (uint32_t s = 0; s < model->header.spike_count && !spiked; s++) {
        const int32_t spike = (int32_t)model->header.spikes[s], distance = predicted - spike;
        if ((distance < 0 ? -distance : distance) > (8 << scale) + 1)
            continue;
        const int32_t step = dfk_clamp(distance >> (scale > 0 ? scale - 1 : 0), -16, 15) + 16;
        const uint32_t near = (uint32_t)((w == spike) + (n == spike) + (ne == spike) + (nw == spike) + (ww == spike));
        const uint32_t there = behind ? (uint32_t)(behind[0] == spike) : (uint32_t)(nn == spike);
        const uint32_t around = behind ? (uint32_t)((behind[1] == spike) + (behind[-1] == spike) +
                                                     (behind[stride] == spike) + (behind[-stride] == spike)) : 0;
        const uint32_t back = model->reference[1] ? (uint32_t)(model->reference[1][at] == spike) : 0;
        context.slots[1] = model->slots[1] + ((near * 2 + there) * (DENSE_ENERGIES / 2) + around * 2 + back) * NODES;
        context.slots[2] = model->slots[2] + ((uint32_t)step / 2 * (DENSE_ENERGIES / 2) + (q >> 1)) * NODES;
        spiked = dense_mixed_bit(model, &context, NODE_SPIKE + (int)s, actual == spike, decoding);
        if (spiked)
            actual = spike;
    }
    if (!spiked) {
        memcpy(context.slots, own_slots, sizeof own_slots);
        const int negative = dense_mixed_bit(model, &context, NODE_SIGN, residual < 0, decoding);
        uint32_t magnitude = (uint32_t)(negative ? -1 - residual : residual);
        uint32_t high = dense_unary(model, &context, magnitude >> scale, negative, decoding);
        if (scale) {
            const uint32_t kind = high > 3 ? 3 : high;
            int parity_node = 0;
            if (model->header.parity)
                parity_node = NODE_PARITY + (w & 1) + (n & 1) + (nw & 1) + (ne & 1) + (fifth & 1);
            const int turn = model->header.parity ? (predicted & 1) ^ negative : 0;
            const uint32_t low = dense_low_bits(model, &context, magnitude, scale, model->low + (q * 4 + kind) * 4,
                                                parity_node, turn, decoding);
            if (decoding)
                high = high << scale | low;
        }
        if (decoding) {
            actual = negative ? predicted - 1 - (int32_t)(high & 0xFFFFFF) : predicted + (int32_t)(high & 0xFFFFFF);
            actual = dfk_clamp(actual, 0, most);
        }
    }
    *here = (uint16_t)actual;
    const int32_t error = actual * 32 - mu;
    const int32_t size = ((error < 0 ? -error : error) + 4) >> 3;
    *error_here = (uint16_t)(size > 65535 ? 65535 : size);
    *sign_here = (int8_t)((error > 8) - (error < -8));
    const int32_t raw_error = dfk_clamp(actual * 32 - raw, -2000, 2000);
    dense_adapt_bias(bias0, raw_error, model->rate);
    dense_adapt_bias(bias1, raw_error, model->rate);
}

/* Whether the samples around a segment are all the same: 0 no, 1 yes, 2 the first reference's too. */
DENSE_INLINE int dense_flat_kind(const dense_model *model, int64_t y, int64_t x0, int64_t x1) {
    const int64_t stride = (int64_t)model->stride;
    const uint16_t *row = model->row0 + y * stride, value = row[x0 - 1];
    if (y == 0 && !model->reference[0])
        return 0;
    for (int64_t x = x0 - 1; x <= x1; x++)
        if (row[x - stride] != value)
            return 0;
    if (!model->reference[0])
        return 1;
    for (int64_t x = x0; x < x1; x++)
        if (model->reference[0][y * stride + x] != value)
            return 1;
    return 2;
}

/* Codes whether a segment continues the sample before it; if so fills it in and returns 1. */
DENSE_INLINE int dense_flat(dense_model *model, int64_t y, int64_t x0, int64_t x1, const uint16_t *samples,
                            const int decoding) {
    const int kind = dense_flat_kind(model, y, x0, x1);
    if (!kind)
        return 0;
    uint16_t *row = model->row0 + y * (int64_t)model->stride;
    const uint16_t value = row[x0 - 1];
    int same = 1;
    if (!decoding)
        for (int64_t x = x0; x < x1; x++)
            same &= samples[x] == value;
    if (!dense_simple_bit(model, &model->flat[kind - 1], same, decoding))
        return 0;
    for (int64_t x = x0; x < x1; x++) {
        row[x] = value;
        model->error0[y * (int64_t)model->stride + x] = 0;
        model->signs[1][x] = 0;
    }
    return 1;
}

/* Continues a row beyond its ends, so that taps there have a value. */
DENSE_INLINE void dense_close_row(dense_model *model, uint16_t *plane, int64_t y, int left, int right) {
    const int64_t stride = (int64_t)model->stride, columns = model->shape.columns;
    uint16_t *row = plane + y * stride;
    const uint16_t first = left ? row[0] : row[-stride], last = row[columns - 1];
    for (int i = 1; i <= DENSE_MARGIN; i++)
        row[-i] = first;
    if (right)
        for (int64_t x = columns; x < stride - DENSE_MARGIN; x++)
            row[x] = last;
}

DENSE_INLINE void dense_row(dense_model *model, int64_t y, const uint16_t *samples, const int blocks,
                            const int decoding) {
    const int64_t columns = model->shape.columns;
    const int groups = DENSE_GROUPS(blocks);
    dense_close_row(model, model->row0, y, 0, 0);
    dense_close_row(model, model->error0, y, 0, 0);
    model->signs[1][-1] = 0;
    for (uint32_t cell = 0; cell < model->cells; cell++) {
        const int64_t x0 = (int64_t)cell * DENSE_SEGMENT;
        const int64_t x1 = x0 + DENSE_SEGMENT < columns ? x0 + DENSE_SEGMENT : columns;
        if (dense_flat(model, y, x0, x1, samples, decoding))
            continue;
        float *weights = model->weights + (size_t)cell * 8 * blocks;
        if (model->solved[cell] != (int32_t)(y / DENSE_SOLVE_ROWS)) {
            model->solved[cell] = (int32_t)(y / DENSE_SOLVE_ROWS);
            dense_solve_cell(model, cell, weights, blocks);
        }
        dense_prepare(model, y, x0, weights, blocks);
        for (int64_t x = x0; x < x1; x++)
            dense_sample(model, y, x, (int)(x - x0), weights, decoding ? 0 : samples[x], decoding);
        dense_train(model, y, x0, (int)(x1 - x0), model->cell[1] + (size_t)(cell + 1) * groups, blocks);
    }
    dense_close_row(model, model->row0, y, 0, 1);
    dense_close_row(model, model->error0, y, 0, 1);
    int8_t *turn = model->signs[0];
    model->signs[0] = model->signs[1];
    model->signs[1] = turn;
}

/* Keeps a finished row of cells for the next frame and makes room for the next row. */
DENSE_INLINE void dense_turn_cells(dense_model *model, uint32_t cell_row, const int blocks) {
    const size_t row = (size_t)model->cells * DENSE_GROUPS(blocks), bytes = row * sizeof(dense_f8);
    memcpy(model->history + cell_row * row, model->cell[1] + DENSE_GROUPS(blocks), bytes);
    dense_f8 *turn = model->cell[0];
    model->cell[0] = model->cell[1];
    model->cell[1] = turn;
    memset(turn + DENSE_GROUPS(blocks), 0, bytes);
}

DENSE_INLINE void dense_open_frame(dense_model *model) {
    const int64_t stride = (int64_t)model->stride;
    uint32_t distances[DFK_REFERENCES];
    dense_frame_references(model->header.references, model->frame, distances);
    model->row0 = dense_plane(model, model->pixels, model->frame);
    model->error0 = dense_plane(model, model->errors, model->frame);
    for (int i = 0; i < DFK_REFERENCES; i++)
        model->reference[i] =
            distances[i] ? dense_plane(model, model->pixels, model->frame - distances[i]) : NULL;
    model->reference_errors =
        distances[0] ? dense_plane(model, model->errors, model->frame - distances[0]) : NULL;
    const size_t bytes = model->stride * sizeof(uint16_t);
    for (int64_t y = -DENSE_TOP; y < 0; y++) {
        uint16_t *row = model->row0 + y * stride - DENSE_MARGIN, *errors = model->error0 + y * stride - DENSE_MARGIN;
        if (distances[0]) {
            memcpy(row, model->reference[0] - DENSE_MARGIN, bytes);
            memcpy(errors, model->reference_errors - DENSE_MARGIN, bytes);
        } else {
            memset(row, 0, bytes);
            memset(errors, 0, bytes);
        }
    }
    memset(model->signs[0] - 1, 0, model->shape.columns + 1);
    memset(model->solved, 0xFF, model->cells * sizeof *model->solved);
    const size_t row_of_cells = (size_t)(model->cells + 2) * DENSE_GROUPS(DENSE_BLOCKS(model->header.level));
    for (int i = 0; i < 2; i++)
        memset(model->cell[i], 0, row_of_cells * sizeof(dense_f8));
}

/* Extends a finished plane beyond its borders by the samples there, for the frames that refer to it. */
DENSE_INLINE void dense_close_plane(dense_model *model, uint16_t *plane) {
    const int64_t stride = (int64_t)model->stride, rows = model->shape.rows;
    for (int64_t y = 0; y < rows; y++)
        dense_close_row(model, plane, y, 1, 0);
    const size_t bytes = model->stride * sizeof(uint16_t);
    for (int64_t y = -DENSE_TOP; y < 0; y++)
        memcpy(plane + y * stride - DENSE_MARGIN, plane - DENSE_MARGIN, bytes);
    for (int64_t y = rows; y < rows + DENSE_BOTTOM; y++)
        memcpy(plane + y * stride - DENSE_MARGIN, plane + (rows - 1) * stride - DENSE_MARGIN, bytes);
}

DENSE_INLINE void dense_frame_with(dense_model *model, const uint16_t *samples, const int blocks,
                                   const int decoding) {
    dense_open_frame(model);
    const int64_t rows = model->shape.rows, columns = model->shape.columns;
    for (int64_t y = 0; y < rows; y++) {
        if (y % DENSE_CELL_ROWS == 0)
            dense_fix_windows(model, (uint32_t)(y / DENSE_CELL_ROWS), blocks);
        dense_row(model, y, decoding ? NULL : samples + y * columns, blocks, decoding);
        if (y % DENSE_CELL_ROWS == DENSE_CELL_ROWS - 1 || y == rows - 1)
            dense_turn_cells(model, (uint32_t)(y / DENSE_CELL_ROWS), blocks);
    }
    dense_close_plane(model, model->row0);
    dense_close_plane(model, model->error0);
    model->frame++;
}

#endif
