/* Coding of one frame, encoder and decoder in one text.  Included by one file for each instruction set. */
#ifndef DICOMFS_DENSE_CORE_H
#define DICOMFS_DENSE_CORE_H

#include "dense_batch.h"
#include "dense_predict.h"

#define BIAS_LIMIT 255
#define LARGEST_BIAS_STEP 2000
#define LARGEST_ERROR 65535

/* What lies left of a sample: two more samples, their errors, and the sign of the nearest one.  Carried along from
 * sample to sample, since everything waits for it and memory gives back late what was just put there. */
typedef struct {
    int32_t w, ww, www;
    int32_t error, farther_error, sign;
} dense_west;

/* What surrounds a sample. */
typedef struct {
    int32_t w, ww, n, nw, ne, nn;
    const uint16_t *behind, *farther; /* the same place in the first two references, or null */
    int64_t stride;
    uint32_t ec, er, energy;   /* errors around in this frame, in the reference, in both */
    uint32_t er_log;           /* half octaves of the second */
    uint32_t q, signs, sides;
    uint32_t compared;
    int32_t raw[DENSE_SOLUTIONS], blend; /* predictions in 1/32 grey level */
    dense_i4 spread;                     /* the last one four times */
    int32_t mu;                          /* the same without bias */
    int32_t predicted;
    uint32_t fraction;
    int scale;
} dense_view;

/* Four steps an octave of value + 1, from 0. */
DENSE_INLINE uint32_t dense_quarter_log(uint32_t value) {
    const uint32_t above = value + 1, zeros = (uint32_t)__builtin_clz(above);
    return (above << zeros >> 29) + 120 - 4 * zeros;
}

DENSE_INLINE int32_t dense_size(int32_t value) { return value < 0 ? -value : value; }

/* The whole part of a number between 0 and top, which 0 stands for where it is none; `spread` gets it four times.
 * Compilers would take both ways between whole numbers and vectors through memory, and everything waits for this. */
DENSE_INLINE int32_t dense_whole_part(float value, float top, dense_i4 *spread) {
#if defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
    const __m128 within = _mm_min_ss(_mm_max_ss(_mm_set_ss(value), _mm_setzero_ps()), _mm_set_ss(top));
    __m128i four = _mm_shuffle_epi32(_mm_cvttps_epi32(within), 0);
    __asm__("" : "+x"(four));
    int32_t whole = _mm_cvtsi128_si32(four);
    __asm__("" : "+r"(whole));
    *spread = (dense_i4)four;
#else
    value = value > 0.0f ? value : 0.0f;
    const int32_t whole = (int32_t)(value < top ? value : top);
    *spread = (dense_i4){whole, whole, whole, whole};
#endif
    return whole;
}

/* A prediction from the weights of a solution, in 1/32 grey level; what is no number counts as 0. */
DENSE_INLINE int32_t dense_predict(const dense_model *model, const dense_west *west, int i, int solution,
                                   const float *weights, dense_i4 *spread) {
    const float base = model->segment.base[i];
    float value = model->segment.partial[solution][i] + weights[TAP_WWW] * ((float)west->www - base);
    value = value + weights[TAP_WW] * ((float)west->ww - base);
    value = value + weights[TAP_W] * ((float)west->w - base);
    return dense_whole_part((value + base) * 32.0f + 0.5f, model->top, spread);
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

DENSE_INLINE void dense_look(dense_model *model, dense_view *view, const dense_west *west, int64_t y, int64_t x, int i,
                             const float *weights, const int level) {
    const int64_t stride = (int64_t)model->stride, at = y * stride + x;
    const uint16_t *here = model->row0 + at;
    view->stride = stride;
    view->behind = model->reference[0] ? model->reference[0] + at : NULL;
    view->farther = model->reference[1] ? model->reference[1] + at : NULL;
    view->w = west->w, view->ww = west->ww, view->n = here[-stride], view->nw = here[-stride - 1];
    view->ne = here[-stride + 1], view->nn = here[-2 * stride];
    for (int s = 0; s < DENSE_USED_SOLUTIONS(level); s++)
        view->raw[s] = dense_predict(model, west, i, s, weights + s * DENSE_MOST_TERMS, &view->spread);
    view->blend = view->raw[0];
    if (level) {
        const int32_t blend = dense_blend(model, view->raw, x);
        view->blend = blend;
        view->spread = (dense_i4){blend, blend, blend, blend};
    }
    view->ec = (uint32_t)(model->segment.above[i] + 3 * west->error + west->farther_error);
    view->er = view->behind ? (uint32_t)model->segment.behind[i] : view->ec;
    view->energy = view->behind ? (2 * view->ec + view->er + 1) / 3 : view->ec;
    view->q = dense_quarter_log(view->energy);
    view->scale = (int)dfk_log2(view->energy | 64) - 6;
    model->segment.energy[i] = (float)(int32_t)view->energy;
    view->signs = (uint32_t)(3 * (west->sign + 1) + model->signs[0][x] + 1);
    view->sides = view->behind ? (uint32_t)model->segment.sides[i] : 0;
    view->er_log = view->behind ? (uint32_t)model->segment.behind_log[i] : dense_quarter_log(view->ec) >> 1;
}

/* Which of seven guesses at a sample lie above the prediction, a bit each: NW, N and NE from `north` on, W, the same
 * sample of the first reference, and where W and N lead to. */
DENSE_INLINE uint32_t dense_compare(const dense_view *view, const uint16_t *north) {
    const int32_t fifth = view->behind ? view->behind[0] : view->ww;
    const int32_t west = 2 * view->w - view->ww, down = 2 * view->n - view->nn;
#if defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
    const __m128i limit = (__m128i)view->spread, none = _mm_setzero_si128();
    const __m128i four = _mm_insert_epi16(_mm_loadl_epi64((const __m128i *)(const void *)north), view->w, 3);
    const __m128i three = _mm_set_epi32(0, down, west, fifth);
    const __m128i above =
        _mm_packs_epi32(_mm_cmpgt_epi32(_mm_slli_epi32(_mm_unpacklo_epi16(four, none), 5), limit),
                        _mm_cmpgt_epi32(_mm_slli_epi32(three, 5), limit));
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(above, none));
#else
    const int32_t raw = view->blend;
    return (uint32_t)(north[0] * 32 > raw) | (uint32_t)(north[1] * 32 > raw) << 1 |
           (uint32_t)(north[2] * 32 > raw) << 2 | (uint32_t)(view->w * 32 > raw) << 3 |
           (uint32_t)(fifth * 32 > raw) << 4 | (uint32_t)(west * 32 > raw) << 5 | (uint32_t)(down * 32 > raw) << 6;
#endif
}

