/* Mixed binary decisions and the code of one residual. */
#ifndef DICOMFS_DENSE_ENTROPY_H
#define DICOMFS_DENSE_ENTROPY_H

#include "dense_model.h"

#define MIX_SHIFT 14
#define ERROR_SHIFT 3
#define LARGEST_SLOT 4194303
#define SLOT_LIMIT 400
#define RATE_OFFSET 2.4f
#define SIMPLE_LIMIT 255
#define CONSTANT_INPUT 256
#define LEAST_PROBABILITY 24
#define MOST_PROBABILITY 65512
/* Logarithms of odds, in 1/256: the largest that is found, and one for which squash gives MOST_PROBABILITY, as it gives
 * LEAST_PROBABILITY for its opposite. */
#define LARGEST_ODDS 2047
#define CODED_ODDS 2030

/* Where the decisions of one sample find what they adapt. */
typedef struct {
    uint32_t *slots[DENSE_CONTEXTS];
    int16_t *mixer[2]; /* of node 0 */
    int16_t *batch;    /* level 0: of the first steps of residuals of at least 0 */
    uint32_t *refine;  /* of node 0 */
} dense_context;

/* A slot is a probability of 22 bits above a count of 10; it moves by a part of the error that shrinks with the
 * count. */
DENSE_INLINE void dense_adapt(uint32_t *slot, int bit, const uint32_t limit) {
    const uint32_t value = *slot, count = value & 1023;
    const int32_t error = (-bit & LARGEST_SLOT) - (int32_t)(value >> 10);
    const uint32_t moved = (value >> 10) + (uint32_t)(int32_t)((float)error / ((float)(int32_t)count + RATE_OFFSET));
    *slot = moved << 10 | (count + (count < limit));
}

/* Eight slots of mixed decisions after bits that draw them to `target`. */
DENSE_INLINE void dense_adapt_eight(dense_i8 *slots, const dense_i8 *target) {
    const dense_i8 seen = *slots & 1023, probability = (dense_i8)((dense_u8)*slots >> 10);
    const dense_i8 error = *target - probability;
    const dense_f8 part = __builtin_convertvector(seen, dense_f8) + RATE_OFFSET;
    const dense_f8 step = __builtin_convertvector(error, dense_f8) / part;
    const dense_i8 moved = probability + __builtin_convertvector(step, dense_i8);
#if defined(DENSE_USE_AVX2) || defined(__AVX2__)
    const dense_i8 counted = (dense_i8)_mm256_min_epi32((__m256i)(seen + 1), _mm256_set1_epi32(SLOT_LIMIT));
#else
    const dense_i8 counted = seen - (seen < SLOT_LIMIT);
#endif
    *slots = moved << 10 | counted;
}

/* The slots of a mixed decision. */
DENSE_INLINE void dense_adapt_all(uint32_t *const *slots, int node, int bit, const int count) {
    dense_i8 out = {0};
    const int32_t one = -bit & LARGEST_SLOT;
    const dense_i8 target = {one, one, one, one, one, one, one, one};
    for (int i = 0; i < count; i++)
        out[i] = (int32_t)slots[i][node];
    dense_adapt_eight(&out, &target);
    for (int i = 0; i < count; i++)
        slots[i][node] = (uint32_t)out[i];
}

/* Codes a bit by the slot's own probability. */
DENSE_INLINE int dense_simple_bit(dense_coder *coder, uint32_t *slot, int bit, const int decoding) {
    const uint32_t probability = (uint32_t)dense_clamp((int32_t)(*slot >> 16), LEAST_PROBABILITY, MOST_PROBABILITY);
    bit = dense_code(coder, bit, probability, decoding);
    dense_adapt(slot, bit, SIMPLE_LIMIT);
    return bit;
}

/* Weighs eight inputs; and moves their weights, within 16 bits, by the rounded upper half of products, with an error
 * for each of them or with one for all. */
