/* Coding of one frame, encoder and decoder in one text.  Included by one file for each instruction set. */
#ifndef DICOMFS_DENSE_CORE_H
#define DICOMFS_DENSE_CORE_H

#include "dense_entropy.h"
#include "dense_predict.h"

#define BIAS_LIMIT 255
#define LARGEST_BIAS_STEP 2000
#define LARGEST_ERROR 65535

/* What surrounds a sample. */
typedef struct {
    int32_t w, ww, n, nw, ne, nn;
    const uint16_t *behind, *farther; /* the same place in the first two references, or null */
    int64_t stride;
    uint32_t ec, er, energy;   /* errors around in this frame, in the reference, in both */
    uint32_t q, signs, sides;
    uint32_t compared;
    int32_t raw[DENSE_SOLUTIONS], blend; /* predictions in 1/32 grey level */
    int32_t mu;                          /* the same without bias */
    int32_t predicted, fraction;
    int scale;
} dense_view;

/* Four steps an octave of value + 1, from 0. */
DENSE_INLINE uint32_t dense_quarter_log(uint32_t value) {
    const float number = (float)(int32_t)(value + 1);
    uint32_t word;
    memcpy(&word, &number, sizeof word);
    return (word >> 21) - (127u << 2);
}

DENSE_INLINE int32_t dense_size(int32_t value) { return value < 0 ? -value : value; }

/* A prediction from the weights of a solution, in 1/32 grey level; what is no number counts as 0. */
DENSE_INLINE int32_t dense_predict(const dense_model *model, const uint16_t *here, int i, int solution,
                                   const float *weights) {
    const float base = model->segment.base[i], top = (float)(int32_t)(model->header.largest * 32);
    float value = model->segment.partial[solution][i] + weights[TAP_WWW] * ((float)here[-3] - base);
    value = value + weights[TAP_WW] * ((float)here[-2] - base);
    value = value + weights[TAP_W] * ((float)here[-1] - base);
    value = (value + base) * 32.0f + 0.5f;
    if (!(value > 0.0f))
        value = 0.0f;
    if (value > top)
        value = top;
    return (int32_t)value;
}

/* Blends the solutions by how well each did around the sample. */
DENSE_INLINE int32_t dense_blend(const dense_model *model, const int32_t *raw, int64_t x) {
    float weight_sum = 0.0f, sum = 0.0f;
    for (int s = 0; s < DENSE_SOLUTIONS; s++) {
        const uint16_t *here = model->solution_errors[s][0] + x, *north = model->solution_errors[s][1] + x;
        const int32_t around = 8 + 2 * (here[-1] + north[0]) + north[-1] + north[1] + here[-2] +
                               model->solution_errors[s][2][x];
        const float distance = (float)around, weight = 1.0f / (distance * distance);
        weight_sum = weight_sum + weight;
        sum = sum + weight * (float)raw[s];
    }
    return (int32_t)(sum / weight_sum + 0.5f);
}

DENSE_INLINE void dense_look(dense_model *model, dense_view *view, int64_t y, int64_t x, int i, const float *weights,
                             const int level) {
    const int64_t stride = (int64_t)model->stride, at = y * stride + x;
    const uint16_t *here = model->row0 + at, *error = model->error0 + at;
    view->stride = stride;
    view->behind = model->reference[0] ? model->reference[0] + at : NULL;
    view->farther = model->reference[1] ? model->reference[1] + at : NULL;
    view->w = here[-1], view->ww = here[-2], view->n = here[-stride], view->nw = here[-stride - 1];
    view->ne = here[-stride + 1], view->nn = here[-2 * stride];
    for (int s = 0; s < DENSE_USED_SOLUTIONS(level); s++)
        view->raw[s] = dense_predict(model, here, i, s, weights + s * DENSE_MOST_TERMS);
    view->blend = level ? dense_blend(model, view->raw, x) : view->raw[0];
    view->ec = (uint32_t)(model->segment.above[i] + 3 * error[-1] + error[-2]);
    view->er = view->behind ? (uint32_t)model->segment.behind[i] : view->ec;
    view->energy = view->behind ? (2 * view->ec + view->er + 1) / 3 : view->ec;
    view->q = dense_quarter_log(view->energy);
    view->scale = view->energy >= 128 ? (int)dfk_log2(view->energy) - 6 : 0;
    model->segment.energy[i] = (float)(int32_t)view->energy;
    view->signs = (uint32_t)(3 * (model->signs[1][x - 1] + 1) + model->signs[0][x] + 1);
    view->sides = view->behind ? (uint32_t)(view->behind[-1] < view->behind[0]) * 2 +
                                     (uint32_t)(view->behind[1] < view->behind[0]) : 0;
}

