/* The row functions of the fast stream, included once per instruction set: NAME gives the functions their names,
 * TARGET their attributes, WIDE says that AVX2 may be used.  The sums of a class's taps are the hot part; pairs of
 * 16-bit products fit the multiply-and-add instructions of x86, elsewhere the compiler finds its own.
 */

TARGET static inline __attribute__((always_inline)) void NAME(contexts_as)(
    int spiked, const uint16_t *restrict error, const uint16_t *restrict before, uint32_t stride, uint32_t columns,
    uint8_t *restrict out)
{
    for (uint32_t x0 = 0; x0 < columns; x0 += FAST_CHUNK) {
        const uint16_t *n = error - stride + x0, *nn = n - stride, *c = before ? before + x0 : NULL;
        fast_lanes north = fast_load(n), west = fast_load(n - 1), east = fast_load(n + 1);
        fast_lanes sums = {0}, all_marks = {0}, centre = fast_load(c ? c : nn);
        if (spiked) {
            all_marks = (north >> FAST_SPIKE_BIT) + (west >> FAST_SPIKE_BIT) + (east >> FAST_SPIKE_BIT) +
                        (centre >> FAST_SPIKE_BIT);
        }
        /* Without marks there is nothing to take off. */
        const uint16_t limit = spiked ? FAST_ERROR_LIMIT : UINT16_MAX;
        sums = (north & limit) + 2 * ((north & limit) + (west & limit) + (east & limit)) + (fast_load(n - 2) & limit) +
               (fast_load(n + 2) & limit) + (fast_load(nn - 1) & limit) + (fast_load(nn) & limit) +
               (fast_load(nn + 1) & limit);
        if (c != NULL) {
            const uint16_t *s = c + stride;
            sums += 2 * (centre & limit) + (fast_load(c - 1) & limit) + (fast_load(c + 1) & limit) +
                    (fast_load(s) & limit) + (((fast_load(s - 1) & limit) + (fast_load(s + 1) & limit)) >> 1);
        } else {
            sums += sums >> 1;
        }
        /* The exponent and the two bits below the leading one, as a float's own bits show them. */
        fast_half halves[2];
        fast_lanes steps;
        memcpy(halves, &sums, sizeof halves);
        for (int h = 0; h < 2; h++) {
            fast_floats value = __builtin_convertvector(__builtin_convertvector(halves[h], fast_ints) + 1, fast_floats);
            halves[h] = __builtin_convertvector(((fast_ints)value >> 21) - (127 << 2), fast_half);
        }
        memcpy(&steps, halves, sizeof steps);
        steps += FAST_MOST_SHIFT;
        if (spiked) /* comparisons give -1 */
            steps -= FAST_ACTIVITIES * ((fast_lanes)(all_marks > 0) + (fast_lanes)(all_marks > 2));
        fast_octets low = __builtin_convertvector(steps, fast_octets);
        memcpy(out + x0, &low, sizeof low);
    }
}

TARGET static void NAME(contexts)(uint32_t spiked, const uint16_t *error, const uint16_t *before, uint32_t stride,
                                  uint32_t columns, uint8_t *out)
{
    if (spiked)
        NAME(contexts_as)(1, error, before, stride, columns, out);
    else
        NAME(contexts_as)(0, error, before, stride, columns, out);
}

