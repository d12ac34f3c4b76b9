/* Mixed binary decisions and the code of one residual. */
#ifndef DICOMFS_DENSE_ENTROPY_H
#define DICOMFS_DENSE_ENTROPY_H

#include "dense_model.h"

#define MIX_SHIFT 16
#define SLOT_LIMIT 400
#define SIMPLE_LIMIT 255
#define CONSTANT_INPUT 256
#define LEAST_PROBABILITY 24
#define MOST_PROBABILITY 65512

/* Where the decisions of one sample find what they adapt. */
typedef struct {
    uint32_t *slots[DENSE_CONTEXTS];
    int32_t *mixer[2]; /* of node 0 */
    uint32_t *refine;  /* of node 0 */
} dense_context;

DENSE_INLINE void dense_adapt(uint32_t *slot, int bit, const int32_t *rate, const uint32_t limit) {
    const uint32_t value = *slot, count = value & 1023;
    const int32_t error = (bit ? 4194303 : 0) - (int32_t)(value >> 10);
    const uint32_t moved = (value >> 10) + (uint32_t)(int32_t)(((int64_t)error * rate[count]) >> 16);
    *slot = moved << 10 | (count + (count < limit));
}

/* Codes a bit by the slot's own probability. */
DENSE_INLINE int dense_simple_bit(dense_model *model, uint32_t *slot, int bit, const int decoding) {
    const uint32_t probability = (uint32_t)dfk_clamp((int32_t)(*slot >> 16), LEAST_PROBABILITY, MOST_PROBABILITY);
    bit = dense_code(&model->coder, bit, probability, decoding);
    dense_adapt(slot, bit, model->rate, SIMPLE_LIMIT);
    return bit;
}

/* Weighs the inputs: the logarithm of the odds of a one, in 1/256, within 2047. */
DENSE_INLINE int32_t dense_mix(const int32_t *weights, const int32_t *inputs, const int count) {
    int64_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += (int64_t)weights[i] * inputs[i];
    sum >>= 16;
    return (int32_t)(sum < -2047 ? -2047 : sum > 2047 ? 2047 : sum);
}

/* Sums wrap: no stream makes weights so large, but a hostile one may. */
DENSE_INLINE void dense_learn(int32_t *weights, const int32_t *inputs, int32_t error, const int count) {
    for (int i = 0; i < count; i++)
        weights[i] =
            (int32_t)((uint32_t)weights[i] + (uint32_t)((inputs[i] * error + (1 << (MIX_SHIFT - 1))) >> MIX_SHIFT));
}

/* Codes a bit by what the contexts of the sample say together; level 1 asks two mixers and refines the result. */
DENSE_INLINE int dense_mixed_bit(dense_model *model, const dense_context *context, int node, int bit, const int level,
                                 const int decoding) {
    const int count = DENSE_INPUTS(level);
    int32_t inputs[DENSE_INPUTS(1)], mixed[2], single[2];
    int32_t *weights[2];
    for (int i = 0; i < count - 1; i++)
        inputs[i] = model->stretch[context->slots[i][node] >> 20];
    inputs[count - 1] = CONSTANT_INPUT;
    for (int i = 0; i < DENSE_MIXERS(level); i++) {
        weights[i] = context->mixer[i] + node * (DENSE_SETS * count);
        mixed[i] = dense_mix(weights[i], inputs, count);
        single[i] = model->squash[mixed[i] + 2048];
    }
    int32_t probability = single[0];
    uint32_t *refined = NULL;
    if (level) {
        const int32_t both = (mixed[0] + mixed[1]) / 2 + 2048, part = both & 127;
        refined = context->refine + node * (DENSE_ENERGIES / 2 * DENSE_REFINE_STEPS) + (both >> 7);
        const int32_t found = (int32_t)(((refined[0] >> 4) * (uint32_t)(128 - part) + (refined[1] >> 4) * (uint32_t)part) >> 7);
        probability = (model->squash[both] + found + 1) >> 1;
        refined += part >> 6;
    }
    bit = dense_code(&model->coder, bit, (uint32_t)dfk_clamp(probability, LEAST_PROBABILITY, MOST_PROBABILITY),
                     decoding);
    for (int i = 0; i < DENSE_MIXERS(level); i++)
        dense_learn(weights[i], inputs, (bit ? 65535 : 0) - single[i], count);
    for (int i = 0; i < count - 1; i++)
        dense_adapt(&context->slots[i][node], bit, model->rate, SLOT_LIMIT);
    if (level)
        *refined = bit ? *refined + ((65535 * 16 - *refined) >> 6) : *refined - (*refined >> 6);
    return bit;
}

/* Codes value, 0 or more, as Elias gamma of value + 1 with adaptive length. */
static inline uint32_t dense_escape(dense_model *model, uint32_t value, const int decoding) {
    int length = 0;
    const int actual = decoding ? 0 : (int)dfk_log2(value + 1);
    while (length < DENSE_ESCAPES - 1 &&
           dense_simple_bit(model, &model->escapes[length], length < actual, decoding))
        length++;
    return (1u << length | dense_code_plain(&model->coder, value + 1, length, decoding)) - 1;
}

DENSE_INLINE int dense_step_node(int step, int negative) {
    if (step < SIGNED_STEPS)
        return (negative ? NODE_NEGATIVE : NODE_POSITIVE) + step;
    return NODE_UNARY - SIGNED_STEPS + step;
}

/* Codes magnitude >> scale in unary. */
DENSE_INLINE uint32_t dense_unary(dense_model *model, const dense_context *context, uint32_t value, int negative,
                                  const int level, const int decoding) {
    int step = 0;
    while (step < UNARY_STEPS) {
        if (!dense_mixed_bit(model, context, dense_step_node(step, negative), value > (uint32_t)step, level,
                             decoding))
            return (uint32_t)step;
        step++;
    }
    return UNARY_STEPS + dense_escape(model, value - UNARY_STEPS, decoding);
}

/* Codes the scale lowest bits: the first two by what is known, others as they are, the last one perhaps as the
 * parity of the sample (turn tells how to get from one to the other). */
DENSE_INLINE uint32_t dense_low_bits(dense_model *model, const dense_context *context, uint32_t value, int scale,
                                     uint32_t *slots, int parity_node, int turn, const int level, const int decoding) {
    uint32_t low = 0;
    int left = scale;
    for (int i = 0; i < 2 && left > (parity_node != 0); i++) {
        left--;
        const uint32_t place = i ? 1 + (low & 1) : 0;
        low = low << 1 | (uint32_t)dense_simple_bit(model, slots + place, (int)(value >> left & 1), decoding);
    }
    const int plain = left - (parity_node != 0);
    if (plain > 0) {
        low = low << plain | dense_code_plain(&model->coder, value >> (left - plain), plain, decoding);
        left -= plain;
    }
    if (left > 0)
        low = low << 1 |
              (uint32_t)(dense_mixed_bit(model, context, parity_node, (int)(value & 1) ^ turn, level, decoding) ^ turn);
    return low;
}

#endif