/* Entries of the two tables of mean errors for this sample. */
DENSE_INLINE void dense_find_bias(const dense_model *model, dense_view *view, const uint16_t *north,
                                  dense_bias **bias) {
    const int32_t raw = view->blend;
    view->compared = dense_compare(view, north);
    bias[0] = model->bias[0] + view->compared * (DENSE_ENERGIES / 4) + (view->q >> 2);
    bias[1] = model->bias[1] + (view->signs * (DENSE_ENERGIES / 4) + (view->q >> 2)) * 4 + view->sides;
    const int32_t most = (int32_t)model->header.largest;
    view->mu = dense_clamp(raw + ((bias[0]->mean + bias[1]->mean) >> 9), 0, most * 32);
    view->predicted = (view->mu + 16) >> 5;
    view->fraction = (uint32_t)(view->mu + 16) & 31;
}

/* Moves two entries towards an error, together: numbers 0 and 1 are the means, 2 and 3 the counts. */
DENSE_INLINE void dense_adapt_bias(dense_bias *const *bias, int32_t error) {
    const dense_i4 before = {bias[0]->mean, bias[1]->mean, bias[0]->count, bias[1]->count};
    const dense_f4 away = __builtin_convertvector(error * 256 - before, dense_f4);
    const dense_f4 counts = __builtin_convertvector(before, dense_f4) + RATE_OFFSET;
    const dense_f4 step = away / (dense_f4){counts[2], counts[3], 1.0f, 1.0f};
    const dense_i4 moved = before + __builtin_convertvector(step, dense_i4), counted = before - (before < BIAS_LIMIT);
    *bias[0] = (dense_bias){moved[0], counted[2]};
    *bias[1] = (dense_bias){moved[1], counted[3]};
}

/* A difference as sign and half octaves, 0 to 31. */
DENSE_INLINE uint32_t dense_signed_log(int32_t difference) {
    const uint32_t size = dense_quarter_log((uint32_t)dense_size(difference)) >> 1;
    return (difference < 0 ? 0 : 16) + (size > 15 ? 15 : size);
}