/* Entries of the two tables of mean errors for this sample. */
DENSE_INLINE void dense_find_bias(const dense_model *model, dense_view *view, dense_bias **bias) {
    const int32_t raw = view->blend, fifth = view->behind ? view->behind[0] : view->ww;
    view->compared = (uint32_t)(view->w * 32 > raw) | (uint32_t)(view->n * 32 > raw) << 1 |
                     (uint32_t)(view->nw * 32 > raw) << 2 | (uint32_t)(view->ne * 32 > raw) << 3 |
                     (uint32_t)(fifth * 32 > raw) << 4 | (uint32_t)((2 * view->w - view->ww) * 32 > raw) << 5 |
                     (uint32_t)((2 * view->n - view->nn) * 32 > raw) << 6;
    bias[0] = model->bias[0] + view->compared * (DENSE_ENERGIES / 4) + (view->q >> 2);
    bias[1] = model->bias[1] + (view->signs * (DENSE_ENERGIES / 4) + (view->q >> 2)) * 4 + view->sides;
    const int32_t most = (int32_t)model->header.largest;
    view->mu = dfk_clamp(raw + ((bias[0]->mean + bias[1]->mean) >> 9), 0, most * 32);
    view->predicted = (view->mu + 16) >> 5;
    view->fraction = view->mu - view->predicted * 32 + 16;
}

DENSE_INLINE void dense_adapt_bias(dense_bias *bias, int32_t error) {
    bias->mean += (int32_t)((float)(error * 256 - bias->mean) / ((float)bias->count + RATE_OFFSET));
    bias->count += bias->count < BIAS_LIMIT;
}

/* A difference as sign and half octaves, 0 to 31. */
DENSE_INLINE uint32_t dense_signed_log(int32_t difference) {
    const uint32_t size = dense_quarter_log((uint32_t)dense_size(difference)) >> 1;
    return (difference < 0 ? 0 : 16) + (size > 15 ? 15 : size);
}

DENSE_INLINE void dense_find_contexts(const dense_model *model, const dense_view *view, const uint16_t *error,
                                      dense_context *context, const int level) {
    const uint32_t q = view->q, half = DENSE_ENERGIES / 2, quarter = half / 2, eighth = half / 4;
    const uint32_t fraction = (uint32_t)(view->fraction > 31 ? 31 : view->fraction);
    const uint32_t turned =
        (uint32_t)(error[-1] > error[-view->stride]) * 2 + (2u * error[-1] > view->er / 12);
    const uint32_t brightness = dense_quarter_log((uint32_t)view->predicted);
    const int32_t beside = view->behind ? view->behind[0] : view->n;
    uint32_t index[DENSE_CONTEXTS];
    index[0] = ((view->signs * 4 + view->sides) * 4 + turned) * eighth + (q >> 3);
    index[1] = (dense_quarter_log(view->ec) >> 1) * half + (dense_quarter_log(view->er) >> 1);
    index[2] = fraction / 2 * half + (q >> 1);
    index[3] = dense_signed_log(beside - view->predicted) * half + (q >> 1);
    index[4] = brightness * quarter + (q >> 2);
    if (level) {
        const int32_t activity = dense_size(view->w - view->nw) + dense_size(view->n - view->nw) +
                                 dense_size(view->n - view->ne) + dense_size(view->w - view->ww);
        const int32_t apart = view->raw[0] - view->raw[1];
        const int32_t steps = (int32_t)(dense_quarter_log((uint32_t)dense_size(apart) >> 2) >> 2);
        const uint32_t gap = (uint32_t)(dfk_clamp(apart < 0 ? -steps : steps, -4, 4) + 4);
        index[5] = view->compared * eighth + (q >> 3);
        index[6] = (dense_quarter_log((uint32_t)activity) >> 1) * half + (q >> 1);
        index[7] = (view->signs * 9 + gap) * quarter + (q >> 2);
        context->mixer[1] = model->mixer[1] + (brightness >> 2) * DENSE_MIX_LANES(1);
        context->refine = model->refine + (q >> 1) * DENSE_REFINE_STEPS;
    }
    for (int i = 0; i < DENSE_USED_CONTEXTS(level); i++)
        context->slots[i] = model->slots[i] + index[i] * NODES;
    const uint32_t set = q / 3 > DENSE_SETS - 1 ? DENSE_SETS - 1 : q / 3;
    context->mixer[0] = model->mixer[0] + set * DENSE_MIX_LANES(level);
}

