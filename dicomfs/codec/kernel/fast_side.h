/* Side information of the fast stream: an adaptive binary arithmetic coder and the numbers coded with it.
 *
 * One set of functions writes and reads: each takes the value to write and returns the value that the stream holds,
 * so that header and class maps are laid down once for both directions.
 */
#ifndef DICOMFS_FAST_SIDE_H
#define DICOMFS_FAST_SIDE_H

#include <stddef.h>
#include <stdint.h>

/* Probability of a set bit in 1/65536, and how often it was updated. */
typedef struct {
    uint16_t probability;
    uint16_t count;
} fast_bit;

#define FAST_NUMBER_LENGTHS 24

/* Model of a number: its bit length in unary, then the bit below the leading one; further bits are even odds. */
typedef struct {
    fast_bit length[FAST_NUMBER_LENGTHS];
    fast_bit second[FAST_NUMBER_LENGTHS];
} fast_number;

typedef struct {
    uint8_t *out;      /* null when reading */
    const uint8_t *in; /* null when writing */
    size_t position, length;
    uint32_t low, high, code;
} fast_side;

void fast_side_read(fast_side *side, const uint8_t *in, size_t length);
void fast_side_write(fast_side *side, uint8_t *out, size_t capacity);
/* Ends writing; returns the length in bytes, which is above the capacity if that was too small. */
size_t fast_side_finish(fast_side *side);

void fast_bits_reset(void *bits, size_t bytes);

uint32_t fast_side_bit(fast_side *side, fast_bit *model, uint32_t bit);
/* count even-odds bits, highest first. */
uint32_t fast_side_plain(fast_side *side, uint32_t count, uint32_t value);
/* Any value below 1 << (FAST_NUMBER_LENGTHS - 1). */
uint32_t fast_side_number(fast_side *side, fast_number *model, uint32_t value);
/* Zero, positive and negative by turns: 0, -1, 1, -2, 2 ... are the numbers 0, 1, 2, 3, 4. */
int32_t fast_side_signed(fast_side *side, fast_number *model, int32_t value);
/* A value below 1 << depth through a binary tree of (1 << depth) models, index 0 unused. */
uint32_t fast_side_tree(fast_side *side, fast_bit *tree, uint32_t depth, uint32_t value);

#endif