DENSE_INLINE void dense_find_contexts(const dense_model *model, const dense_view *view, uint32_t west_error,
                                      uint32_t north_error, dense_context *context, const int level) {
    const uint32_t q = view->q, half = DENSE_ENERGIES / 2, quarter = half / 2, eighth = half / 4;
    const uint32_t turned =
        (uint32_t)(west_error > north_error) * 2 + (24 * west_error > view->er);
    const uint32_t brightness = dense_quarter_log((uint32_t)view->predicted);
    const int32_t beside = view->behind ? view->behind[0] : view->n;
    uint32_t index[DENSE_CONTEXTS];
    index[0] = ((view->signs * 4 + view->sides) * 4 + turned) * eighth + (q >> 3);
    index[1] = (dense_quarter_log(view->ec) >> 1) * half + view->er_log;
    index[2] = view->fraction / 2 * half + (q >> 1);
    index[3] = dense_signed_log(beside - view->predicted) * half + (q >> 1);
    index[4] = brightness * quarter + (q >> 2);
    if (level) {
        const int32_t activity = dense_size(view->w - view->nw) + dense_size(view->n - view->nw) +
                                 dense_size(view->n - view->ne) + dense_size(view->w - view->ww);
        const int32_t apart = view->raw[0] - view->raw[1];
        const int32_t steps = (int32_t)(dense_quarter_log((uint32_t)dense_size(apart) >> 2) >> 2);
        const uint32_t gap = (uint32_t)(dense_clamp(apart < 0 ? -steps : steps, -4, 4) + 4);
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
    context->batch = model->mixer[0] + NODE_POSITIVE * (DENSE_SETS * DENSE_MIX_LANES(0)) + set * DENSE_BATCH_LANES;
}

/* Codes whether the sample is a spike; two contexts then look at how near it is and where it occurs around. */
DENSE_INLINE int dense_spike(const dense_model *model, dense_coder *coder, const dense_view *view,
                             const dense_context *context, uint32_t which, int32_t actual, const int level,
                             const int decoding) {
    const int32_t spike = (int32_t)model->header.spikes[which], distance = view->predicted - spike;
    const uint16_t *behind = view->behind;
    if (dense_size(distance) > (8 << view->scale) + 1)
        return 0;
    const int32_t step = dense_clamp(distance >> (view->scale > 0 ? view->scale - 1 : 0), -16, 15) + 16;
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
    return dense_mixed_bit(model, coder, &own, NODE_SPIKE + (int)which, actual == spike, level, decoding);
}

/* Codes the residual: sign, high part in unary, low bits.  Returns the sample. */
DENSE_INLINE int32_t dense_residual(dense_model *model, dense_coder *coder, const dense_view *view,
                                    const dense_context *context, int32_t actual, const int level,
                                    const int decoding) {
    const int32_t residual = actual - view->predicted;
    const uint32_t magnitude = (uint32_t)(residual < 0 ? -1 - residual : residual);
    const int scale = view->scale;
    int negative = residual < 0, step = 0;
    if (level)
        negative = dense_mixed_bit(model, coder, context, NODE_SIGN, negative, level, decoding);
    else
        step = dense_code_batch(model, coder, context, &negative, magnitude >> scale, decoding);
    uint32_t coded = (uint32_t)step;
    if (level || step == BATCH_STEPS)
        coded = dense_unary(model, coder, context, magnitude >> scale, negative, step, level, decoding);
    if (scale) {
        int parity_node = 0, turn = 0;
        if (model->header.parity) {
            const int32_t fifth = view->behind ? view->behind[0] : view->ww;
            parity_node = NODE_PARITY + (view->w & 1) + (view->n & 1) + (view->nw & 1) + (view->ne & 1) + (fifth & 1);
            turn = (view->predicted & 1) ^ negative;
        }
        uint32_t *slots = model->low + (view->q * 4 + (coded > 3 ? 3 : coded)) * 4;
        coded = coded << scale |
                dense_low_bits(model, coder, context, magnitude, scale, slots, parity_node, turn, level, decoding);
    }
    if (!decoding)
        return actual;
    /* Only a damaged stream leaves the range. */
    const int32_t size = (int32_t)(coded > 65536 ? 65536 : coded);
    actual = negative ? view->predicted - 1 - size : view->predicted + size;
    return dense_clamp(actual, 0, (int32_t)model->header.largest);
}

/* Codes the sample at x, the one at place i of its segment. */
DENSE_INLINE void dense_sample(dense_model *model, dense_coder *coder, dense_west *west, int64_t y, int64_t x, int i,
                               const float *weights, int32_t actual, const int level, const int decoding) {
    dense_view view;
    dense_bias *bias[2];
    dense_context context;
    const int64_t at = y * (int64_t)model->stride + x;
    dense_look(model, &view, west, y, x, i, weights, level);
    dense_find_bias(model, &view, model->row0 + at - view.stride - 1, bias);
    dense_find_contexts(model, &view, (uint32_t)west->error, model->error0[at - view.stride], &context, level);
    int spiked = 0;
    for (uint32_t s = 0; s < model->header.spike_count && !spiked; s++) {
        spiked = dense_spike(model, coder, &view, &context, s, actual, level, decoding);
        if (spiked)
            actual = (int32_t)model->header.spikes[s];
    }
    if (!spiked)
        actual = dense_residual(model, coder, &view, &context, actual, level, decoding);
    model->row0[at] = (uint16_t)actual;
    const int32_t error = actual * 32 - view.mu, size = (dense_size(error) + 4) >> 3;
    *west = (dense_west){actual, west->w, west->ww, size > LARGEST_ERROR ? LARGEST_ERROR : size, west->error,
                         (error > 8) - (error < -8)};
    model->error0[at] = (uint16_t)west->error;
    model->signs[1][x] = (int8_t)west->sign;
    const int32_t step = dense_clamp(actual * 32 - view.blend, -LARGEST_BIAS_STEP, LARGEST_BIAS_STEP);
    dense_adapt_bias(bias, step);
    if (level)
        for (int s = 0; s < DENSE_SOLUTIONS; s++) {
            const int32_t far = dense_size(actual * 32 - view.raw[s]);
            model->solution_errors[s][0][x] = (uint16_t)(far > LARGEST_ERROR ? LARGEST_ERROR : far);
        }
}

#endif
