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

/* Inputs of the steps come in three vectors of pairs, those of contexts 0 and 1, step by step, of contexts 2 and 3, and
 * of context 4 with the constant one, and their weights like that: sums of products of pairs then are those of the
 * steps. */
#define BATCH_VECTORS 3

#if defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
DENSE_INLINE void dense_pair_inputs(const dense_model *model, const dense_context *context, size_t node,
                                    dense_h8 *pairs) {
    for (int i = 0; i < 4; i += 2) {
        __m128i all = _mm_setzero_si128();
        all = _mm_insert_epi16(all, dense_input(model, context, i, node), 0);
        all = _mm_insert_epi16(all, dense_input(model, context, i + 1, node), 1);
        all = _mm_insert_epi16(all, dense_input(model, context, i, node + 1), 2);
        all = _mm_insert_epi16(all, dense_input(model, context, i + 1, node + 1), 3);
        all = _mm_insert_epi16(all, dense_input(model, context, i, node + 2), 4);
        all = _mm_insert_epi16(all, dense_input(model, context, i + 1, node + 2), 5);
        all = _mm_insert_epi16(all, dense_input(model, context, i, node + 3), 6);
        pairs[i / 2] = (dense_h8)_mm_insert_epi16(all, dense_input(model, context, i + 1, node + 3), 7);
    }
    __m128i last = _mm_set1_epi32(CONSTANT_INPUT << 16);
    last = _mm_insert_epi16(last, dense_input(model, context, 4, node), 0);
    last = _mm_insert_epi16(last, dense_input(model, context, 4, node + 1), 2);
    last = _mm_insert_epi16(last, dense_input(model, context, 4, node + 2), 4);
    pairs[2] = (dense_h8)_mm_insert_epi16(last, dense_input(model, context, 4, node + 3), 6);
}
#else
DENSE_INLINE void dense_pair_inputs(const dense_model *model, const dense_context *context, size_t node,
                                    dense_h8 *pairs) {
#define INPUT(i, step) dense_input(model, context, i, node + step)
    for (int i = 0; i < 4; i += 2)
        pairs[i / 2] = (dense_h8){INPUT(i, 0), INPUT(i + 1, 0), INPUT(i, 1), INPUT(i + 1, 1),
                                  INPUT(i, 2), INPUT(i + 1, 2), INPUT(i, 3), INPUT(i + 1, 3)};
    pairs[2] = (dense_h8){INPUT(4, 0), CONSTANT_INPUT, INPUT(4, 1), CONSTANT_INPUT,
                          INPUT(4, 2), CONSTANT_INPUT, INPUT(4, 3), CONSTANT_INPUT};
#undef INPUT
}
#endif

/* Sums of the products of the pairs of all steps. */
#if defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
DENSE_INLINE void dense_sum_steps(const int16_t *weights, const dense_h8 *pairs, dense_i4 *sums) {
    const __m128i *at = (const __m128i *)(const void *)weights;
    const __m128i sum = _mm_add_epi32(_mm_madd_epi16(_mm_load_si128(at), (__m128i)pairs[0]),
                                      _mm_madd_epi16(_mm_load_si128(at + 2), (__m128i)pairs[2]));
    *sums = (dense_i4)_mm_add_epi32(sum, _mm_madd_epi16(_mm_load_si128(at + 1), (__m128i)pairs[1]));
}
#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(DENSE_NO_INTRINSICS)
DENSE_INLINE void dense_sum_steps(const int16_t *weights, const dense_h8 *pairs, dense_i4 *sums) {
    const int32x4_t sum = vaddq_s32(dense_madd(vld1q_s16(weights), (int16x8_t)pairs[0]),
                                    dense_madd(vld1q_s16(weights + 8), (int16x8_t)pairs[1]));
    *sums = (dense_i4)vaddq_s32(sum, dense_madd(vld1q_s16(weights + 16), (int16x8_t)pairs[2]));
}
#else
DENSE_INLINE void dense_sum_steps(const int16_t *weights, const dense_h8 *pairs, dense_i4 *sums) {
    *sums = (dense_i4){0};
    for (int step = 0; step < BATCH_STEPS; step++) {
        int32_t sum = 0;
        for (int i = 0; i < BATCH_VECTORS; i++)
            sum += weights[8 * i + 2 * step] * pairs[i][2 * step] +
                   weights[8 * i + 2 * step + 1] * pairs[i][2 * step + 1];
        (*sums)[step] = sum;
    }
}
#endif

