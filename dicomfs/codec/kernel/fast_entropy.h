/* The entropy coder of the fast stream's samples, static rANS in interleaved lanes, in its decoding form. */
#ifndef DICOMFS_FAST_ENTROPY_H
#define DICOMFS_FAST_ENTROPY_H

#include "fast_format.h"

/* Bytes read from the front.  Where fewer than `reserve` are left they are moved into `tail`, behind which zeros
 * follow, so that a row can be read without looking at the end; whether it went beyond shows afterwards. */
typedef struct {
    const uint8_t *at, *end;
    uint8_t *tail; /* 2 * reserve bytes */
    size_t reserve;
    int in_tail;
} fast_input;

/* What a symbol says: its frequency and first slot, its first value << 5 with the number of raw bits. */
typedef struct {
    uint16_t frequency, start;
    uint32_t value;
} fast_symbol;

/* The symbols of all slots apart from what they say: the whole of a table must stay in the nearest cache. */
typedef struct {
    uint8_t slot[FAST_FREQUENCIES];
    fast_symbol symbol[FAST_TOKENS + 1];
    fast_symbol spare[8 - (FAST_TOKENS + 1) % 8]; /* keeps tables from sharing cache lines */
} fast_decoding_table;

typedef struct {
    uint32_t state[FAST_LANES];
    fast_input words, raw;
    uint32_t raw_bit; /* of the first byte, 0 to 7 */
    const fast_decoding_table *by_context[FAST_CONTEXTS];
} fast_entropy;

void fast_decoding_table_fill(const fast_plan *plan, const fast_table *table, fast_decoding_table *out);
void fast_input_prepare(fast_input *input);

static inline uint64_t fast_load_u64(const uint8_t *from)
{
    uint64_t value;
    __builtin_memcpy(&value, from, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

static inline uint32_t fast_load_u16(const uint8_t *from)
{
    uint16_t value;
    __builtin_memcpy(&value, from, sizeof value);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap16(value);
#endif
    return value;
}

#endif
