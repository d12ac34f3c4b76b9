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
/* Weights serve this many rows. */
#ifndef DENSE_SOLVE_ROWS
#define DENSE_SOLVE_ROWS 2
#endif

#define DENSE_ENERGIES 80
#define DENSE_MIXED 3               /* contexts that are mixed at level 0 */
#define DENSE_INPUTS (DENSE_MIXED + 1)
#define DENSE_SETS 16               /* weight sets of a node */

/* Decisions about a sample: which slot of a context and which weights they use. */
enum {
    NODE_SIGN = 0,
    NODE_POSITIVE = 1, /* unary steps of residuals of at least 0 */
    NODE_NEGATIVE = 9, /* and of the others */
    SIGNED_STEPS = 7,
    NODE_UNARY = 16, /* later steps */
    UNARY_STEPS = 24,
    NODE_SPIKE = 33,
    NODE_PARITY = 35,
    NODES = 48
};

#define DENSE_ESCAPES 24

typedef struct {
    int32_t mean; /* 1/256 of 1/32 grey level */
    int32_t count;
} dense_bias;

/* What is known about a segment before its samples are. */
typedef struct {
    float terms[DENSE_MOST_TERMS][DENSE_SEGMENT] __attribute__((aligned(64)));
    float base[DENSE_SEGMENT] __attribute__((aligned(64)));
    float partial[DENSE_SEGMENT] __attribute__((aligned(64)));
    int32_t above[DENSE_SEGMENT] __attribute__((aligned(64)));  /* energy of the row above, weight 7 of 12 */
    int32_t behind[DENSE_SEGMENT] __attribute__((aligned(64))); /* energy of the first reference, weight 12 */
    float energy[DENSE_SEGMENT] __attribute__((aligned(64)));
    int16_t pairs[DENSE_SEGMENT / 2][2 * DENSE_MOST_TERMS] __attribute__((aligned(64)));
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
    int8_t *signs[2];
    dense_f8 *history; /* cells of the frame before, replaced row by row */
    dense_f8 *cell[2]; /* cells of the row before and of this row, with one cell of zeros on either side */
    dense_f8 *fixed;   /* the part of the window sum that stays during a row of cells */
    float *weights;
    int32_t *solved; /* row for which a cell's weights were solved */

    uint32_t *slots[DENSE_MIXED];
    int32_t *mixer;
    dense_bias *bias[2];
    uint32_t *low;
    uint32_t escapes[DENSE_ESCAPES];
    uint32_t flat[2];
    int16_t stretch[4096];
    uint16_t squash[4096];
    int32_t rate[1024];

    /* of the frame being coded */
    uint16_t *row0, *error0;
    const uint16_t *reference[DFK_REFERENCES];
    const uint16_t *reference_errors;
    dense_segment segment __attribute__((aligned(64)));
} dense_model;

static const uint32_t dense_context_count[DENSE_MIXED] = {
    DENSE_ENERGIES, (DENSE_ENERGIES / 2) * (DENSE_ENERGIES / 2), 16 * (DENSE_ENERGIES / 2)};
#define DENSE_BIAS0 (128 * (DENSE_ENERGIES / 4))
#define DENSE_BIAS1 (9 * 4 * (DENSE_ENERGIES / 4))
#define DENSE_LOWS (DENSE_ENERGIES * 16)

/* Lays a model out in memory; with memory null only counts.  Returns the bytes, or DFK_BAD_ARGUMENT. */
int64_t dense_layout(dense_model **model, const dfk_shape *shape, const dense_header *header, void *memory,
                     size_t bytes);

/* Brings a model that is laid out to the state before the first frame. */
void dense_start(dense_model *model);

/* Codes the next frame with the best instructions that the machine has; samples is null to decode. */
void dense_code_frame(dense_model *model, const uint16_t *samples);

/* The row of samples of plane y of the frame, for y from -DENSE_TOP to rows + DENSE_BOTTOM - 1. */
DENSE_INLINE uint16_t *dense_plane(const dense_model *model, uint16_t *planes, uint32_t frame) {
    return planes + model->plane_samples * (frame % model->planes) + model->stride * DENSE_TOP + DENSE_MARGIN;
}

void dense_frame_base(dense_model *model, const uint16_t *samples);
void dense_frame_avx2(dense_model *model, const uint16_t *samples);

#endif
