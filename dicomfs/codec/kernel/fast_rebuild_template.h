/* Rebuilding the samples of the fast stream's rows; see fast_read_template.h. */

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

/* What is left to do for the samples of a chunk are products with the samples before them, an addition and a shift. */
TARGET static inline void NAME(chunk)(int masked, const fast_row_terms *terms, const fast_row *row, uint32_t number,
                                      int32_t *sum)
{
    const uint32_t x = number * FAST_CHUNK;
    const int16_t *weight = terms->weight + number * FAST_CHUNK_WEIGHTS + terms->early.pairs * FAST_CHUNK;
    NAME(sums)(&terms->late, row->at + x, weight, 0, 0, sum);
    for (uint32_t i = 0; i < FAST_CHUNK; i++)
        sum[i] = (int32_t)((uint32_t)(masked ? sum[i] & row->mask[x + i] : sum[i]) + (uint32_t)row->sum[x + i]);
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
    NAME(chunk)(masked, terms, row, number, sum);
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
    NAME(chunk)(masked, terms, upper, number, upper_sum);
    NAME(chunk)(masked, terms, lower, behind, lower_sum);
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
    fast_pad_row_right(upper->sample, terms->columns, terms->stride - FAST_SIDE);
    if (lower != NULL) {
        for (uint32_t t = chunks - ahead; t < chunks; t++)
            NAME(alone)(scaling, masked, terms, lower, t);
        fast_pad_row_right(lower->sample, terms->columns, terms->stride - FAST_SIDE);
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

TARGET static void NAME(deliver)(const int16_t *restrict sample, uint32_t columns, uint32_t half,
                                 const dfk_field *field, uint32_t word_bytes, void *out)
{
    const dfk_field f = *field;
    const uint16_t whole = (uint16_t)(half + f.offset);
    uint16_t *restrict words = out;
    uint8_t *restrict bytes = out;
    if (word_bytes == 2 && f.fold_size == 0 && f.shift == 0)
        for (uint32_t x = 0; x < columns; x++)
            words[x] = (uint16_t)(((uint16_t)(sample[x] + whole) & f.mask) | f.fixed);
    else if (word_bytes == 2)
        for (uint32_t x = 0; x < columns; x++)
            words[x] = dfk_word(f, (uint16_t)(sample[x] + half));
    else
        for (uint32_t x = 0; x < columns; x++)
            bytes[x] = (uint8_t)dfk_word(f, (uint16_t)(sample[x] + half));
}
