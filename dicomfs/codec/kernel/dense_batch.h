/* The sign and the first unary steps of a residual at level 0, taken together.
 *
 * They come out as if decided one after the other by dense_mixed_bit.  But what is asked of one has no part in
 * another, so the probabilities of all steps are found before it is known how many there are; where the first zero
 * lies is then a matter of comparisons, not of branches that nobody can foresee; and the slots of a context, which lie
 * side by side, adapt in one vector.
 */
#ifndef DICOMFS_DENSE_BATCH_H
#define DICOMFS_DENSE_BATCH_H

#include "dense_entropy.h"

/* Nearly nine in ten residuals end within so many steps. */
#define BATCH_STEPS 4

/* Weighs the inputs of four decisions, whose weights lie `apart`: where in the table of squash the results are. */
#if defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
DENSE_INLINE void dense_weigh_four(const int16_t *weights, size_t apart, const dense_h8 *inputs, int32_t *places) {
    __m128i sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = _mm_madd_epi16(_mm_load_si128((const __m128i *)(const void *)(weights + i * apart)), (__m128i)inputs[i]);
    for (int i = 0; i < 4; i += 2)
        sum[i] = _mm_add_epi32(_mm_unpacklo_epi32(sum[i], sum[i + 1]), _mm_unpackhi_epi32(sum[i], sum[i + 1]));
    sum[0] = _mm_add_epi32(_mm_unpacklo_epi64(sum[0], sum[2]), _mm_unpackhi_epi64(sum[0], sum[2]));
    __m128i place = _mm_srai_epi32(sum[0], MIX_SHIFT);
    place = _mm_packs_epi32(place, place);
    place = _mm_max_epi16(_mm_min_epi16(place, _mm_set1_epi16(2047)), _mm_set1_epi16(-2047));
    place = _mm_add_epi16(place, _mm_set1_epi16(2048));
    places[0] = _mm_extract_epi16(place, 0);
    places[1] = _mm_extract_epi16(place, 1);
    places[2] = _mm_extract_epi16(place, 2);
    places[3] = _mm_extract_epi16(place, 3);
}
#else
DENSE_INLINE void dense_weigh_four(const int16_t *weights, size_t apart, const dense_h8 *inputs, int32_t *places) {
    for (int i = 0; i < 4; i++)
        places[i] = dense_clamp(dense_weigh(weights + i * apart, &inputs[i]) >> MIX_SHIFT, -2047, 2047) + 2048;
}
#endif

/* Replaces the first of eight numbers. */
#if defined(DENSE_USE_AVX2) || defined(__AVX2__)
DENSE_INLINE void dense_put_first(dense_i8 *numbers, const dense_i8 *from) {
    *numbers = (dense_i8)_mm256_blend_epi32((__m256i)*numbers, (__m256i)*from, 1);
}
#else
DENSE_INLINE void dense_put_first(dense_i8 *numbers, const dense_i8 *from) { (*numbers)[0] = (*from)[0]; }
#endif

/* Adapts the slots of the sign and of `count` ones with the zero behind them (four ones: without) in all contexts.
 * The steps of either sign follow on seven of eight places; the place before them takes the sign for a while. */
DENSE_INLINE void dense_adapt_batch(const dense_context *context, int negative, int count) {
    const dense_i8 reached = (dense_i8){0, 0, 1, 2, 3, 9, 9, 9} <= count;
    const dense_i8 ones = ((dense_i8){9, 1, 2, 3, 4, 9, 9, 9} <= count) | (dense_i8){-negative, 0, 0, 0, 0, 0, 0, 0};
    const dense_i8 target = ones & LARGEST_SLOT;
    for (int i = 0; i < DENSE_USED_CONTEXTS(0); i++) {
        uint32_t *row = context->slots[i];
        uint32_t *side = row + (NODE_NEGATIVE - NODE_POSITIVE) * negative;
        dense_i8 value = *(const dense_i8 *)side;
        dense_put_first(&value, (const dense_i8 *)row);
        dense_i8 out = value;
        dense_adapt_eight(&out, &target);
        out = (out & reached) | (value & ~reached);
        *(dense_i8 *)side = out;
        row[NODE_SIGN] = (uint32_t)out[0];
    }
}