/* Weighs the inputs of all steps: what squash makes of the results, and with which probabilities they are coded. */
DENSE_INLINE void dense_weigh_steps(const dense_model *model, const int16_t *weights, const dense_h8 *pairs,
                                    int32_t *singles, uint32_t *probabilities) {
    dense_i4 odds;
    dense_sum_steps(weights, pairs, &odds);
    odds = odds >> MIX_SHIFT;
#if defined(__SSE2__) && !defined(DENSE_NO_INTRINSICS)
    const __m128i most = _mm_set_epi16(LARGEST_ODDS, LARGEST_ODDS, LARGEST_ODDS, LARGEST_ODDS, CODED_ODDS, CODED_ODDS,
                                       CODED_ODDS, CODED_ODDS);
    __m128i places = _mm_packs_epi32((__m128i)odds, (__m128i)odds);
    places = _mm_max_epi16(_mm_min_epi16(places, most), _mm_sub_epi16(_mm_setzero_si128(), most));
    places = _mm_add_epi16(places, _mm_set1_epi16(2048));
    probabilities[0] = model->squash[_mm_extract_epi16(places, 0)];
    probabilities[1] = model->squash[_mm_extract_epi16(places, 1)];
    probabilities[2] = model->squash[_mm_extract_epi16(places, 2)];
    probabilities[3] = model->squash[_mm_extract_epi16(places, 3)];
    singles[0] = model->squash[_mm_extract_epi16(places, 4)];
    singles[1] = model->squash[_mm_extract_epi16(places, 5)];
    singles[2] = model->squash[_mm_extract_epi16(places, 6)];
    singles[3] = model->squash[_mm_extract_epi16(places, 7)];
#else
    for (int step = 0; step < BATCH_STEPS; step++) {
        singles[step] = dense_squash(model, odds[step], LARGEST_ODDS);
        probabilities[step] = (uint32_t)dense_squash(model, odds[step], CODED_ODDS);
    }
#endif
}

/* Moves the weights of all steps by their errors, which are within 16 bits. */
DENSE_INLINE void dense_learn_steps(int16_t *weights, const dense_h8 *pairs, const dense_i4 *errors) {
    const dense_i4 twice = (*errors & 65535) | *errors << 16;
    for (int i = 0; i < BATCH_VECTORS; i++)
        dense_learn_each(weights + 8 * i, &pairs[i], (const dense_h8 *)&twice);
}

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
DENSE_INLINE void dense_adapt_batch(const dense_context *context, int negative, size_t from_positive, int count) {
    const dense_i8 reached = count > (dense_i8){-1, -1, 0, 1, 2, 9, 9, 9};
    const dense_i8 ones = (count > (dense_i8){9, 0, 1, 2, 3, 9, 9, 9}) | (dense_i8){-negative, 0, 0, 0, 0, 0, 0, 0};
    const dense_i8 target = ones & LARGEST_SLOT;
    for (int i = 0; i < DENSE_USED_CONTEXTS(0); i++) {
        uint32_t *row = context->slots[i];
        uint32_t *side = row + from_positive;
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
DENSE_INLINE int dense_code_ones(dense_coder *coder, const uint32_t *probabilities, int count, const int decoding) {
    uint64_t ends[BATCH_STEPS + 2], end, next;
    ends[0] = coder->range;
    for (int i = 0; i < BATCH_STEPS; i++)
        ends[i + 1] = (ends[i] >> 16) * probabilities[i];
    ends[BATCH_STEPS + 1] = 0;
    if (decoding) {
        /* Picked one after the other, as they come out: by number they would go through memory. */
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
        while (step < BATCH_STEPS && dense_code(coder, step < count, probabilities[step], decoding))
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
    dense_h8 sign_inputs, pairs[BATCH_VECTORS];
    dense_inputs(model, context, NODE_SIGN, &sign_inputs, 0);
    int16_t *weights = context->mixer[0] + NODE_SIGN * (DENSE_SETS * DENSE_MIX_LANES(0));
    const int32_t odds = dense_weigh(weights, &sign_inputs) >> MIX_SHIFT;
    *negative = dense_code(coder, *negative, (uint32_t)dense_squash(model, odds, CODED_ODDS), decoding);
    const int32_t single = dense_squash(model, odds, LARGEST_ODDS);
    dense_learn(weights, &sign_inputs, ((-*negative & 65535) - single) >> ERROR_SHIFT);

    const size_t from_positive = (size_t)((NODE_NEGATIVE - NODE_POSITIVE) * *negative);
    int32_t singles[BATCH_STEPS];
    uint32_t probabilities[BATCH_STEPS];
    weights = context->batch + from_positive * (DENSE_SETS * DENSE_MIX_LANES(0));
    dense_pair_inputs(model, context, NODE_POSITIVE + from_positive, pairs);
    dense_weigh_steps(model, weights, pairs, singles, probabilities);
    const int wanted = value < BATCH_STEPS ? (int)value : BATCH_STEPS;
    const int count = dense_code_ones(coder, probabilities, wanted, decoding);
    /* Steps that were not reached learn with an error of 0. */
    const dense_i4 reached = (dense_i4){0, 1, 2, 3} <= count, ones = (dense_i4){1, 2, 3, 4} <= count;
    const dense_i4 found = {singles[0], singles[1], singles[2], singles[3]};
    const dense_i4 errors = (((ones & 65535) - found) >> ERROR_SHIFT) & reached;
    dense_learn_steps(weights, pairs, &errors);
    dense_adapt_batch(context, *negative, from_positive, count);
    return count;
}

#endif