TARGET static inline __attribute__((always_inline)) int32_t NAME(decode)(fast_cursor *c, uint32_t *state,
                                                                         const fast_decoding_table *table)
{
    uint32_t x = *state, slot = x & (FAST_FREQUENCIES - 1);
    const fast_symbol *symbol = &table->symbol[table->slot[slot]];
    x = symbol->frequency * (x >> FAST_FREQUENCY_BITS) + slot - symbol->start;
    /* A word follows whenever the state fell below its range: without a branch, for it would be hard to foresee. */
#if defined(WIDE)
    uint32_t more = x << 16 | fast_load_u16(c->words + 2 * c->word);
    __asm__("cmpl %[low], %[x]\n\tcmovbl %[more], %[x]\n\tadcq $0, %[word]"
            : [x] "+r"(x), [word] "+r"(c->word)
            : [more] "r"(more), [low] "i"(FAST_STATE_LOW)
            : "cc");
    *state = x;
#else
    uint32_t low = x < FAST_STATE_LOW;
    *state = x << (low << 4) | (fast_load_u16(c->words + 2 * c->word) & (0u - low));
    c->word += low;
#endif
    uint32_t info = symbol->value, count = info & 31;
#if defined(WIDE)
    uint32_t value = (info >> 5) + (uint32_t)_bzhi_u64(c->bits, count);
#else
    uint32_t value = (info >> 5) + (uint32_t)(c->bits & ((UINT64_C(1) << count) - 1));
#endif
    c->bits >>= count;
    c->bit += count;
    return (int32_t)value;
}

TARGET static inline __attribute__((always_inline)) void NAME(refill)(fast_cursor *c)
{
    c->raw += c->bit >> 3;
    c->bit &= 7;
    c->bits = fast_load_u64(c->raw) >> c->bit;
}

TARGET static inline __attribute__((always_inline)) void NAME(decode_two)(
    fast_cursor *c, uint32_t *state, const fast_decoding_table *const *tables, const uint8_t *context, int32_t *value)
{
    NAME(refill)(c);
    value[0] = NAME(decode)(c, &state[0], tables[context[0]]);
    value[1] = NAME(decode)(c, &state[1], tables[context[1]]);
}

TARGET static void NAME(values)(fast_entropy *entropy, const uint8_t *restrict context, uint32_t first, uint32_t last,
                                int32_t *restrict value)
{
    const fast_decoding_table *const *tables = entropy->by_context;
    fast_cursor c = {entropy->words.at, entropy->raw.at, 0, 0, entropy->raw_bit};
    uint32_t *state = entropy->state, x = first;
    for (; x + FAST_LANES <= last; x += FAST_LANES) {
        NAME(decode_two)(&c, state, tables, context + x, value + x);
        NAME(decode_two)(&c, state + 2, tables, context + x + 2, value + x + 2);
        NAME(decode_two)(&c, state + 4, tables, context + x + 4, value + x + 4);
        NAME(decode_two)(&c, state + 6, tables, context + x + 6, value + x + 6);
    }
    for (uint32_t lane = 0; x < last; x++, lane++) {
        NAME(refill)(&c);
        value[x] = NAME(decode)(&c, &state[lane], tables[context[x]]);
    }
    NAME(refill)(&c);
    entropy->words.at = c.words + 2 * c.word;
    entropy->raw.at = c.raw;
    entropy->raw_bit = c.bit;
}

TARGET static void NAME(residuals)(const fast_scaling *scaling, uint32_t columns, int32_t *restrict value,
                                   int32_t *restrict mask, uint16_t *restrict error)
{
    const uint32_t shift = scaling->error_shift;
    const int32_t spiked = scaling->spiked != 0, spike = scaling->spike;
    if (!spiked) {
        for (uint32_t x = 0; x < columns; x++) {
            int32_t z = value[x], size = (z + 1) >> 1;
            value[x] = (z >> 1) ^ -(z & 1);
            int32_t scaled = size >> shift;
            error[x] = (uint16_t)(scaled < FAST_ERROR_LIMIT ? scaled : FAST_ERROR_LIMIT);
        }
        return;
    }
    for (uint32_t x = 0; x < columns; x++) {
        int32_t z = value[x] - 1, size = (z + 1) >> 1;
        int32_t keep = -(z >= 0), residual = (z >> 1) ^ -(z & 1), scaled = size >> shift;
        scaled = scaled < FAST_ERROR_LIMIT ? scaled : FAST_ERROR_LIMIT;
        value[x] = (residual & keep) | (spike & ~keep);
        mask[x] = keep;
        error[x] = (uint16_t)((scaled & keep) | ((1 << FAST_SPIKE_BIT) & ~keep));
    }
}

