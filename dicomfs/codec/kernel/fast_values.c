/* Values of the fast stream: from samples and classes to what the entropy coder writes. */
#include "fast_encoder.h"

#include <string.h>

#define WORTH_A_SPIKE 0.996

/* Contexts of the samples of one class in a row, from `first` on; what is the spike gets marked. */
static void predicted(fast_encoder *e, uint32_t shift, const int16_t *sample, uint32_t *value, uint8_t *context,
                      uint16_t *error, uint32_t first, uint32_t last)
{
    const fast_plan *plan = &e->plan;
    const int32_t spike = (int32_t)plan->spike - (1 << (plan->bits - 1));
    const uint32_t spiked = plan->spiked, error_shift = plan->error_shift;
    for (uint32_t x = first; x < last; x++) {
        const uint32_t z = value[x] & ~FAST_SPIKE_VALUE, here = e->row_context[x] + shift;
        context[x] = (uint8_t)here;
        value[x] = z;
        if (spiked && sample[x] == spike) {
            value[x] = z | FAST_SPIKE_VALUE;
            error[x] = 1 << FAST_SPIKE_BIT;
            e->tokens[here][FAST_TOKENS]++;
            continue;
        }
        const uint32_t size = (z + 1) >> 1 >> error_shift;
        error[x] = (uint16_t)(size < FAST_ERROR_LIMIT ? size : FAST_ERROR_LIMIT);
        e->tokens[here][fast_token_of(z)]++;
        e->total[here] += z;
    }
}

static void code_row(fast_encoder *e, const fast_frame *frames, uint32_t stage, uint32_t frame, uint32_t row)
{
    const uint32_t stride = e->geometry.stride, columns = e->shape.columns;
    const uint32_t across = fast_blocks(columns, FAST_BLOCK_LOG), down = fast_blocks(e->shape.rows, FAST_BLOCK_LOG);
    const uint8_t *classes = e->classes + ((size_t)frame * down + (row >> FAST_BLOCK_LOG)) * across;
    const size_t at = (size_t)row * stride, out = ((size_t)frame * e->shape.rows + row) * columns;
    uint16_t *error = frames[0].error + at;
    e->rows->contexts(e->plan.spiked, error, stage ? frames[1].error + at : NULL, stride, columns, e->row_context);
    for (uint32_t first = 0; first < columns; first += FAST_OCTET) {
        const uint32_t last = first + FAST_OCTET < columns ? first + FAST_OCTET : columns;
        const uint32_t class = classes[first >> FAST_BLOCK_LOG];
        if (class >= FAST_CLASSES) {
            memset(e->context + out + first, FAST_SKIPPED, last - first);
            memset(error + first, 0, (last - first) * sizeof *error);
        } else {
            predicted(e, (uint32_t)(int32_t)e->plan.stage[stage].shift[class], frames[0].sample + at, e->value + out,
                      e->context + out, error, first, last);
        }
    }
    fast_pad_errors(&e->geometry, frames[0], row);
}

void fast_code_values(fast_encoder *e, uint32_t frame_count)
{
    memset(e->tokens, 0, sizeof e->tokens);
    memset(e->total, 0, sizeof e->total);
    for (uint32_t frame = 0; frame < frame_count; frame++) {
        uint32_t distance[DFK_REFERENCES], stage = fast_stage_of(&e->plan, frame, distance);
        fast_frame frames[FAST_STAGES] = {e->frames[frame]};
        for (uint32_t i = 0; i < stage; i++)
            frames[1 + i] = e->frames[frame - distance[i]];
        fast_pad_above(&e->geometry, frames[0], stage ? &frames[1] : NULL);
        for (uint32_t row = 0; row < e->shape.rows; row++)
            code_row(e, frames, stage, frame, row);
        fast_pad_below(&e->geometry, frames[0]);
    }
}

void fast_choose_spike(fast_encoder *e, uint32_t frames)
{
    /* The commonest sample outside of copied blocks. */
    const uint32_t half = 1u << (e->plan.bits - 1), size = e->plan.block_log;
    uint32_t across = fast_blocks(e->shape.columns, size), down = fast_blocks(e->shape.rows, size);
    memset(e->histogram, 0, sizeof *e->histogram << 16);
    uint64_t total = 0;
    for (uint32_t frame = 0; frame < frames; frame++)
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
        return;
    double plain = fast_token_bits(e);
    e->plan.spiked = 1;
    e->plan.spike = best;
    fast_code_values(e, frames);
    e->plan.spiked = fast_token_bits(e) < plain * WORTH_A_SPIKE;
}