/* Codes whether the sample is a spike; two contexts then look at how near it is and where it occurs around. */
DENSE_INLINE int dense_spike(dense_model *model, const dense_view *view, const dense_context *context, uint32_t which,
                             int32_t actual, const int level, const int decoding) {
    const int32_t spike = (int32_t)model->header.spikes[which], distance = view->predicted - spike;
    const uint16_t *behind = view->behind;
    if (dense_size(distance) > (8 << view->scale) + 1)
        return 0;
    const int32_t step = dfk_clamp(distance >> (view->scale > 0 ? view->scale - 1 : 0), -16, 15) + 16;
    const uint32_t near = (uint32_t)((view->w == spike) + (view->n == spike) + (view->ne == spike) +
                                     (view->nw == spike) + (view->ww == spike));
    const uint32_t there = behind ? behind[0] == spike : view->nn == spike;
    const uint32_t around = behind ? (uint32_t)((behind[1] == spike) + (behind[-1] == spike) +
                                                (behind[view->stride] == spike) + (behind[-view->stride] == spike))
                                   : 0;
    const uint32_t back = view->farther ? view->farther[0] == spike : 0;
    dense_context own = *context;
    own.slots[1] = model->slots[1] + ((near * 2 + there) * (DENSE_ENERGIES / 2) + around * 2 + back) * NODES;
    own.slots[2] = model->slots[2] + ((uint32_t)step / 2 * (DENSE_ENERGIES / 2) + (view->q >> 1)) * NODES;
    return dense_mixed_bit(model, &own, NODE_SPIKE + (int)which, actual == spike, level, decoding);
}

/* Codes the residual: sign, high part in unary, low bits.  Returns the sample. */
DENSE_INLINE int32_t dense_residual(dense_model *model, const dense_view *view, const dense_context *context,
                                    int32_t actual, const int level, const int decoding) {
    const int32_t residual = actual - view->predicted;
    const int negative = dense_mixed_bit(model, context, NODE_SIGN, residual < 0, level, decoding);
    const uint32_t magnitude = (uint32_t)(negative ? -1 - residual : residual);
    const int scale = view->scale;
    uint32_t coded = dense_unary(model, context, magnitude >> scale, negative, level, decoding);
    if (scale) {
        int parity_node = 0, turn = 0;
        if (model->header.parity) {
            const int32_t fifth = view->behind ? view->behind[0] : view->ww;
            parity_node = NODE_PARITY + (view->w & 1) + (view->n & 1) + (view->nw & 1) + (view->ne & 1) + (fifth & 1);
            turn = (view->predicted & 1) ^ negative;
        }
        uint32_t *slots = model->low + (view->q * 4 + (coded > 3 ? 3 : coded)) * 4;
        coded = coded << scale |
                dense_low_bits(model, context, magnitude, scale, slots, parity_node, turn, level, decoding);
    }
    if (!decoding)
        return actual;
    /* Only a damaged stream leaves the range. */
    const int32_t size = (int32_t)(coded > 65536 ? 65536 : coded);
    actual = negative ? view->predicted - 1 - size : view->predicted + size;
    return dfk_clamp(actual, 0, (int32_t)model->header.largest);
}

/* Codes the sample at x, the one at place i of its segment. */
DENSE_INLINE void dense_sample(dense_model *model, int64_t y, int64_t x, int i, const float *weights, int32_t actual,
                               const int level, const int decoding) {
    dense_view view;
    dense_bias *bias[2];
    dense_context context;
    const int64_t at = y * (int64_t)model->stride + x;
    dense_look(model, &view, y, x, i, weights, level);
    dense_find_bias(model, &view, bias);
    dense_find_contexts(model, &view, model->error0 + at, &context, level);
    int spiked = 0;
    for (uint32_t s = 0; s < model->header.spike_count && !spiked; s++) {
        spiked = dense_spike(model, &view, &context, s, actual, level, decoding);
        if (spiked)
            actual = (int32_t)model->header.spikes[s];
    }
    if (!spiked)
        actual = dense_residual(model, &view, &context, actual, level, decoding);
    model->row0[at] = (uint16_t)actual;
    const int32_t error = actual * 32 - view.mu, size = (dense_size(error) + 4) >> 3;
    model->error0[at] = (uint16_t)(size > LARGEST_ERROR ? LARGEST_ERROR : size);
    model->signs[1][x] = (int8_t)((error > 8) - (error < -8));
    const int32_t step = dfk_clamp(actual * 32 - view.blend, -LARGEST_BIAS_STEP, LARGEST_BIAS_STEP);
    dense_adapt_bias(bias[0], step);
    dense_adapt_bias(bias[1], step);
    if (level)
        for (int s = 0; s < DENSE_SOLUTIONS; s++) {
            const int32_t far = dense_size(actual * 32 - view.raw[s]);
            model->solution_errors[s][0][x] = (uint16_t)(far > LARGEST_ERROR ? LARGEST_ERROR : far);
        }
}

#endif
