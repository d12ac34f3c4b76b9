/* Reading the rows of the fast stream, included once per instruction set: NAME gives the functions their names, TARGET
 * their attributes, WIDE says that AVX2 may be used.
 *
 * What the entropy decoder does for a sample has to wait for the sample FAST_LANES before it; everything that needs no
 * sample of the same rows is done beside it, so that the processor has something to do meanwhile.
 */

/* Sums to steps of activity: the exponent of sum + 1 and the two bits below the leading one, as a float's own bits
 * show them. */
#if defined(WIDE)
TARGET INLINE void NAME(steps)(fast_lanes *sums)
{
    const __m256i one = _mm256_set1_epi32(1);
    __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128((__m256i)*sums));
    __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256((__m256i)*sums, 1));
    low = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_add_epi32(low, one))), 21);
    high = _mm256_srli_epi32(_mm256_castps_si256(_mm256_cvtepi32_ps(_mm256_add_epi32(high, one))), 21);
    *sums = (fast_lanes)_mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8) - FAST_FLOAT_STEPS;
}

TARGET INLINE fast_octets NAME(octets)(const fast_lanes *steps)
{
    const __m256i all = (__m256i)*steps;
    return (fast_octets)_mm_packus_epi16(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}
#else
TARGET INLINE void NAME(steps)(fast_lanes *sums)
{
    fast_half halves[2];
    memcpy(halves, sums, sizeof halves);
    for (int h = 0; h < 2; h++) {
        const fast_ints sum = __builtin_convertvector(halves[h], fast_ints) + 1;
        halves[h] = __builtin_convertvector((fast_ints)__builtin_convertvector(sum, fast_floats) >> 21, fast_half);
    }
    memcpy(sums, halves, sizeof halves);
    *sums -= FAST_FLOAT_STEPS;
}

TARGET INLINE fast_octets NAME(octets)(const fast_lanes *steps)
{
    return __builtin_convertvector(*steps, fast_octets);
}
#endif

TARGET INLINE fast_octets NAME(chunk_contexts)(int spiked, const uint16_t *error, const uint16_t *before, size_t stride)
{
    const uint16_t *n = error - stride, *nn = n - stride, *c = before;
    fast_lanes north = fast_load(n), west = fast_load(n - 1), east = fast_load(n + 1);
    fast_lanes all_marks = {0}, centre = fast_load(c ? c : nn);
    if (spiked) {
        all_marks = (north >> FAST_SPIKE_BIT) + (west >> FAST_SPIKE_BIT) + (east >> FAST_SPIKE_BIT) +
                    (centre >> FAST_SPIKE_BIT);
    }
    /* Without marks there is nothing to take off. */
    const uint16_t limit = spiked ? FAST_ERROR_LIMIT : UINT16_MAX;
    fast_lanes sums = (north & limit) + 2 * ((north & limit) + (west & limit) + (east & limit)) +
                      (fast_load(n - 2) & limit) + (fast_load(n + 2) & limit) + (fast_load(nn - 1) & limit) +
                      (fast_load(nn) & limit) + (fast_load(nn + 1) & limit);
    if (c != NULL) {
        const uint16_t *s = c + stride;
        sums += 2 * (centre & limit) + (fast_load(c - 1) & limit) + (fast_load(c + 1) & limit) +
                (fast_load(s) & limit) + (((fast_load(s - 1) & limit) + (fast_load(s + 1) & limit)) >> 1);
    } else {
        sums += sums >> 1;
    }
    NAME(steps)(&sums);
    if (spiked) /* comparisons give -1 */
        sums -= FAST_ACTIVITIES * ((fast_lanes)(all_marks > 0) + (fast_lanes)(all_marks > 2));
    return NAME(octets)(&sums);
}

TARGET static void NAME(contexts)(uint32_t spiked, const uint16_t *error, const uint16_t *before, uint32_t stride,
                                  uint32_t columns, uint8_t *out)
{
    for (uint32_t x = 0; x < columns; x += FAST_CHUNK) {
        const uint16_t *c = before ? before + x : NULL;
        fast_octets found = spiked ? NAME(chunk_contexts)(1, error + x, c, stride)
                                   : NAME(chunk_contexts)(0, error + x, c, stride);
        memcpy(out + x, &found, sizeof found);
    }
}

TARGET INLINE void NAME(refill)(fast_cursor *c)
{
    c->raw += c->bit >> 3;
    c->bit &= 7;
    c->bits = fast_load_u64(c->raw) >> c->bit;
}

TARGET INLINE int32_t NAME(decode)(fast_cursor *c, uint32_t *state, const fast_decoding_table *table)
{
    uint32_t x = *state, slot = x & (FAST_FREQUENCIES - 1);
    const fast_symbol *symbol = &table->symbol[table->slot[slot]];
    x = symbol->frequency * (x >> FAST_FREQUENCY_BITS) + slot - symbol->start;
    /* A word follows whenever the state fell below its range: in a form that compilers make no branch of, for it
     * would be hard to foresee. */
    uint32_t low = x < FAST_STATE_LOW;
    *state = x << (low << 4) | (fast_load_u16(c->words) & (0u - low));
    c->words += 2 * low;
    const uint32_t count = symbol->value & 31, bits = (uint32_t)(c->bits & ((UINT64_C(1) << count) - 1));
    c->bits >>= count;
    c->bit += count;
    return (int32_t)((symbol->value >> 5) + bits);
}

#if defined(WIDE)
/* Raw bits of FAST_LANES values, of which info tells the numbers. */
TARGET INLINE __m256i NAME(raw_bits)(fast_cursor *c, __m256i info)
{
    const __m256i count = _mm256_and_si256(info, _mm256_set1_epi32(31));
    __m256i end = _mm256_add_epi32(count, _mm256_slli_si256(count, 4));
    end = _mm256_add_epi32(end, _mm256_slli_si256(end, 8));
    const uint32_t left = (uint32_t)_mm256_extract_epi32(end, 3), right = (uint32_t)_mm256_extract_epi32(end, 7);
    const uint32_t middle = c->bit + left, after = middle + right;
    __m256i bits;
    if (__builtin_expect((left > FAST_WINDOW) | (right > FAST_WINDOW), 0)) {
        _Alignas(32) uint32_t each[FAST_LANES];
        _mm256_store_si256((__m256i *)each, count);
        for (int lane = 0; lane < FAST_LANES; lane++) {
            NAME(refill)(c);
            c->bit += each[lane];
            each[lane] = (uint32_t)c->bits;
        }
        bits = _mm256_load_si256((const __m256i *)each);
        NAME(refill)(c);
    } else {
        const uint64_t first = fast_load_u64(c->raw) >> c->bit;
        const uint64_t second = fast_load_u64(c->raw + (middle >> 3)) >> (middle & 7);
        const __m256i window = _mm256_setr_m128i(_mm_set1_epi64x((long long)first), _mm_set1_epi64x((long long)second));
        const __m256i start = _mm256_sub_epi32(end, count);
        const __m256i even = _mm256_srlv_epi64(window, _mm256_and_si256(start, _mm256_set1_epi64x(UINT32_MAX)));
        const __m256i odd = _mm256_srlv_epi64(window, _mm256_srli_epi64(start, 32));
        bits = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
        c->raw += after >> 3;
        c->bit = after & 7;
    }
    const __m256i one = _mm256_set1_epi32(1);
    return _mm256_and_si256(bits, _mm256_sub_epi32(_mm256_sllv_epi32(one, count), one));
}

TARGET INLINE __m128i NAME(two_symbols)(const fast_decoding_table *const *tables, const uint8_t *context,
                                        const uint32_t *slot)
{
    const fast_decoding_table *first = tables[context[0]], *second = tables[context[1]];
    return _mm_unpacklo_epi64(_mm_loadl_epi64((const __m128i *)(const void *)&first->symbol[first->slot[slot[0]]]),
                              _mm_loadl_epi64((const __m128i *)(const void *)&second->symbol[second->slot[slot[1]]]));
}

/* FAST_LANES values.  Symbols are looked up one by one: gathering instructions are slower on many processors. */
TARGET INLINE void NAME(decode_octet)(fast_cursor *c, const fast_decoding_table *const *tables, const uint8_t *context,
                                      int32_t *value)
{
    const __m256i slot = _mm256_and_si256(c->state, _mm256_set1_epi32(FAST_FREQUENCIES - 1));
    _Alignas(32) uint32_t slots[FAST_LANES];
    _mm256_store_si256((__m256i *)slots, slot);
    const __m256 a = _mm256_castsi256_ps(_mm256_setr_m128i(NAME(two_symbols)(tables, context, slots),
                                                           NAME(two_symbols)(tables, context + 4, slots + 4)));
    const __m256 b = _mm256_castsi256_ps(_mm256_setr_m128i(NAME(two_symbols)(tables, context + 2, slots + 2),
                                                           NAME(two_symbols)(tables, context + 6, slots + 6)));
    const __m256i place = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
    const __m256i info = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
    const __m256i frequency = _mm256_and_si256(place, _mm256_set1_epi32(UINT16_MAX));
    __m256i x = _mm256_mullo_epi32(frequency, _mm256_srli_epi32(c->state, FAST_FREQUENCY_BITS));
    x = _mm256_add_epi32(x, _mm256_sub_epi32(slot, _mm256_srli_epi32(place, 16)));
    /* The lanes whose state fell below its range take the next words, in order. */
    const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
    const uint32_t lanes = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(low));
    const __m128i words = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)c->words),
                                           _mm_load_si128((const __m128i *)(const void *)fast_spread[lanes]));
    c->words += 2 * (uint32_t)__builtin_popcount(lanes);
    c->state = _mm256_or_si256(_mm256_sllv_epi32(x, _mm256_and_si256(low, _mm256_set1_epi32(16))),
                               _mm256_cvtepu16_epi32(words));
    const __m256i values = _mm256_add_epi32(_mm256_srli_epi32(info, 5), NAME(raw_bits)(c, info));
    _mm256_storeu_si256((__m256i *)(void *)value, values);
}
#else
TARGET INLINE void NAME(decode_octet)(fast_cursor *c, const fast_decoding_table *const *tables, const uint8_t *context,
                                      int32_t *value)
{
    for (int lane = 0; lane < FAST_LANES; lane += 2) {
        NAME(refill)(c);
        value[lane] = NAME(decode)(c, &c->state[lane], tables[context[lane]]);
        value[lane + 1] = NAME(decode)(c, &c->state[lane + 1], tables[context[lane + 1]]);
    }
    NAME(refill)(c);
}
#endif