#if defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
DENSE_INLINE int32_t dense_weigh(const int16_t *weights, const dense_h8 *inputs) {
    __m128i sum = _mm_madd_epi16(_mm_load_si128((const __m128i *)(const void *)weights), (__m128i)*inputs);
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
    return _mm_cvtsi128_si32(sum);
}
DENSE_INLINE void dense_learn_each(int16_t *weights, const dense_h8 *inputs, const dense_h8 *errors) {
    const __m128i factor = (__m128i)*errors;
#if defined(__SSSE3__) || defined(DENSE_USE_AVX2)
    const __m128i step = _mm_mulhrs_epi16((__m128i)*inputs, factor);
#else
    const __m128i low = _mm_mullo_epi16((__m128i)*inputs, factor), high = _mm_mulhi_epi16((__m128i)*inputs, factor);
    const __m128i half = _mm_and_si128(_mm_srli_epi16(low, 14), _mm_set1_epi16(1));
    const __m128i step = _mm_add_epi16(_mm_or_si128(_mm_slli_epi16(high, 1), _mm_srli_epi16(low, 15)), half);
#endif
    __m128i *at = (__m128i *)(void *)weights;
    _mm_store_si128(at, _mm_adds_epi16(_mm_load_si128(at), step));
}
#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(DENSE_NO_INTRINSICS)
DENSE_INLINE int32_t dense_weigh(const int16_t *weights, const dense_h8 *inputs) {
    const int16x8_t factors = vld1q_s16(weights);
    const int32x4_t low = vmull_s16(vget_low_s16(factors), vget_low_s16((int16x8_t)*inputs));
    return vaddvq_s32(vmlal_high_s16(low, factors, (int16x8_t)*inputs));
}
DENSE_INLINE void dense_learn_each(int16_t *weights, const dense_h8 *inputs, const dense_h8 *errors) {
    const int16x8_t step = vqrdmulhq_s16((int16x8_t)*inputs, (int16x8_t)*errors);
    vst1q_s16(weights, vqaddq_s16(vld1q_s16(weights), step));
}
#else
DENSE_INLINE int32_t dense_weigh(const int16_t *weights, const dense_h8 *inputs) {
    int32_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += weights[i] * (*inputs)[i];
    return sum;
}
DENSE_INLINE void dense_learn_each(int16_t *weights, const dense_h8 *inputs, const dense_h8 *errors) {
    for (int i = 0; i < 8; i++)
        weights[i] = (int16_t)dfk_clamp(weights[i] + (((*inputs)[i] * (*errors)[i] + 16384) >> 15), -32768, 32767);
}
#endif
DENSE_INLINE void dense_learn(int16_t *weights, const dense_h8 *inputs, int32_t error) {
    const int16_t one = (int16_t)error;
    const dense_h8 errors = {one, one, one, one, one, one, one, one};
    dense_learn_each(weights, inputs, &errors);
}

/* What a context says of a decision: the logarithm of the odds of a one, in 1/256. */
DENSE_INLINE int16_t dense_input(const dense_model *model, const dense_context *context, int i, size_t node) {
    return model->stretch[context->slots[i][node] >> 20];
}

DENSE_INLINE void dense_inputs(const dense_model *model, const dense_context *context, size_t node, dense_h8 *inputs,
                               const int level) {
#define INPUT(i) dense_input(model, context, i, node)
    if (level) {
        inputs[0] = (dense_h8){INPUT(0), INPUT(1), INPUT(2), INPUT(3), INPUT(4), INPUT(5), INPUT(6), INPUT(7)};
        inputs[1] = (dense_h8){CONSTANT_INPUT};
        return;
    }
#if defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
    /* One instruction an input, which compilers do not find. */
    __m128i all = _mm_set_epi16(0, 0, CONSTANT_INPUT, 0, 0, 0, 0, 0);
    all = _mm_insert_epi16(all, INPUT(0), 0);
    all = _mm_insert_epi16(all, INPUT(1), 1);
    all = _mm_insert_epi16(all, INPUT(2), 2);
    all = _mm_insert_epi16(all, INPUT(3), 3);
    all = _mm_insert_epi16(all, INPUT(4), 4);
    inputs[0] = (dense_h8)all;
#else
    inputs[0] = (dense_h8){INPUT(0), INPUT(1), INPUT(2), INPUT(3), INPUT(4), CONSTANT_INPUT};
#endif
#undef INPUT
}

/* What squash makes of odds within a limit. */
DENSE_INLINE int32_t dense_squash(const dense_model *model, int32_t odds, int32_t limit) {
    return model->squash[dense_clamp(odds, -limit, limit) + 2048];
}

