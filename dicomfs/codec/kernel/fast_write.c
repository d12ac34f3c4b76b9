/* Writes the values of a fast stream: raw bits forwards, the lanes' words backwards. */
#include "fast_encoder.h"

#include <string.h>

#define INVERSE_BITS 43

/* With the inverse, 2**43 / frequency rounded up, the quotients of all states below frequency << 21 are exact. */
typedef struct {
    uint64_t inverse;
    uint32_t frequency, start;
} coding_symbol;

typedef struct {
    coding_symbol symbol[FAST_TOKENS + 1];
    uint32_t shift, spiked;
} coding_table;

static void fill(const fast_plan *plan, const fast_table *table, coding_table *c)
{
    uint16_t frequency[FAST_TOKENS + 1];
    uint32_t symbols = fast_frequencies(plan, table, frequency), start = 0;
    for (uint32_t i = 0; i < symbols; i++) {
        uint64_t inverse = ((UINT64_C(1) << INVERSE_BITS) + frequency[i] - 1) / frequency[i];
        c->symbol[i] = (coding_symbol){inverse, frequency[i], start};
        start += frequency[i];
    }
    c->shift = table->shift;
    c->spiked = plan->spiked;
}

/* The symbol of a value, with its raw bits. */
static inline uint32_t symbol_of(const coding_table *c, uint32_t value, uint32_t *raw, uint32_t *bits)
{
    *raw = *bits = 0;
    if (value & FAST_SPIKE_VALUE)
        return 0;
    uint32_t extra, token = fast_token_of(value >> c->shift), base = fast_token_base(token, &extra) << c->shift;
    *raw = value - base;
    *bits = extra + c->shift;
    return token + c->spiked;
}

static size_t write_raw(fast_encoder *e, const coding_table *tables)
{
    size_t count = (size_t)e->shape.frames * e->shape.rows * e->shape.columns, at = 0;
    uint64_t pending = 0;
    uint32_t held = 0;
    for (size_t i = 0; i < count; i++) {
        if (e->context[i] == FAST_SKIPPED)
            continue;
        uint32_t raw, bits;
        e->symbol[i] = (uint8_t)symbol_of(&tables[e->plan.table_of[e->context[i]]], e->value[i], &raw, &bits);
        pending |= (uint64_t)raw << held;
        for (held += bits; held >= 8; held -= 8, pending >>= 8)
            e->raw[at++] = (uint8_t)pending;
    }
    if (held)
        e->raw[at++] = (uint8_t)pending;
    return at;
}

size_t fast_write_values(fast_encoder *e, uint32_t state[FAST_LANES], size_t *raw_bytes)
{
    coding_table tables[FAST_TABLES];
    for (uint32_t t = 0; t < e->plan.tables; t++)
        fill(&e->plan, &e->plan.table[t], &tables[t]);
    *raw_bytes = write_raw(e, tables);
    const uint32_t columns = e->shape.columns;
    size_t rows = (size_t)e->shape.frames * e->shape.rows;
    uint16_t *const last = e->words + 1 + rows * columns, *end = last;
    for (uint32_t lane = 0; lane < FAST_LANES; lane++)
        state[lane] = FAST_STATE_LOW;
    while (rows-- > 0) {
        const uint8_t *context = e->context + rows * columns, *symbol = e->symbol + rows * columns;
        for (uint32_t x = columns; x-- > 0;) {
            if (context[x] == FAST_SKIPPED)
                continue;
            const coding_symbol *c = &tables[e->plan.table_of[context[x]]].symbol[symbol[x]];
            uint32_t s = state[x % FAST_LANES];
            /* A word goes out where the state would grow too large: without a branch, hard to foresee. */
            const uint32_t full = s >> (32 - FAST_FREQUENCY_BITS) >= c->frequency;
            end[-1] = (uint16_t)s;
            end -= full;
            s >>= full << 4;
            const uint32_t quotient = (uint32_t)(s * c->inverse >> INVERSE_BITS);
            state[x % FAST_LANES] = s + c->start + quotient * (FAST_FREQUENCIES - c->frequency);
        }
    }
    return (size_t)(last - end);
}
