/* The binary arithmetic coder of the fast stream's side information; see fast_side.h and docs/codec.md. */
#include "fast_side.h"

#include <string.h>

#define EVEN_ODDS 32768u
#define COUNT_LIMIT 30u
/* Of the way to certainty, in 1/65536, that a model goes when it was updated so many times. */
#define STEP(count) (131072u / (2u * (count) + 3u))
#define FOUR_STEPS(count) STEP(count), STEP((count) + 1), STEP((count) + 2), STEP((count) + 3)

static const uint16_t steps[COUNT_LIMIT + 2] = {FOUR_STEPS(0),  FOUR_STEPS(4),  FOUR_STEPS(8),  FOUR_STEPS(12),
                                                FOUR_STEPS(16), FOUR_STEPS(20), FOUR_STEPS(24), FOUR_STEPS(28)};

void fast_side_read(fast_side *side, const uint8_t *in, size_t length)
{
    *side = (fast_side){.in = in, .length = length, .high = UINT32_MAX};
    for (int i = 0; i < 4; i++) {
        uint32_t byte = side->position < length ? in[side->position] : 0;
        side->position++;
        side->code = side->code << 8 | byte;
    }
}

void fast_side_write(fast_side *side, uint8_t *out, size_t capacity)
{
    *side = (fast_side){.out = out, .length = capacity, .high = UINT32_MAX};
}

static void put(fast_side *side, uint32_t byte)
{
    if (side->position < side->length)
        side->out[side->position] = (uint8_t)byte;
    side->position++;
}

size_t fast_side_finish(fast_side *side)
{
    /* The reader takes bytes behind the end as zero, so the first byte of high alone names a point between both. */
    put(side, side->high >> 24);
    while (side->position > 0 && side->position <= side->length && side->out[side->position - 1] == 0)
        side->position--;
    return side->position;
}

void fast_bits_reset(void *bits, size_t bytes)
{
    fast_bit *model = bits;
    for (size_t i = 0; i < bytes / sizeof *model; i++)
        model[i] = (fast_bit){EVEN_ODDS, 0};
}

/* Narrows the interval to the part of the bit and moves finished bytes out of or into it. */
static uint32_t code_bit(fast_side *side, uint32_t probability, uint32_t bit)
{
    uint32_t middle = side->low + (uint32_t)((uint64_t)(side->high - side->low) * probability >> 16);
    if (side->out == NULL)
        bit = side->code <= middle;
    if (bit)
        side->high = middle;
    else
        side->low = middle + 1;
    while (((side->low ^ side->high) & 0xFF000000u) == 0) {
        if (side->out != NULL) {
            put(side, side->high >> 24);
        } else {
            uint32_t byte = side->position < side->length ? side->in[side->position] : 0;
            side->position += side->position < side->length;
            side->code = side->code << 8 | byte;
        }
        side->low <<= 8;
        side->high = side->high << 8 | 0xFF;
    }
    return bit;
}

uint32_t fast_side_bit(fast_side *side, fast_bit *model, uint32_t bit)
{
    uint32_t probability = model->probability;
    bit = code_bit(side, probability, bit);
    uint32_t step = steps[model->count];
    if (bit)
        probability += (uint32_t)((uint64_t)(65535u - probability) * step >> 16);
    else
        probability -= (uint32_t)((uint64_t)(probability - 1u) * step >> 16);
    model->probability = (uint16_t)probability;
    model->count += model->count < COUNT_LIMIT;
    return bit;
}

uint32_t fast_side_plain(fast_side *side, uint32_t count, uint32_t value)
{
    uint32_t found = 0;
    while (count-- > 0)
        found = found << 1 | code_bit(side, EVEN_ODDS, value >> count & 1);
    return found;
}

uint32_t fast_side_number(fast_side *side, fast_number *model, uint32_t value)
{
    uint32_t wanted = 0, length = 0;
    while (value >> wanted)
        wanted++;
    while (length < FAST_NUMBER_LENGTHS - 1 && fast_side_bit(side, &model->length[length], length < wanted))
        length++;
    if (length < 2)
        return length;
    uint32_t second = fast_side_bit(side, &model->second[length], value >> (length - 2) & 1);
    uint32_t rest = fast_side_plain(side, length - 2, value & ((1u << (length - 2)) - 1));
    return (2u | second) << (length - 2) | rest;
}

int32_t fast_side_signed(fast_side *side, fast_number *model, int32_t value)
{
    uint32_t folded = value < 0 ? 2u * (uint32_t)(-(value + 1)) + 1u : 2u * (uint32_t)value;
    folded = fast_side_number(side, model, folded);
    return folded & 1 ? -(int32_t)(folded >> 1) - 1 : (int32_t)(folded >> 1);
}

uint32_t fast_side_tree(fast_side *side, fast_bit *tree, uint32_t depth, uint32_t value)
{
    uint32_t node = 1;
    while (depth-- > 0)
        node = node << 1 | fast_side_bit(side, &tree[node], value >> depth & 1);
    uint32_t top = 1;
    while (top << 1 <= node)
        top <<= 1;
    return node - top;
}