/* Weighted sums of FAST_CHUNK columns whose two halves have weights of their own: those of a pair of taps stand
 * FAST_CHUNK at a time, four times the left half's and four times the right one's. */
TARGET static inline void NAME(halved_sums)(const fast_neighbours *around, const int16_t *weight,
                                            const fast_octet *octet, uint32_t x, int32_t *restrict out)
{
#if defined(WIDE)
    __m256i low = _mm256_setr_m128i(_mm_set1_epi32(octet[0].offset), _mm_set1_epi32(octet[1].offset)), high = low;
    for (uint32_t p = 0; p < around->pairs; p++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(around->tap[2 * p] + x));
        __m256i b = _mm256_loadu_si256((const __m256i *)(around->tap[2 * p + 1] + x));
        __m256i w = _mm256_load_si256((const __m256i *)(const void *)(weight + FAST_CHUNK * p));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), w));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), w));
    }
    _mm256_storeu_si256((__m256i *)out, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *)(out + 8), _mm256_permute2x128_si256(low, high, 0x31));
#elif defined(__SSE2__)
    for (int half = 0; half < 2; half++) {
        __m128i low = _mm_set1_epi32(octet[half].offset), high = low;
        for (uint32_t p = 0; p < around->pairs; p++) {
            __m128i a = _mm_loadu_si128((const __m128i *)(around->tap[2 * p] + x + 8 * half));
            __m128i b = _mm_loadu_si128((const __m128i *)(around->tap[2 * p + 1] + x + 8 * half));
            __m128i w = _mm_loadu_si128((const __m128i *)(weight + FAST_CHUNK * p + 8 * (uint32_t)half));
            low = _mm_add_epi32(low, _mm_madd_epi16(_mm_unpacklo_epi16(a, b), w));
            high = _mm_add_epi32(high, _mm_madd_epi16(_mm_unpackhi_epi16(a, b), w));
        }
        _mm_storeu_si128((__m128i *)(out + 8 * half), low);
        _mm_storeu_si128((__m128i *)(out + 8 * half + 4), high);
    }
#else
    for (uint32_t half = 0; half < FAST_CHUNK; half += FAST_OCTET) {
        for (uint32_t i = half; i < half + FAST_OCTET; i++)
            out[i] = octet[half / FAST_OCTET].offset;
        for (uint32_t t = 0; t < 2 * around->pairs; t++) {
            int32_t w = weight[FAST_CHUNK * (t / 2) + half + t % 2];
            for (uint32_t i = half; i < half + FAST_OCTET; i++)
                out[i] += w * around->tap[t][x + i];
        }
    }
#endif
}

/* Adds residuals to the sums, scaled like them, and blanks the sums of spikes: what is left to do for a sample is a
 * product, an addition and a shift.  Unsigned, because a damaged stream may lead out of range within a row, whose end
 * tells. */
TARGET static inline void NAME(add_residuals)(const fast_scaling *scaling, int masked, const fast_row *row, uint32_t x,
                                              int32_t *restrict sum)
{
    const int32_t *residual = row->residual + x;
    for (uint32_t i = 0; i < FAST_CHUNK; i++) {
        uint32_t kept = (uint32_t)(masked ? sum[i] & row->mask[x + i] : sum[i]);
        sum[i] = (int32_t)(kept + ((uint32_t)residual[i] << scaling->fraction));
    }
}

#ifndef FAST_STEP
#define FAST_STEP(w, ww, octet, mask, sum) \
    ((uint32_t)((int32_t)((uint32_t)(sum) + ((octet)->next & (mask)) * (ww) + ((octet)->nearest & (mask)) * (w)) >> \
                fraction))
#endif

/* Up to FAST_OCTET predicted samples of one row. */
TARGET static inline void NAME(one_octet)(uint32_t fraction, int masked, const fast_octet *octet, const int32_t *sum,
                                          fast_row *row, uint32_t x, uint32_t count, int32_t *out)
{
    uint32_t w = row->w, ww = row->ww;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t mask = masked ? (uint32_t)row->mask[x + i] : UINT32_MAX;
        uint32_t next = FAST_STEP(w, ww, octet, mask, sum[i]);
        ww = w;
        w = next;
        out[i] = (int32_t)w;
    }
    row->w = w;
    row->ww = ww;
}