/* Fewer values than lanes, at the end of a row. */
TARGET static void NAME(decode_rest)(fast_cursor *c, const fast_decoding_table *const *tables, const uint8_t *context,
                                     uint32_t count, int32_t *value)
{
    uint32_t state[FAST_LANES];
    memcpy(state, &c->state, sizeof state);
    for (uint32_t lane = 0; lane < count; lane++) {
        NAME(refill)(c);
        value[lane] = NAME(decode)(c, &state[lane], tables[context[lane]]);
    }
    NAME(refill)(c);
    memcpy(&c->state, state, sizeof state);
}

/* Weighted sums of FAST_CHUNK columns whose two halves have weights of their own: those of a pair of taps stand
 * FAST_CHUNK at a time, four times the left half's and four times the right one's. */
TARGET INLINE void NAME(sums)(const fast_neighbours *around, size_t at, const int16_t *weight, int32_t left,
                              int32_t right, int32_t *restrict out)
{
#if defined(WIDE)
    __m256i low = _mm256_setr_m128i(_mm_set1_epi32(left), _mm_set1_epi32(right)), high = low;
    __m256i even = _mm256_setzero_si256(), odd = even;
    uint32_t p = 0;
    /* Samples side by side are a pair as they stand in memory: for even columns, one further for odd ones. */
    for (; p < around->adjacent; p++) {
        const int16_t *tap = around->tap[2 * p] + at;
        __m256i w = _mm256_load_si256((const __m256i *)(const void *)(weight + FAST_CHUNK * p));
        even = _mm256_add_epi32(even, _mm256_madd_epi16(w, _mm256_loadu_si256((const __m256i *)(const void *)tap)));
        odd = _mm256_add_epi32(odd, _mm256_madd_epi16(w, _mm256_loadu_si256((const __m256i *)(const void *)(tap + 1))));
    }
    for (; p < around->pairs; p++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(around->tap[2 * p] + at));
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(around->tap[2 * p + 1] + at));
        __m256i w = _mm256_load_si256((const __m256i *)(const void *)(weight + FAST_CHUNK * p));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), w));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), w));
    }
    low = _mm256_add_epi32(low, _mm256_unpacklo_epi32(even, odd));
    high = _mm256_add_epi32(high, _mm256_unpackhi_epi32(even, odd));
    _mm256_storeu_si256((__m256i *)(void *)out, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *)(void *)(out + 8), _mm256_permute2x128_si256(low, high, 0x31));
