/* What the parts of the fast stream's encoder share.  Everything that is chosen here is a matter of density alone:
 * the decoder follows the plan.  Floating point is binary64 with a fixed order of operations, so that the same
 * samples give the same stream on every machine.
 */
#ifndef DICOMFS_FAST_ENCODER_H
#define DICOMFS_FAST_ENCODER_H

#include "fast_rows.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#define FAST_SKIPPED 255 /* context of a sample that a copied block covers */
#define FAST_MOST_DIMENSIONS (FAST_TAPS + 2) /* taps, the constant, the sample itself */
#define FAST_PRODUCTS (FAST_MOST_DIMENSIONS * (FAST_MOST_DIMENSIONS + 1) / 2)
#define FAST_SPARE_PRODUCTS 3 /* written behind the last block's */
#define FAST_BLOCK_LOG 3      /* the encoder makes blocks of FAST_OCTET by FAST_OCTET */
#define FAST_SPIKE_VALUE (UINT32_C(1) << 31) /* marks the value of a sample that is the spike */

typedef struct {
    uint32_t classes;       /* most classes of a stage */
    uint32_t trained;       /* most blocks that predictors are fitted to */
    uint32_t iterations;
    uint32_t candidates;    /* classes a block tries in full */
    uint32_t lists;         /* of taps that are tried */
} fast_effort;

/* Sums of products of a block's centred samples: entry (i, j <= i) at i * (i + 1) / 2 + j.  The dimensions are the
 * taps, the constant 1, the sample itself. */
typedef struct {
    float *product;
    int32_t mean;     /* what was subtracted */
    uint32_t shift;   /* what the rest was divided by */
    uint32_t samples;
    uint32_t class;
    double error;     /* squares of its class's errors */
} fast_block;

/* Weighted sums of the products of a class's blocks, in parts that are put together when they are solved. */
typedef struct {
    double product[FAST_PRODUCTS];
    double sum[FAST_MOST_DIMENSIONS];   /* of the samples as they were centred */
    double moved[FAST_MOST_DIMENSIONS]; /* the same times the way of the block's mean from the origin */
    double samples, away, away_squared;
} fast_system;

typedef struct {
    dfk_shape shape;
    fast_effort effort;
    fast_geometry geometry;
    const fast_rows *rows;
    fast_plan plan;
    fast_frame *frames;
    uint8_t *classes; /* of all frames' blocks */
    fast_block *block; /* effort.trained of them */
    float *product;    /* of these blocks */
    fast_system *system; /* FAST_CLASSES of them */
    double *normal;      /* FAST_PRODUCTS: the one that is being solved */
    uint32_t *histogram; /* 1 << 16 */
    uint8_t *used;
    uint16_t *rank;
    uint32_t *value; /* per sample: that of its residual, with FAST_SPIKE_VALUE where it is the spike */
    uint8_t *context;
    uint8_t *symbol;
    uint16_t *words; /* one more than samples: the first may be written without counting */
    uint8_t *raw;
    uint8_t *row_context;
    uint32_t tokens[FAST_CONTEXTS][FAST_TOKENS + 1]; /* the last counts spikes */
    uint64_t total[FAST_CONTEXTS];                   /* of the values, without spikes */
} fast_encoder;

static inline uint32_t fast_blocks(uint32_t length, uint32_t block_log)
{
    return (length + (1u << block_log) - 1) >> block_log;
}

/* log2(value) for values above 0, by arithmetic that is the same everywhere. */
double fast_log2(double value);

/* Chooses folding and fills all planes with samples; DFK_BAD_ARGUMENT where one needs more than the bits. */
int fast_choose_samples(fast_encoder *encoder, const void *samples);
/* Chooses taps, predictors and classes of a stage, which leaves its samples' values. */
void fast_fit_stage(fast_encoder *encoder, uint32_t stage);
/* Chooses the classes of a stage's blocks (those that are copies have theirs) and computes the values. */
void fast_choose_classes(fast_encoder *encoder, uint32_t stage, uint32_t first_frame, uint32_t last_frame);
/* Computes contexts of the first frames, marks their spikes and counts tokens per context. */
void fast_code_values(fast_encoder *encoder, uint32_t frames);
/* Chooses how far each class moves the activity, from values coded without. */
void fast_choose_shifts(fast_encoder *encoder, uint32_t frames);
/* Chooses whether one sample value has a symbol of its own, against values of so many frames coded without. */
void fast_choose_spike(fast_encoder *encoder, uint32_t frames);
/* Chooses the tables of all values and which contexts share them. */
void fast_choose_tables(fast_encoder *encoder);
/* Bits that the counted tokens take with a table for every context. */
double fast_token_bits(const fast_encoder *encoder);
/* Writes all values: words backwards from the end of their buffer, raw bits from the front of theirs.  Returns the
 * number of words. */
size_t fast_write_values(fast_encoder *encoder, uint32_t state[FAST_LANES], size_t *raw_bytes);

/* Products of one block, into its memory; the class is left alone. */
void fast_gram(const fast_encoder *encoder, uint32_t stage, uint32_t frame, uint32_t row, uint32_t column,
               fast_block *block);
/* Adds a block's products to a class's system of `count` dimensions. */
void fast_gram_add(const fast_encoder *encoder, const fast_block *block, uint32_t count, double weight, double origin,
                   fast_system *system);
/* Puts a system together: products of samples less the origin, held like a block's. */
void fast_gram_sum(const fast_system *system, uint32_t count, double *normal);
/* Solves normal equations for all dimensions (`count`) but the last of the system; 0 where there is no solution. */
int fast_solve(const double *system, uint32_t count, double *solution);

#endif
