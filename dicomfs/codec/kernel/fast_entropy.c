/* Decoding of the values of a fast stream; see fast_entropy.h. */
#include "fast_entropy.h"

#include <string.h>

void fast_decoding_table_fill(const fast_plan *plan, const fast_table *table, uint32_t *slots, uint32_t *values)
{
    uint16_t frequency[FAST_TOKENS + 1];
    uint32_t count = fast_frequencies(plan, table, frequency);
    for (uint32_t symbol = 0; symbol < count; symbol++) {
        uint32_t bits = (uint32_t)(frequency[symbol] - 1) << 8 | symbol;
        for (uint32_t place = 0; place < frequency[symbol]; place++)
            *slots++ = bits | place << 20;
        if (plan->spiked && symbol == 0) {
            values[0] = 0;
            continue;
        }
        uint32_t extra, base = fast_token_base(symbol - plan->spiked, &extra) << table->shift;
        values[symbol] = (base + plan->spiked) << 5 | (extra + table->shift);
    }
}

void fast_input_prepare(fast_input *input)
{
    size_t left = (size_t)(input->end - input->at);
    if (input->in_tail || left >= input->reserve)
        return;
    memcpy(input->tail, input->at, left);
    memset(input->tail + left, 0, input->reserve);
    input->at = input->tail;
    input->end = input->tail + left;
    input->in_tail = 1;
}

static inline uint64_t load_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

static inline uint32_t load_u16(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8;
}

/* Reading positions, in registers while a run of values is decoded. */
typedef struct {
    const uint8_t *words, *raw;
    uint64_t bits;
    uint32_t bit;
} cursor;

static inline __attribute__((always_inline)) int32_t decode(cursor *c, uint32_t *state,
                                                            const fast_decoding_table *table)
{
    uint32_t x = *state, slot = table->slots[x & (FAST_FREQUENCIES - 1)];
    x = ((slot >> 8 & (FAST_FREQUENCIES - 1)) + 1) * (x >> FAST_FREQUENCY_BITS) + (slot >> 20);
    /* A word follows whenever the state fell below its range; without a branch, for it is hard to foresee. */
    uint32_t refilled = x << 16 | load_u16(c->words), low = x < FAST_STATE_LOW;
    *state = low ? refilled : x;
    c->words += 2 * low;
    uint32_t info = table->values[slot & 0xFF], count = info & 31;
    uint32_t value = (info >> 5) + (uint32_t)(c->bits & ((UINT64_C(1) << count) - 1));
    c->bits >>= count;
    c->bit += count;
    return (int32_t)value;
}

static inline __attribute__((always_inline)) void refill(cursor *c)
{
    c->raw += c->bit >> 3;
    c->bit &= 7;
    c->bits = load_u64(c->raw) >> c->bit;
}

void fast_entropy_values(fast_entropy *entropy, int32_t shift, const uint8_t *context, uint32_t first, uint32_t last,
                         int32_t *value)
{
    const fast_decoding_table *tables = entropy->by_context + shift;
    cursor c = {entropy->words.at, entropy->raw.at, 0, entropy->raw_bit};
    uint32_t state[FAST_LANES], x = first;
    memcpy(state, entropy->state, sizeof state);
    for (; x + FAST_LANES <= last; x += FAST_LANES) {
        for (uint32_t lane = 0; lane < FAST_LANES; lane++) {
            if (lane % 2 == 0)
                refill(&c);
            value[x + lane] = decode(&c, &state[lane], &tables[context[x + lane]]);
        }
    }
    for (uint32_t lane = 0; x < last; x++, lane++) {
        refill(&c);
        value[x] = decode(&c, &state[lane], &tables[context[x]]);
    }
    refill(&c);
    memcpy(entropy->state, state, sizeof state);
    entropy->words.at = c.words;
    entropy->raw.at = c.raw;
    entropy->raw_bit = c.bit;
}
