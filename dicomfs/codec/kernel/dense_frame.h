/* The order in which a frame is coded: rows, segments of rows, borders. */
#ifndef DICOMFS_DENSE_FRAME_H
#define DICOMFS_DENSE_FRAME_H

#include "dense_core.h"

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
DENSE_INLINE int dense_flat(dense_model *model, dense_coder *coder, int64_t y, int64_t x0, int64_t x1,
                            const uint16_t *samples, const int level, const int decoding) {
    const int kind = dense_flat_kind(model, y, x0, x1);
    if (!kind)
        return 0;
    uint16_t *row = model->row0 + y * (int64_t)model->stride;
    const uint16_t value = row[x0 - 1];
    int same = 1;
    if (!decoding)
        for (int64_t x = x0; x < x1; x++)
            same &= samples[x] == value;
    if (!dense_simple_bit(coder, &model->flat[kind - 1], same, decoding))
        return 0;
    for (int64_t x = x0; x < x1; x++) {
        row[x] = value;
        model->error0[y * (int64_t)model->stride + x] = 0;
        model->signs[1][x] = 0;
        if (level)
            for (int s = 0; s < DENSE_SOLUTIONS; s++)
                model->solution_errors[s][0][x] = 0;
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

/* Moves on to the next row of the solutions' errors; beyond the ends of a row they are 0. */
DENSE_INLINE void dense_close_solutions(dense_model *model) {
    for (int s = 0; s < DENSE_SOLUTIONS; s++) {
        uint16_t *turn = model->solution_errors[s][2];
        model->solution_errors[s][2] = model->solution_errors[s][1];
        model->solution_errors[s][1] = model->solution_errors[s][0];
        model->solution_errors[s][0] = turn;
    }
}

DENSE_INLINE void dense_row(dense_model *model, int64_t y, const uint16_t *samples, const int level,
                            const int decoding) {
    const int64_t columns = model->shape.columns;
    dense_close_row(model, model->row0, y, 0, 0);
    dense_close_row(model, model->error0, y, 0, 0);
    model->signs[1][-1] = 0;
    dense_find_taps(model, y, level);
    dense_coder coder = model->coder;
    for (uint32_t cell = 0; cell < model->cells; cell++) {
        const int64_t x0 = (int64_t)cell * DENSE_SEGMENT;
        const int64_t x1 = x0 + DENSE_SEGMENT < columns ? x0 + DENSE_SEGMENT : columns;
        if (dense_flat(model, &coder, y, x0, x1, samples, level, decoding))
            continue;
        float *weights = model->weights + (size_t)cell * DENSE_USED_SOLUTIONS(level) * DENSE_MOST_TERMS;
        if (model->solved[cell] != (int32_t)(y / DENSE_SOLVE_ROWS(level))) {
            model->solved[cell] = (int32_t)(y / DENSE_SOLVE_ROWS(level));
            dense_solve_cell(model, cell, weights, level);
        }
        dense_prepare(model, y, x0, weights, level);
        const int64_t at = y * (int64_t)model->stride + x0;
        dense_west west = {model->row0[at - 1], model->row0[at - 2], model->row0[at - 3],
                           model->error0[at - 1], model->error0[at - 2], model->signs[1][x0 - 1]};
        for (int64_t x = x0; x < x1; x++)
            dense_sample(model, &coder, &west, y, x, (int)(x - x0), weights, decoding ? 0 : samples[x], level,
                         decoding);
        dense_train(model, y, x0, (int)(x1 - x0), dense_cell(model, 1, cell, level), level);
    }
    model->coder = coder;
    dense_close_row(model, model->row0, y, 0, 1);
    dense_close_row(model, model->error0, y, 0, 1);
    int8_t *turn = model->signs[0];
    model->signs[0] = model->signs[1];
    model->signs[1] = turn;
    if (level)
        dense_close_solutions(model);
}

DENSE_INLINE void dense_open_frame(dense_model *model, const int level) {
    const int64_t stride = (int64_t)model->stride;
    uint32_t distances[DFK_REFERENCES];
    dense_frame_references(model->header.references, model->frame, distances);
    model->top = (float)(int32_t)(model->header.largest * 32);
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
    const size_t row_of_cells = (size_t)(model->cells + 2 * DENSE_CELL_MARGIN) * DENSE_GROUPS(DENSE_BLOCKS(level));
    for (int i = 0; i < 2; i++)
        memset(model->cell[i], 0, row_of_cells * sizeof(dense_f8));
    if (level)
        for (int i = 0; i < 3 * DENSE_SOLUTIONS; i++)
            memset(model->solution_errors[i / 3][i % 3] - DENSE_MARGIN, 0, bytes);
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

DENSE_INLINE void dense_frame_with(dense_model *model, const uint16_t *samples, const int level,
                                   const int decoding) {
    dense_open_frame(model, level);
    const int64_t rows = model->shape.rows, columns = model->shape.columns;
    for (int64_t y = 0; y < rows; y++) {
        if (y % DENSE_CELL_ROWS == 0)
            dense_fix_windows(model, (uint32_t)(y / DENSE_CELL_ROWS), level);
        dense_row(model, y, decoding ? NULL : samples + y * columns, level, decoding);
        if (y % DENSE_CELL_ROWS == DENSE_CELL_ROWS - 1 || y == rows - 1)
            dense_turn_cells(model, (uint32_t)(y / DENSE_CELL_ROWS), level);
    }
    dense_close_plane(model, model->row0);
    dense_close_plane(model, model->error0);
    model->frame++;
}

/* One copy of the code for each level and direction. */
DENSE_INLINE void dense_frame_any(dense_model *model, const uint16_t *samples) {
    if (model->header.level) {
        if (samples)
            dense_frame_with(model, samples, 1, 0);
        else
            dense_frame_with(model, NULL, 1, 1);
    } else if (samples) {
        dense_frame_with(model, samples, 0, 0);
    } else {
        dense_frame_with(model, NULL, 0, 1);
    }
}

#endif
