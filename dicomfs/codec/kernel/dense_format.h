/* What a dense stream looks like from outside: its header, its references and its tap lists. */
#ifndef DICOMFS_DENSE_FORMAT_H
#define DICOMFS_DENSE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "kernel.h"

#define DENSE_VERSION 1
#define DENSE_SPIKES 2
#define DENSE_GAPS 15
#define DENSE_LARGEST_HEADER (2 + 2 + 2 * DFK_REFERENCES + 2 * DENSE_SPIKES + 1 + 4 * DENSE_GAPS)

/* Level 0 has 23 taps and the sample itself in three groups of eight, level 1 has 31 in four. */
#define DENSE_BLOCKS(level) ((level) ? 6 : 3)
#define DENSE_MOST_TERMS 48
#define DENSE_LISTS 2

enum { DENSE_CODED = 0, DENSE_STORED = 1 };

/* Values [at, at + size) occur in no sample; samples above are stored lower by size. */
typedef struct {
    uint32_t at, size;
} dense_gap;

/* All that a decoder must know beside the shape. */
typedef struct {
    uint32_t stored;
    uint32_t level;
    uint32_t list;   /* which tap list */
    uint32_t parity; /* whether the lowest bit of a residual is coded as that of the sample */
    uint32_t spike_count, gap_count;
    uint32_t largest; /* largest sample after the gaps are closed */
    uint32_t references[DFK_REFERENCES];
    uint32_t spikes[DENSE_SPIKES];
    dense_gap gaps[DENSE_GAPS];
} dense_header;

/* A tap: plane 0 is the frame being coded, 1 to 3 its references. */
typedef struct {
    int8_t plane, row, column;
} dense_tap;

extern const dense_tap dense_taps[2][DENSE_LISTS][DENSE_MOST_TERMS - 1];

/* Whether the shape is one that streams can hold. */
int dense_shape_ok(const dfk_shape *shape);

size_t dense_write_header(const dense_header *header, uint8_t *out);

/* Returns the length of the header, or 0 when the stream cannot have been written by the encoder. */
size_t dense_read_header(dense_header *header, const uint8_t *stream, size_t length);

/* Largest sample when the gaps are open again. */
uint32_t dense_largest_sample(const dense_header *header);

/* Distances of the references of one frame, 0 where there is none. */
void dense_frame_references(const uint32_t *configured, uint32_t frame, uint32_t *distances);

#endif