#elif defined(__SSE2__)
    for (int half = 0; half < 2; half++) {
        __m128i low = _mm_set1_epi32(half ? right : left), high = low;
        for (uint32_t p = 0; p < around->pairs; p++) {
            __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(around->tap[2 * p] + at + 8 * half));
            __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(around->tap[2 * p + 1] + at + 8 * half));
            __m128i w = _mm_loadu_si128((const __m128i *)(const void *)(weight + FAST_CHUNK * p + 8 * half));
            low = _mm_add_epi32(low, _mm_madd_epi16(_mm_unpacklo_epi16(a, b), w));
            high = _mm_add_epi32(high, _mm_madd_epi16(_mm_unpackhi_epi16(a, b), w));
        }
        _mm_storeu_si128((__m128i *)(void *)(out + 8 * half), low);
        _mm_storeu_si128((__m128i *)(void *)(out + 8 * half + 4), high);
    }
#else
    for (int half = 0; half < FAST_CHUNK; half += FAST_OCTET) {
        for (int i = half; i < half + FAST_OCTET; i++)
            out[i] = half ? right : left;
        for (uint32_t t = 0; t < 2 * around->pairs; t++) {
            int32_t w = weight[FAST_CHUNK * (t / 2) + (uint32_t)half + t % 2];
            for (int i = half; i < half + FAST_OCTET; i++)
                out[i] += w * around->tap[t][at + (size_t)i];
        }
    }
