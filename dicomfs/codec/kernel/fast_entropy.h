/* The samples' entropy coder of the fast stream, static rANS in interleaved lanes, in its decoding form. */
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

typedef struct {
    const uint32_t *slots; /* FAST_FREQUENCIES: symbol, frequency less one << 8, place among its slots << 20 */
    const uint32_t *values; /* of each symbol: first value << 5, raw bits */
} fast_decoding_table;

typedef struct {
    uint32_t state[FAST_LANES];
    fast_input words, raw;
    uint32_t raw_bit; /* of the first byte, 0 to 7 */
    fast_decoding_table by_context[FAST_CONTEXTS];
} fast_entropy;

/* Fills the slots and values of one table. */
void fast_decoding_table_fill(const fast_plan *plan, const fast_table *table, uint32_t *slots, uint32_t *values);

void fast_input_prepare(fast_input *input);
/* The values of columns first (a multiple of FAST_LANES) to last; both inputs are prepared. */
void fast_entropy_values(fast_entropy *entropy, int32_t shift, const uint8_t *context, uint32_t first, uint32_t last,
                         int32_t *value);

#endif
