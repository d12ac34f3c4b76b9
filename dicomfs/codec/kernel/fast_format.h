/* What a fast stream says before its samples: constants, the plan (everything a header holds) and the functions that
 * both encoder and decoder derive from it.  docs/codec.md, "The fast stream", specifies all of it.
 */
#ifndef DICOMFS_FAST_FORMAT_H
#define DICOMFS_FAST_FORMAT_H

#include "common.h"
#include "fast_side.h"
#include "kernel.h"

#define FAST_VERSION 1
enum { FAST_STORED = 0, FAST_CODED = 1 };

#define FAST_LANES 8
#define FAST_FREQUENCY_BITS 11
#define FAST_FREQUENCIES (1u << FAST_FREQUENCY_BITS)
#define FAST_STATE_LOW 65536u

#define FAST_TAPS 44
#define FAST_SERIAL_TAPS 2
#define FAST_STAGES (DFK_REFERENCES + 1)
#define FAST_CLASSES 64
#define FAST_SKIPS 2 /* classes FAST_COPY_ABOVE and FAST_COPY_BEFORE */
enum { FAST_COPY_ABOVE = FAST_CLASSES, FAST_COPY_BEFORE };
#define FAST_MOST_DISTANCE 255

#define FAST_TOKENS 64
#define FAST_DIRECT 24 /* values below it are tokens of their own */
#define FAST_TABLES 32
#define FAST_MOST_SHIFT 10 /* steps that a class moves the activity by, up or down */
#define FAST_ACTIVITIES (64 + 2 * FAST_MOST_SHIFT) /* steps of neighbouring errors */
#define FAST_SURROUNDS 3   /* how much of the neighbourhood is the spike value */
#define FAST_CONTEXTS (FAST_ACTIVITIES * FAST_SURROUNDS)
#define FAST_ERROR_LIMIT 2047 /* an error in the error plane */
#define FAST_SPIKE_BIT 15 /* of the error plane marks a spike */
#define FAST_RAW_LIMIT 20 /* most raw bits of one value */

/* Rows and columns of padding around a plane; taps reach no further. */
#define FAST_ABOVE 3
#define FAST_BELOW 2
#define FAST_SIDE 32

typedef struct {
    int8_t reference; /* 0: this frame, else the number of the reference */
    int8_t row, column;
} fast_tap;

extern const fast_tap fast_taps[FAST_TAPS];

typedef struct {
    uint32_t used;
    uint32_t taps;
    uint8_t tap[FAST_TAPS];
    uint32_t classes;
    int16_t weight[FAST_CLASSES][FAST_TAPS];
    int32_t offset[FAST_CLASSES]; /* with the half that rounds */
    int8_t shift[FAST_CLASSES];   /* of the activity */
} fast_stage;

typedef struct {
    uint32_t shift; /* low bits of a value that are raw */
    uint32_t tokens;
    uint32_t scale, shape;
    uint32_t spike; /* frequency of the spike symbol */
    uint32_t corrected;
    int8_t correction[FAST_TOKENS];
} fast_table;

typedef struct {
    uint32_t folded;
    uint32_t values;   /* distinct samples of a folded stream */
    uint32_t bits;     /* of the samples in the planes */
    uint32_t block_log;
    uint32_t fraction; /* bits of a weight below one */
    uint32_t error_shift;
    uint32_t spiked, spike;
    uint32_t references;
    uint32_t distance[DFK_REFERENCES];
    uint32_t tables;
    uint8_t table_of[FAST_CONTEXTS];
    fast_stage stage[FAST_STAGES];
    fast_table table[FAST_TABLES];
} fast_plan;

/* References that frame number `frame` has, and thereby its stage: those with a distance up to it, in order. */
uint32_t fast_stage_of(const fast_plan *plan, uint32_t frame, uint32_t distance[DFK_REFERENCES]);
/* Marks the stages that occur in a stream of so many frames. */
void fast_mark_stages(fast_plan *plan, uint32_t frames);

/* Writes or reads the header.  used, (1 << shape->bits) bytes, says which samples occur when the plan is folded.
 * Returns 0 or DFK_DAMAGED. */
int fast_header(fast_side *side, fast_plan *plan, const dfk_shape *shape, uint8_t *used);

/* Whether no partial sum of a predictor can leave 32 bits. */
int fast_weights_hold(const fast_plan *plan, const fast_stage *stage, uint32_t class);

/* Models of the class maps, and the class of one block. */
typedef struct {
    fast_bit same[5];
    fast_bit second[3];
    fast_bit third[2];
    fast_bit tree[2 * (FAST_CLASSES + 64)];
} fast_map_models;

/* The class of a block, given those of the blocks left of, above and at the same place before it. */
uint32_t fast_side_class(fast_side *side, fast_map_models *models, uint32_t left, uint32_t above, uint32_t before,
                         uint32_t class);

/* Frequencies of a table's tokens, which add up to FAST_FREQUENCIES.  With a spike symbol it is number 0 and the
 * tokens follow.  Returns the number of symbols. */
uint32_t fast_frequencies(const fast_plan *plan, const fast_table *table, uint16_t frequency[FAST_TOKENS + 1]);
/* Weight of each token by scale, shape and corrections alone. */
uint64_t fast_token_weight(const fast_table *table, uint32_t token);

/* First value (in units of 1 << shift) of a token, and how many bits below it are raw. */
static inline uint32_t fast_token_base(uint32_t token, uint32_t *extra)
{
    if (token < FAST_DIRECT) {
        *extra = 0;
        return token;
    }
    uint32_t octave = 3 + ((token - FAST_DIRECT) >> 1), half = (token - FAST_DIRECT) & 1;
    *extra = octave - 1;
    return FAST_DIRECT - 8 + ((2 + half) << (octave - 1));
}

static inline uint32_t fast_token_of(uint32_t value)
{
    if (value < FAST_DIRECT)
        return value;
    uint32_t beyond = value - (FAST_DIRECT - 8), octave = dfk_log2(beyond);
    return FAST_DIRECT + ((octave - 3) << 1) + (beyond >> (octave - 1) & 1);
}

#endif
