/* What encoder and decoder of the dense stream know alike while they go through the samples. */
#ifndef DICOMFS_DENSE_MODEL_H
#define DICOMFS_DENSE_MODEL_H

#include "common.h"
#include "dense_linear.h"

/* Planes have room around the samples for taps and for whole segments. */
#define DENSE_MARGIN 16
#define DENSE_TOP 3
#define DENSE_BOTTOM 2

/* Cells hold the normal equations of DENSE_SEGMENT columns times this many rows. */
#define DENSE_CELL_ROWS 8
#define DENSE_CELL_MARGIN 2
/* Weights serve this many rows. */
#define DENSE_SOLVE_ROWS(level) ((level) ? 1 : 2)

/* Sets of weights: level 1 blends the predictions of three windows, the last of which uses fewer taps. */
#define DENSE_SOLUTIONS 3
#define DENSE_USED_SOLUTIONS(level) ((level) ? DENSE_SOLUTIONS : 1)

#define DENSE_ENERGIES 80 /* quarters of octaves of an energy */
#define DENSE_SETS 20     /* weight sets of a node */
#define DENSE_CONTEXTS 8
#define DENSE_USED_CONTEXTS(level) ((level) ? DENSE_CONTEXTS : 5)
/* Weights of a mixer: of the contexts, of a constant input, and such as have nothing to weigh. */
#define DENSE_MIX_LANES(level) ((level) ? 16 : 8)
#define DENSE_WHOLE_WEIGHT 16384 /* 1 */
/* Weights of a batch of steps at level 0, in the place of those of its nodes (see dense_batch.h). */
#define DENSE_BATCH_LANES (BATCH_STEPS * 8)
#define DENSE_MIXERS(level) ((level) ? 2 : 1)
#define DENSE_REFINE_STEPS 33

/* Decisions about a sample: which slot of a context and which weights they use. */
enum {
    NODE_SIGN = 0,
    NODE_POSITIVE = 1, /* unary steps of residuals of at least 0 */
    NODE_NEGATIVE = 9, /* and of the others */
    SIGNED_STEPS = 7,
    NODE_UNARY = 16, /* later steps */
    BATCH_STEPS = 4, /* which level 0 takes together: nearly nine in ten residuals end within them */
    UNARY_STEPS = 24,
    NODE_SPIKE = 33,
    NODE_PARITY = 35,
    NODES = 48
};

#define DENSE_ESCAPES 24

typedef struct {
    int32_t mean; /* in 1/256 of 1/32 grey level */
    int32_t count;
} dense_bias;

/* What is known about a segment before its samples are, and what its samples leave for training. */
typedef struct {
    float terms[DENSE_MOST_TERMS][DENSE_SEGMENT];
    float base[DENSE_SEGMENT];
    float partial[DENSE_SOLUTIONS][DENSE_SEGMENT];
    int32_t above[DENSE_SEGMENT];  /* energy of the rows above, weight 8 of 12 */
    int32_t behind[DENSE_SEGMENT]; /* energy of the first reference, weight 12 */
    int32_t behind_log[DENSE_SEGMENT]; /* the same in half octaves */
    int32_t sides[DENSE_SEGMENT];      /* whether its samples on either side are lower */
    float energy[DENSE_SEGMENT];
} dense_segment;

typedef struct dense_model {
    dense_header header;
    dfk_shape shape;
    dense_coder coder;
    uint32_t frame; /* the next one */
    uint32_t planes;
    uint32_t cells;     /* cells of a row */
    uint32_t cell_rows; /* rows of cells */
    size_t stride, plane_samples;

    uint16_t *pixels, *errors; /* planes of the last frames, frame f in plane f % planes */
    int8_t *signs[2];          /* of the errors of the row before and of this one */
    uint16_t *solution_errors[DENSE_SOLUTIONS][3]; /* of this row and the two before */
    dense_f8 *history;         /* cells of the frame before, replaced row by row */
    dense_f8 *cell[2];         /* cells of the row before and of this row, with cells of zeros on either side */
    dense_f8 *fixed;           /* for each cell and solution the part of the window that stays during a row of cells */
    float *weights;
    int32_t *solved; /* for each cell, for which rows its weights are */

    uint32_t *slots[DENSE_CONTEXTS];
    int16_t *mixer[2];
    uint32_t *refine;
    dense_bias *bias[2];
    uint32_t *low;
    uint32_t escapes[DENSE_ESCAPES];
    uint32_t flat[2];
    int16_t stretch[4096];
    uint16_t squash[4096];

    /* of the frame being coded */
    uint16_t *row0, *error0;
    float top; /* the largest prediction, in 1/32 grey level */
    const uint16_t *reference[DFK_REFERENCES];
    const uint16_t *reference_errors;
    const uint16_t *tap[DENSE_MOST_TERMS]; /* at column 0 of the row being coded */
    dense_segment segment __attribute__((aligned(64)));
} dense_model;

static const uint32_t dense_context_count[DENSE_CONTEXTS] = {
    9 * 4 * 4 * (DENSE_ENERGIES / 8),
    (DENSE_ENERGIES / 2) * (DENSE_ENERGIES / 2),
    16 * (DENSE_ENERGIES / 2),
    32 * (DENSE_ENERGIES / 2),
    DENSE_ENERGIES * (DENSE_ENERGIES / 4),
    128 * (DENSE_ENERGIES / 8),
    (DENSE_ENERGIES / 2) * (DENSE_ENERGIES / 2),
    9 * 9 * (DENSE_ENERGIES / 4),
};
#define DENSE_BIAS0 (128 * (DENSE_ENERGIES / 4))
#define DENSE_BIAS1 (9 * 4 * (DENSE_ENERGIES / 4))
#define DENSE_LOWS (DENSE_ENERGIES * 16)
#define DENSE_REFINES (NODES * (DENSE_ENERGIES / 2) * DENSE_REFINE_STEPS)

/* Lays a model out in memory; with memory null only counts.  Returns the bytes, or DFK_BAD_ARGUMENT. */
int64_t dense_layout(dense_model **model, const dfk_shape *shape, const dense_header *header, void *memory,
                     size_t bytes);

/* Brings a model that is laid out to the state before the first frame. */
void dense_start(dense_model *model);

/* Codes the next frame with the best instructions that the machine has; samples is null to decode. */
void dense_code_frame(dense_model *model, const uint16_t *samples);

/* The first row of a frame; rows from -DENSE_TOP to rows + DENSE_BOTTOM - 1 exist. */
DENSE_INLINE uint16_t *dense_plane(const dense_model *model, uint16_t *planes, uint32_t frame) {
    return planes + model->plane_samples * (frame % model->planes) + model->stride * DENSE_TOP + DENSE_MARGIN;
}

/* Cell x of the row of cells before (0) or of this one (1). */
DENSE_INLINE dense_f8 *dense_cell(const dense_model *model, int which, uint32_t x, const int level) {
    return model->cell[which] + (size_t)(x + DENSE_CELL_MARGIN) * DENSE_GROUPS(DENSE_BLOCKS(level));
}

void dense_frame_base(dense_model *model, const uint16_t *samples);
void dense_frame_avx2(dense_model *model, const uint16_t *samples);

#endif