/* Codes how many ones come before the first zero, at most BATCH_STEPS.  A one leaves the start of the interval where it
 * is, so its length after i ones, ends[i], is known beforehand, unless it has to be made longer on the way: then, which
 * is rare, the decisions follow each other. */
DENSE_INLINE int dense_code_ones(dense_coder *coder, const int32_t *probabilities, int count, const int decoding) {
    uint64_t ends[BATCH_STEPS + 2], end, next;
    ends[0] = coder->range;
    for (int i = 0; i < BATCH_STEPS; i++)
        ends[i + 1] = (ends[i] >> 16) * (uint64_t)probabilities[i];
    ends[BATCH_STEPS + 1] = 0;
    if (decoding) {
        count = 0;
        end = ends[0], next = ends[1];
        for (int i = 1; i <= BATCH_STEPS; i++) {
            uint64_t mask = (uint64_t)0 - (uint64_t)(coder->low < ends[i]);
            __asm__("" : "+r"(mask));
            end ^= (end ^ ends[i]) & mask;
            next ^= (next ^ ends[i + 1]) & mask;
            count -= (int)mask;
        }
    } else {
        end = ends[count], next = ends[count + 1];
    }
    if (__builtin_expect(end >> 32 == 0, 0)) {
        int step = 0;
        while (step < BATCH_STEPS && dense_code(coder, step < count, (uint32_t)probabilities[step], decoding))
            step++;
        return step;
    }
    coder->range = end - next;
    dense_move(coder, next, decoding);
    dense_lengthen(coder, decoding);
    return count;
}

/* Codes the sign and, of value, how many steps there are, up to BATCH_STEPS. */
DENSE_INLINE int dense_code_batch(const dense_model *model, dense_coder *coder, const dense_context *context,
                                  int *negative, uint32_t value, const int decoding) {
    const size_t apart = DENSE_SETS * DENSE_MIX_LANES(0);
    dense_h8 sign_inputs, inputs[BATCH_STEPS];
    dense_inputs(model, context, NODE_SIGN, &sign_inputs, 0);
    int16_t *weights = context->mixer[0] + NODE_SIGN * apart;
    const int32_t sum = dense_weigh(weights, &sign_inputs) >> MIX_SHIFT;
    const int32_t single = model->squash[dense_clamp(sum, -2047, 2047) + 2048];
    *negative = dense_code(coder, *negative, (uint32_t)dense_clamp(single, LEAST_PROBABILITY, MOST_PROBABILITY), decoding);
    dense_learn(weights, &sign_inputs, ((-*negative & 65535) - single) >> ERROR_SHIFT);

    const int node = NODE_POSITIVE + (NODE_NEGATIVE - NODE_POSITIVE) * *negative;
    int32_t singles[BATCH_STEPS], probabilities[BATCH_STEPS];
    weights = context->mixer[0] + node * apart;
    for (int i = 0; i < BATCH_STEPS; i++)
        dense_inputs(model, context, node + i, &inputs[i], 0);
    dense_weigh_four(weights, apart, inputs, singles);
    for (int i = 0; i < BATCH_STEPS; i++) {
        singles[i] = model->squash[singles[i]];
        probabilities[i] = dense_clamp(singles[i], LEAST_PROBABILITY, MOST_PROBABILITY);
    }
    const int wanted = value < BATCH_STEPS ? (int)value : BATCH_STEPS;
    const int count = dense_code_ones(coder, probabilities, wanted, decoding);
    /* Steps that were not reached learn with an error of 0. */
    const dense_i4 reached = (dense_i4){0, 1, 2, 3} <= count, ones = (dense_i4){1, 2, 3, 4} <= count;
    const dense_i4 found = {singles[0], singles[1], singles[2], singles[3]};
    const dense_i4 errors = (((ones & 65535) - found) >> ERROR_SHIFT) & reached;
    for (int i = 0; i < BATCH_STEPS; i++)
        dense_learn(weights + i * apart, &inputs[i], errors[i]);
    dense_adapt_batch(context, *negative, count);
    return count;
}

#endif
