/* Values of the fast stream: from samples and classes to what the entropy coder writes. */
#include "fast_encoder.h"

#include <stdlib.h>
#include <string.h>

#define WORTH_A_SPIKE 0.996

typedef struct {
    fast_encoder *e;
    const fast_stage *stage;
    const fast_frame *frames;
    uint32_t row;
    int32_t spike;
    const uint8_t *classes; /* of the row's blocks */
    uint32_t *value;
    uint8_t *context;
} row_work;

static void copied(const row_work *w, uint32_t first, uint32_t last)
{
    uint16_t *error = w->frames[0].error + (size_t)w->row * w->e->geometry.stride;
    memset(w->context + first, FAST_SKIPPED, last - first);
    memset(error + first, 0, (last - first) * sizeof *error);
}

/* Values of up to FAST_CHUNK samples of one class. */
static void predicted(const row_work *w, const fast_neighbours *around, uint32_t class, uint32_t first, uint32_t last)
{
    fast_encoder *e = w->e;
    const fast_plan *plan = &e->plan;
    size_t at = (size_t)w->row * e->geometry.stride;
    const int16_t *sample = w->frames[0].sample + at;
    uint16_t *error = w->frames[0].error + at;
    int32_t prediction[FAST_CHUNK];
    e->rows->predict(around, w->stage->weight[class], w->stage->offset[class], plan->fraction, first, prediction);
    for (uint32_t x = first; x < last; x++) {
        int32_t residual = sample[x] - prediction[x - first];
        uint32_t size = (uint32_t)abs(residual), z = residual < 0 ? 2 * size - 1 : 2 * size, context = e->row_context[x];
        context = (uint32_t)((int32_t)context + w->stage->shift[class]);
        w->context[x] = (uint8_t)context;
        if (plan->spiked && sample[x] == w->spike) {
            w->value[x] = 0;
            error[x] = 1 << FAST_SPIKE_BIT;
            e->tokens[context][FAST_TOKENS]++;
            continue;
        }
        size >>= plan->error_shift;
        error[x] = (uint16_t)(size < FAST_ERROR_LIMIT ? size : FAST_ERROR_LIMIT);
        e->tokens[context][fast_token_of(z)]++;
        e->total[context] += z;
        w->value[x] = z + plan->spiked;
    }
}

static void code_row(const row_work *w, uint32_t stage)
{
    fast_encoder *e = w->e;
    uint32_t stride = e->geometry.stride, size = 1u << e->plan.block_log;
    size_t at = (size_t)w->row * stride;
    fast_neighbours around;
    fast_neighbours_at(w->stage, 0, w->frames, stride, w->row, &around);
    e->rows->contexts(e->plan.spiked, w->frames[0].error + at, stage ? w->frames[1].error + at : NULL, stride, e->shape.columns,
                      e->row_context);
    for (uint32_t first = 0, b = 0; first < e->shape.columns; first += size, b++) {
        uint32_t last = first + size < e->shape.columns ? first + size : e->shape.columns;
        if (w->classes[b] >= FAST_CLASSES)
            copied(w, first, last);
        else
            predicted(w, &around, w->classes[b], first, last);
    }
    fast_pad_errors(&e->geometry, w->frames[0], w->row);
}

void fast_code_values(fast_encoder *e, uint32_t count)
{
    uint32_t across = fast_blocks(e->shape.columns, e->plan.block_log);
    uint32_t down = fast_blocks(e->shape.rows, e->plan.block_log);
    memset(e->tokens, 0, sizeof e->tokens);
    memset(e->total, 0, sizeof e->total);
    for (uint32_t frame = 0; frame < count; frame++) {
        uint32_t distance[DFK_REFERENCES], stage = fast_stage_of(&e->plan, frame, distance);
        fast_frame frames[FAST_STAGES] = {e->frames[frame]};
        for (uint32_t i = 0; i < stage; i++)
            frames[1 + i] = e->frames[frame - distance[i]];
        fast_pad_above(&e->geometry, frames[0], stage ? &frames[1] : NULL);
        for (uint32_t row = 0; row < e->shape.rows; row++) {
            size_t at = ((size_t)frame * e->shape.rows + row) * e->shape.columns;
            row_work w = {e, &e->plan.stage[stage], frames, row, (int32_t)e->plan.spike - (1 << (e->plan.bits - 1)),
                          e->classes + ((size_t)frame * down + (row >> e->plan.block_log)) * across,
                          e->value + at, e->context + at};
            code_row(&w, stage);
        }
        fast_pad_below(&e->geometry, frames[0]);
    }
}

int fast_choose_spike(fast_encoder *e)
{
    /* The commonest sample outside of copied blocks. */
    const uint32_t half = 1u << (e->plan.bits - 1), size = e->plan.block_log;
    uint32_t across = fast_blocks(e->shape.columns, size), down = fast_blocks(e->shape.rows, size);
    memset(e->histogram, 0, sizeof *e->histogram << 16);
    uint64_t total = 0;
    for (uint32_t frame = 0; frame < e->shape.frames; frame++)
        for (uint32_t row = 0; row < e->shape.rows; row++) {
            const int16_t *sample = e->frames[frame].sample + (size_t)row * e->geometry.stride;
            const uint8_t *class = e->classes + ((size_t)frame * down + (row >> size)) * across;
            for (uint32_t x = 0; x < e->shape.columns; x++)
                if (class[x >> size] < FAST_CLASSES) {
                    e->histogram[(uint32_t)(sample[x] + (int32_t)half)]++;
                    total++;
                }
        }
    uint32_t best = 0;
    for (uint32_t v = 1; v < 2 * half; v++)
        if (e->histogram[v] > e->histogram[best])
            best = v;
    if (e->histogram[best] * UINT64_C(100) < total)
        return 0;
    double plain = fast_token_bits(e);
    e->plan.spiked = 1;
    e->plan.spike = best;
    fast_code_values(e, e->shape.frames);
    e->plan.spiked = fast_token_bits(e) < plain * WORTH_A_SPIKE;
    return (int)e->plan.spiked;
}
