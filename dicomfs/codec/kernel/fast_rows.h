/* Frames with padding, and the work on their rows that is done many samples at a time.
 *
 * The row functions exist once in portable form and once more where the processor offers wider vectors; both give
 * the same results, and fast_rows_best names the better set.
 */
#ifndef DICOMFS_FAST_ROWS_H
#define DICOMFS_FAST_ROWS_H

#include "fast_entropy.h"

#define FAST_CHUNK 16
#define FAST_OCTET 8
#define FAST_HALF_ROWS 4
#define FAST_ROW_LAG 2 /* chunks that the upper of two rows is ahead, for taps to its right */
#define FAST_CLASS_GROUP 16
#define FAST_BLOCK_SAMPLES 256

/* Both point at row 0, column 0 of planes whose rows are `stride` apart. */
typedef struct {
    int16_t *sample;
    uint16_t *error;
} fast_frame;

typedef struct {
    uint32_t frames, rows, columns;
    uint32_t stride;
    uint64_t plane; /* samples with padding */
} fast_geometry;

#define FAST_PAIRS (FAST_TAPS / 2 + 1)
#define FAST_CHUNK_WEIGHTS (FAST_PAIRS * FAST_CHUNK) /* from one chunk to the next */

/* Taps two by two, each pair one load and one multiplication: the first `adjacent` pairs are side by side. */
typedef struct {
    uint8_t tap[FAST_PAIRS][2]; /* numbers among the taps of the stage; an odd one out is listed twice */
    uint32_t pairs, adjacent;
} fast_pairing;

/* The samples they name in a frame. */
typedef struct {
    const int16_t *tap[2 * FAST_PAIRS]; /* at row 0, column 0 */
    uint32_t pairs, adjacent;
} fast_neighbours;

/* What turns values into samples. */
typedef struct {
    uint32_t bits, fraction, error_shift, spiked;
    uint32_t half;
    int32_t spike; /* as it stands in planes: less half the range */
} fast_scaling;

/* How FAST_OCTET columns of a row of blocks are predicted. */
typedef struct {
    int32_t offset;
    uint32_t nearest, next; /* weights of the serial taps, as they multiply unsigned numbers */
    uint32_t copied;        /* 0 or the class of a copied block */
    uint64_t shifts;        /* of the activity, FAST_OCTET times */
} fast_octet;

/* All columns of a row of blocks.  Samples of the row above are taps that come late: they may not stand yet when the
 * row is read. */
typedef struct {
    uint32_t columns, stride;
    const fast_octet *octet; /* two for each chunk */
    const int16_t *weight;   /* of the early pairs, then of the late ones, chunk after chunk */
    fast_neighbours early, late;
} fast_row_terms;

typedef struct {
    size_t at; /* of its first sample in a plane */
    int16_t *sample;
    const int16_t *above, *before;
    uint16_t *error;
    const uint16_t *error_before; /* of the first reference, or null */
    int32_t *sum;  /* of residuals and early taps */
    int32_t *mask; /* 0 where the sample is the spike, else -1 */
    uint32_t w, ww, outside;
} fast_row;

/* Every other row of a block of FAST_OCTET by FAST_OCTET samples. */
typedef struct {
    _Alignas(32) int16_t tap[FAST_TAPS / 2][FAST_HALF_ROWS][2 * FAST_OCTET]; /* samples at pairs of taps, by turns */
    int32_t sample[FAST_HALF_ROWS][FAST_OCTET];
    int32_t inside[FAST_HALF_ROWS][FAST_OCTET]; /* -1, or 0 outside of the frame */
} fast_half_block;

typedef struct {
    /* Contexts of a row (columns rounded up to FAST_CHUNK) from the errors above it and, unless null, of the first
     * reference around the same row. */
    void (*contexts)(uint32_t spiked, const uint16_t *error, const uint16_t *before, uint32_t stride, uint32_t columns, uint8_t *out);
    /* Errors, sums and masks of a row from the stream, both of whose inputs are prepared. */
    void (*read)(fast_entropy *entropy, const fast_scaling *scaling, const fast_row_terms *terms, const fast_row *row);
    /* Samples of one row, or of two with the lower one behind, from their sums.  Pads them but for the left of the
     * upper one.  Returns 0 when all samples are in range. */
    uint32_t (*rebuild)(const fast_scaling *scaling, const fast_row_terms *terms, fast_row *upper, fast_row *lower);
    /* The words that samples of a row stand for, to which `half` is added first. */
    void (*deliver)(const int16_t *sample, uint32_t columns, uint32_t half, const dfk_field *field, uint32_t word_bytes,
                    void *out);
    /* Sum of the sizes of the residuals that a predictor leaves in half a block, all samples being known. */
    uint32_t (*sizes)(const fast_half_block *half, uint32_t pairs, const int16_t *weight, int32_t offset,
                      uint32_t fraction);
    /* The residuals themselves as values, FAST_OCTET a row; those outside of the frame mean nothing. */
    void (*errors)(const fast_half_block *half, uint32_t pairs, const int16_t *weight, int32_t offset,
                   uint32_t fraction, uint32_t *value);
    /* Products of all pairs of `count` rows of FAST_BLOCK_SAMPLES, of which the first `samples` (a multiple of
     * FAST_CHUNK) are summed: pair (i, j <= i) at i * (i + 1) / 2 + j.  No sum may leave 32 bits.  Three more rows may
     * be read, and three more products written. */
    void (*products)(const int16_t *rows, uint32_t count, uint32_t samples, float *out);
    /* sum += factor * product, of so many products. */
    void (*add)(const float *product, uint32_t count, double factor, double *sum);
    /* Quadratic forms of two blocks' products, entry (i, j <= i) at i * (i + 1) / 2 + j, for FAST_CLASS_GROUP vectors
     * at once: coefficient i of vector k at i * FAST_CLASS_GROUP + k for so many taps, then one for the constant 1,
     * which each block has of its own, then 1 for the sample. */
    void (*forms)(const float *const product[2], uint32_t taps, const float *coefficient, const float *constant,
                  float *out);
} fast_rows;

const fast_rows *fast_rows_best(void);
extern const fast_rows fast_rows_portable;
extern const fast_rows fast_rows_avx2;

fast_geometry fast_geometry_of(const dfk_shape *shape);
fast_frame fast_frame_take(dfk_arena *arena, const fast_geometry *geometry);
/* Padding above a frame, left of a row before and right of it after its samples stand, and below a whole frame. */
void fast_pad_above(const fast_geometry *geometry, fast_frame frame, const fast_frame *first_reference);
void fast_pad_left(const fast_geometry *geometry, fast_frame frame, uint32_t row);
void fast_pad_right(const fast_geometry *geometry, fast_frame frame, uint32_t row);
void fast_pad_errors(const fast_geometry *geometry, fast_frame frame, uint32_t row);
void fast_pad_below(const fast_geometry *geometry, fast_frame frame);

static inline void fast_pad_row_left(int16_t *row, int16_t value)
{
    for (int i = 1; i <= FAST_SIDE; i++)
        row[-i] = value;
}

static inline void fast_pad_row_right(int16_t *row, uint32_t columns, uint32_t padded)
{
    for (uint32_t x = columns; x < padded; x++)
        row[x] = row[columns - 1];
}

/* Pairs of the taps of a stage but the serial ones: of the row above (late), or of all others. */
void fast_pair_taps(const fast_stage *stage, int late, fast_pairing *pairing);
void fast_neighbours_of(const fast_stage *stage, const fast_pairing *pairing, const fast_frame *frames,
                        uint32_t stride, fast_neighbours *around);

#endif
