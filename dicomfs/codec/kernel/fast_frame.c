/* Frames with padding of the fast stream, and which samples taps name. */
#include "fast_rows.h"

#include <string.h>

fast_geometry fast_geometry_of(const dfk_shape *shape)
{
    uint32_t stride = (shape->columns + FAST_CHUNK - 1) / FAST_CHUNK * FAST_CHUNK + 2 * FAST_SIDE;
    fast_geometry geometry = {shape->frames, shape->rows, shape->columns, stride,
                              (uint64_t)stride * (shape->rows + FAST_ABOVE + FAST_BELOW)};
    return geometry;
}

fast_frame fast_frame_take(dfk_arena *arena, const fast_geometry *geometry)
{
    uint64_t origin = (uint64_t)FAST_ABOVE * geometry->stride + FAST_SIDE;
    int16_t *sample = dfk_take(arena, geometry->plane, sizeof *sample);
    uint16_t *error = dfk_take(arena, geometry->plane, sizeof *error);
    fast_frame frame = {sample ? sample + origin : NULL, error ? error + origin : NULL};
    return frame;
}

void fast_pad_above(const fast_geometry *g, fast_frame frame, const fast_frame *first)
{
    const size_t stride = g->stride;
    int16_t *sample = frame.sample - FAST_ABOVE * stride - FAST_SIDE;
    uint16_t *error = frame.error - FAST_ABOVE * stride - FAST_SIDE;
    for (size_t i = 0; i < stride; i++) {
        const size_t x = i < FAST_SIDE ? 0 : i - FAST_SIDE, from = x < g->columns ? x : g->columns - 1;
        sample[i] = first ? first->sample[from] : 0;
        error[i] = first ? first->error[from] : 0;
    }
    for (size_t row = 1; row < FAST_ABOVE; row++) {
        memcpy(sample + row * stride, sample, stride * sizeof *sample);
        memcpy(error + row * stride, error, stride * sizeof *error);
    }
}

void fast_pad_left(const fast_geometry *g, fast_frame frame, uint32_t row)
{
    int16_t *at = frame.sample + (ptrdiff_t)row * g->stride;
    fast_pad_row_left(at, *(at - g->stride));
}

void fast_pad_right(const fast_geometry *g, fast_frame frame, uint32_t row)
{
    fast_pad_row_right(frame.sample + (size_t)row * g->stride, g->columns, g->stride - FAST_SIDE);
}

void fast_pad_errors(const fast_geometry *g, fast_frame frame, uint32_t row)
{
    uint16_t *at = frame.error + (size_t)row * g->stride, last = at[g->columns - 1];
    for (int i = 1; i <= FAST_SIDE; i++)
        at[-i] = at[0];
    for (uint32_t x = g->columns; x < g->stride - FAST_SIDE; x++)
        at[x] = last;
}

void fast_pad_below(const fast_geometry *g, fast_frame frame)
{
    size_t stride = g->stride;
    int16_t *sample = frame.sample + (g->rows - 1) * stride - FAST_SIDE;
    uint16_t *error = frame.error + (g->rows - 1) * stride - FAST_SIDE;
    for (size_t row = 1; row <= FAST_BELOW; row++) {
        memcpy(sample + row * stride, sample, stride * sizeof *sample);
        memcpy(error + row * stride, error, stride * sizeof *error);
    }
}