#endif
}

/* Values to errors and to the sums that the samples of the same two rows are still to be added to. */
TARGET INLINE void NAME(place)(const fast_scaling *scaling, int spiked, const int32_t *value, int32_t *restrict sum,
                               int32_t *restrict mask, uint16_t *restrict error)
{
    for (int i = 0; i < FAST_CHUNK; i++) {
        const int32_t z = value[i] - spiked, size = (z + 1) >> 1, keep = spiked ? -(z >= 0) : -1;
        const int32_t residual = (z >> 1) ^ -(z & 1), scaled = size >> scaling->error_shift;
        const int32_t limited = scaled < FAST_ERROR_LIMIT ? scaled : FAST_ERROR_LIMIT;
        const int32_t added = (residual & keep) | (scaling->spike & ~keep);
        error[i] = (uint16_t)((limited & keep) | ((1 << FAST_SPIKE_BIT) & ~keep));
        sum[i] = (int32_t)((uint32_t)(sum[i] & keep) + ((uint32_t)added << scaling->fraction));
        if (spiked)
            mask[i] = keep;
    }
}

/* Values of an octet of which so many columns are inside. */
TARGET INLINE void NAME(read_octet)(int spiked, fast_cursor *c, const fast_entropy *entropy, const fast_octet *octet,
                                    const uint8_t *context, uint32_t columns, int32_t *value)
{
    if (!octet->copied && columns >= FAST_OCTET) {
        NAME(decode_octet)(c, entropy->by_context, context, value);
        return;
    }
    for (int i = 0; i < FAST_OCTET; i++)
        value[i] = spiked; /* no error */
    if (!octet->copied && columns) {
        fast_cursor rest = *c; /* what is pointed to would not stay in registers */
        NAME(decode_rest)(&rest, entropy->by_context, context, columns, value);
        *c = rest;
    }
}

TARGET INLINE void NAME(read_as)(int spiked, fast_entropy *entropy, const fast_scaling *scaling,
                                 const fast_row_terms *terms, const fast_row *row)
{
    fast_cursor c = {.words = entropy->words.at, .raw = entropy->raw.at, .bit = entropy->raw_bit};
    memcpy(&c.state, entropy->state, sizeof c.state);
    const fast_octet *octet = terms->octet;
    const int16_t *weight = terms->weight;
    for (uint32_t x = 0; x < terms->columns; x += FAST_CHUNK, octet += 2, weight += FAST_CHUNK_WEIGHTS) {
        uint16_t *error = row->error + x;
        if (octet[0].copied && octet[1].copied) {
            memset(error, 0, FAST_CHUNK * sizeof *error);
            continue;
        }
        const uint16_t *before = row->error_before ? row->error_before + x : NULL;
        fast_octets context = NAME(chunk_contexts)(spiked, error, before, terms->stride);
        context += (fast_octets)(fast_words){octet[0].shifts, octet[1].shifts};
        uint8_t contexts[FAST_CHUNK];
        memcpy(contexts, &context, sizeof contexts);
        _Alignas(32) int32_t value[FAST_CHUNK];
        int32_t *sum = row->sum + x;
        /* Each half begins with what waits for the other one, so that the sums between have the time of one. */
        NAME(read_octet)(spiked, &c, entropy, octet, contexts, terms->columns - x, value);
        NAME(sums)(&terms->early, row->at + x, weight, octet[0].offset, octet[1].offset, sum);
        NAME(read_octet)(spiked, &c, entropy, octet + 1, contexts + FAST_OCTET,
                         terms->columns - x > FAST_OCTET ? terms->columns - x - FAST_OCTET : 0, value + FAST_OCTET);
        NAME(place)(scaling, spiked, value, sum, row->mask + x, error);
    }
    memcpy(entropy->state, &c.state, sizeof c.state);
    entropy->words.at = c.words;
    entropy->raw.at = c.raw;
    entropy->raw_bit = c.bit;
}

TARGET static void NAME(read)(fast_entropy *entropy, const fast_scaling *scaling, const fast_row_terms *terms,
                              const fast_row *row)
{
    if (scaling->spiked)
        NAME(read_as)(1, entropy, scaling, terms, row);
    else
        NAME(read_as)(0, entropy, scaling, terms, row);
}