/* FAST_OCTET predicted samples of each of two rows: their chains of dependent steps run side by side. */
TARGET static inline void NAME(two_octets)(uint32_t fraction, int masked, const fast_octet *upper_octet,
                                           const int32_t *upper_sum, fast_row *upper, uint32_t upper_x,
                                           int32_t *upper_out, const fast_octet *lower_octet,
                                           const int32_t *lower_sum, fast_row *lower, uint32_t lower_x,
                                           int32_t *lower_out)
{
    uint32_t uw = upper->w, uww = upper->ww, lw = lower->w, lww = lower->ww;
    const fast_octet u = *upper_octet, l = *lower_octet;
    const int32_t *upper_mask = masked ? upper->mask + upper_x : NULL;
    const int32_t *lower_mask = masked ? lower->mask + lower_x : NULL;
    for (uint32_t i = 0; i < FAST_OCTET; i++) {
        uint32_t umask = masked ? (uint32_t)upper_mask[i] : UINT32_MAX;
        uint32_t lmask = masked ? (uint32_t)lower_mask[i] : UINT32_MAX;
        uint32_t unext = FAST_STEP(uw, uww, &u, umask, upper_sum[i]);
        uint32_t lnext = FAST_STEP(lw, lww, &l, lmask, lower_sum[i]);
        uww = uw;
        lww = lw;
        upper_out[i] = (int32_t)(uw = unext);
        lower_out[i] = (int32_t)(lw = lnext);
    }
    upper->w = uw;
    upper->ww = uww;
    lower->w = lw;
    lower->ww = lww;
}

TARGET static inline void NAME(keep)(const fast_scaling *scaling, fast_row *row, uint32_t x, uint32_t count,
                                     const int32_t *out)
{
    uint32_t outside = 0;
    if (count == FAST_OCTET)
        for (uint32_t i = 0; i < FAST_OCTET; i++) {
            row->sample[x + i] = (int16_t)out[i];
            outside |= (uint32_t)out[i] + scaling->half;
        }
    else
        for (uint32_t i = 0; i < count; i++) {
            row->sample[x + i] = (int16_t)out[i];
            outside |= (uint32_t)out[i] + scaling->half;
        }
    row->outside |= outside;
}

/* Up to FAST_OCTET samples of one row, copied or predicted. */
TARGET static inline void NAME(octet)(const fast_scaling *scaling, int masked, const fast_octet *octet,
                                      const int32_t *sum, fast_row *row, uint32_t x, uint32_t columns)
{
    if (x >= columns)
        return;
    uint32_t count = columns - x < FAST_OCTET ? columns - x : FAST_OCTET;
    int32_t out[FAST_OCTET] = {0};
    if (!octet->copied) {
        NAME(one_octet)(scaling->fraction, masked, octet, sum, row, x, count, out);
        NAME(keep)(scaling, row, x, count, out);
        return;
    }
    const int16_t *from = octet->copied == FAST_COPY_ABOVE ? row->above : row->before;
    memcpy(row->sample + x, from + x, count * sizeof *from);
    const int16_t *last = row->sample + x + count - 1;
    row->w = (uint32_t)(int32_t)last[0];
    row->ww = (uint32_t)(int32_t)last[-1];
}

/* The sums of one chunk of a row. */
TARGET static inline void NAME(chunk)(const fast_scaling *scaling, int masked, const fast_row_terms *terms,
                                      const fast_row *row, uint32_t number, int32_t *sum)
{
    NAME(halved_sums)(row->around, terms->weight + (size_t)number * terms->chunk_weights, terms->octet + 2 * number,
                      number * FAST_CHUNK, sum);
    NAME(add_residuals)(scaling, masked, row, number * FAST_CHUNK, sum);
}

TARGET static inline void NAME(start)(fast_row *row)
{
    row->w = row->ww = (uint32_t)(int32_t)row->sample[-1];
    row->outside = 0;
}

