/* What the fuzzers of the kernel share. */
#ifndef KERNEL_FUZZ_H
#define KERNEL_FUZZ_H

#include "kernel.h"

#include <stdlib.h>
#include <string.h>

#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define ENCODER_MEMORY JOIN(dfk_, STREAM, _encoder_memory)
#define ENCODE JOIN(dfk_, STREAM, _encode)
#define OPEN JOIN(dfk_, STREAM, _open)
#define NEXT JOIN(dfk_, STREAM, _next)

#define SHAPE_BYTES 8
/* Of several rows of cells and of several frames, but few: the dense stream takes a millisecond for a hundred. */
#ifdef DENSE
#define MOST_SAMPLES 500
#else
#define MOST_SAMPLES 2000
#endif
#define MOST_MEMORY (64 << 20)

static void require(int holds)
{
    if (!holds)
        abort();
}

/* A shape that the kernel takes and that is small enough to be quick: mostly small images, at times a long row. */
static dfk_shape shape_of(const uint8_t *data)
{
    dfk_shape shape = {1u + data[0] % 6, 1u + data[1], 1u + data[2], 1u + data[3] % 16, 1u + data[4] % 2};
    if (data[5] == 255)
        shape.columns += data[6] * 64u;
    if (shape.bits > 8)
        shape.sample_bytes = 2;
    if (shape.rows * shape.columns > MOST_SAMPLES)
        shape.rows = 1;
    while (shape.frames > 1 && shape.frames * shape.rows * shape.columns > MOST_SAMPLES)
        shape.frames--;
    return shape;
}

/* Memory of exactly this size, holding what is given. */
static uint8_t *copy_of(const uint8_t *data, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1);
    require(copy != NULL);
    if (data != NULL && length > 0)
        memcpy(copy, data, length);
    else
        memset(copy, 0xA5, length);
    return copy;
}

static int64_t decoder_memory(const dfk_shape *shape, const uint8_t *stream, size_t length)
{
#ifdef DENSE
    return dfk_dense_decoder_memory(shape, stream, length);
#else
    (void)stream;
    (void)length;
    return dfk_fast_decoder_memory(shape);
#endif
}

#endif