/* Codes a bit by what the contexts of the sample say together; level 1 asks two mixers and refines the result. */
DENSE_INLINE int dense_mixed_bit(const dense_model *model, dense_coder *coder, const dense_context *context, int node,
                                 int bit, const int level, const int decoding) {
    dense_h8 inputs[2];
    int32_t mixed[2], single[2], probability = 0;
    int16_t *weights[2];
    dense_inputs(model, context, (size_t)node, inputs, level);
    for (int i = 0; i < DENSE_MIXERS(level); i++) {
        weights[i] = context->mixer[i] + node * (DENSE_SETS * DENSE_MIX_LANES(level));
        int32_t sum = dense_weigh(weights[i], &inputs[0]);
        if (level)
            sum += dense_weigh(weights[i] + 8, &inputs[1]);
        mixed[i] = dense_clamp(sum >> MIX_SHIFT, -LARGEST_ODDS, LARGEST_ODDS);
        single[i] = model->squash[mixed[i] + 2048];
        if (!level)
            probability = dense_squash(model, sum >> MIX_SHIFT, CODED_ODDS);
    }
    uint32_t *refined = NULL;
    if (level) {
        const int32_t both = (mixed[0] + mixed[1]) / 2 + 2048, part = both & 127;
        refined = context->refine + node * (DENSE_ENERGIES / 2 * DENSE_REFINE_STEPS) + (both >> 7);
        const int32_t found = (int32_t)(((refined[0] >> 4) * (uint32_t)(128 - part) + (refined[1] >> 4) * (uint32_t)part) >> 7);
        probability = dense_clamp((model->squash[both] + found + 1) >> 1, LEAST_PROBABILITY, MOST_PROBABILITY);
        refined += part >> 6;
    }
    bit = dense_code(coder, bit, (uint32_t)probability, decoding);
    for (int i = 0; i < DENSE_MIXERS(level); i++) {
        const int32_t error = ((-bit & 65535) - single[i]) >> ERROR_SHIFT;
        dense_learn(weights[i], &inputs[0], error);
        if (level)
            dense_learn(weights[i] + 8, &inputs[1], error);
    }
    dense_adapt_all(context->slots, node, bit, DENSE_USED_CONTEXTS(level));
    if (level)
        *refined = bit ? *refined + ((65535 * 16 - *refined) >> 6) : *refined - (*refined >> 6);
    return bit;
}

/* Codes value, 0 or more, as Elias gamma of value + 1 with adaptive length. */
static inline uint32_t dense_escape(dense_model *model, dense_coder *coder, uint32_t value, const int decoding) {
    int length = 0;
    const int actual = decoding ? 0 : (int)dfk_log2(value + 1);
    while (length < DENSE_ESCAPES - 1 &&
           dense_simple_bit(coder, &model->escapes[length], length < actual, decoding))
        length++;
    return (1u << length | dense_code_plain(coder, value + 1, length, decoding)) - 1;
}

DENSE_INLINE int dense_step_node(int step, int negative) {
    if (step < SIGNED_STEPS)
        return (negative ? NODE_NEGATIVE : NODE_POSITIVE) + step;
    return NODE_UNARY - SIGNED_STEPS + step;
}

/* Codes a value in unary from a step on. */
DENSE_INLINE uint32_t dense_unary(dense_model *model, dense_coder *coder, const dense_context *context, uint32_t value,
                                  int negative, int step, const int level, const int decoding) {
    while (step < UNARY_STEPS) {
        if (!dense_mixed_bit(model, coder, context, dense_step_node(step, negative), value > (uint32_t)step, level,
                             decoding))
            return (uint32_t)step;
        step++;
    }
    /* A copy, so that the coder itself is nowhere but in registers. */
    dense_coder own = *coder;
    value = UNARY_STEPS + dense_escape(model, &own, value - UNARY_STEPS, decoding);
    *coder = own;
    return value;
}

/* Codes the scale lowest bits: the first two by what is known, others as they are, the last one perhaps as the
 * parity of the sample (turn tells how to get from one to the other). */
DENSE_INLINE uint32_t dense_low_bits(const dense_model *model, dense_coder *coder, const dense_context *context,
                                     uint32_t value, int scale, uint32_t *slots, int parity_node, int turn,
                                     const int level, const int decoding) {
    uint32_t low = 0;
    int left = scale;
    for (int i = 0; i < 2 && left > (parity_node != 0); i++) {
        left--;
        const uint32_t place = i ? 1 + (low & 1) : 0;
        low = low << 1 | (uint32_t)dense_simple_bit(coder, slots + place, (int)(value >> left & 1), decoding);
    }
    const int plain = left - (parity_node != 0);
    if (plain > 0) {
        low = low << plain | dense_code_plain(coder, value >> (left - plain), plain, decoding);
        left -= plain;
    }
    if (left > 0)
        low = low << 1 | (uint32_t)(dense_mixed_bit(model, coder, context, parity_node, (int)(value & 1) ^ turn, level,
                                                    decoding) ^
                                    turn);
    return low;
}

#endif