TARGET static inline void NAME(alone)(const fast_scaling *scaling, int masked, const fast_row_terms *terms,
                                      fast_row *row, uint32_t number)
{
    int32_t sum[FAST_CHUNK];
    NAME(chunk)(scaling, masked, terms, row, number, sum);
    for (uint32_t h = 0; h < 2; h++)
        NAME(octet)(scaling, masked, &terms->octet[2 * number + h], sum + h * FAST_OCTET, row,
                    number * FAST_CHUNK + h * FAST_OCTET, terms->columns);
}

/* A chunk of the upper row and the one FAST_ROW_LAG before it of the lower row. */
TARGET static inline void NAME(together)(const fast_scaling *scaling, int masked, const fast_row_terms *terms,
                                         fast_row *upper, fast_row *lower, uint32_t number)
{
    const uint32_t behind = number - FAST_ROW_LAG;
    int32_t upper_sum[FAST_CHUNK], lower_sum[FAST_CHUNK];
    NAME(chunk)(scaling, masked, terms, upper, number, upper_sum);
    NAME(chunk)(scaling, masked, terms, lower, behind, lower_sum);
    for (uint32_t h = 0; h < 2; h++) {
        uint32_t upper_x = number * FAST_CHUNK + h * FAST_OCTET, lower_x = behind * FAST_CHUNK + h * FAST_OCTET;
        const fast_octet *u = &terms->octet[2 * number + h], *l = &terms->octet[2 * behind + h];
        if (upper_x + FAST_OCTET > terms->columns || u->copied || l->copied) {
            NAME(octet)(scaling, masked, u, upper_sum + h * FAST_OCTET, upper, upper_x, terms->columns);
            NAME(octet)(scaling, masked, l, lower_sum + h * FAST_OCTET, lower, lower_x, terms->columns);
            continue;
        }
        int32_t upper_out[FAST_OCTET], lower_out[FAST_OCTET];
        NAME(two_octets)(scaling->fraction, masked, u, upper_sum + h * FAST_OCTET, upper, upper_x, upper_out, l,
                         lower_sum + h * FAST_OCTET, lower, lower_x, lower_out);
        NAME(keep)(scaling, upper, upper_x, FAST_OCTET, upper_out);
        NAME(keep)(scaling, lower, lower_x, FAST_OCTET, lower_out);
    }
}

TARGET static inline __attribute__((always_inline)) void NAME(rebuild_as)(const fast_scaling *scaling, int masked,
                                                                          const fast_row_terms *terms, fast_row *upper,
                                                                          fast_row *lower)
{
    const uint32_t chunks = (terms->columns + FAST_CHUNK - 1) / FAST_CHUNK;
    const uint32_t ahead = lower == NULL || chunks < FAST_ROW_LAG ? chunks : FAST_ROW_LAG;
    NAME(start)(upper);
    for (uint32_t t = 0; t < ahead; t++)
        NAME(alone)(scaling, masked, terms, upper, t);
    if (lower != NULL) {
        fast_pad_row_left(lower->sample, upper->sample[0]);
        NAME(start)(lower);
        for (uint32_t t = ahead; t < chunks; t++)
            NAME(together)(scaling, masked, terms, upper, lower, t);
    }
    fast_pad_row_right(upper->sample, terms->columns, terms->padded);
    if (lower != NULL) {
        for (uint32_t t = chunks - ahead; t < chunks; t++)
            NAME(alone)(scaling, masked, terms, lower, t);
        fast_pad_row_right(lower->sample, terms->columns, terms->padded);
    }
}

TARGET static uint32_t NAME(rebuild)(const fast_scaling *scaling, const fast_row_terms *terms, fast_row *upper,
                                     fast_row *lower)
{
    if (scaling->spiked)
        NAME(rebuild_as)(scaling, 1, terms, upper, lower);
    else
        NAME(rebuild_as)(scaling, 0, terms, upper, lower);
    return (upper->outside | (lower ? lower->outside : 0)) >> scaling->bits;
}
