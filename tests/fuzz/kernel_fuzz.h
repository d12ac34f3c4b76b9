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
/* Of several rows and frames, but few samples: what a damaged stream can do shows in them as well, and a decoder gets
 * through tens of thousands of such streams a second.  One shape in sixteen is larger. */
#ifdef DENSE
#define FEW_SAMPLES 100
#define MOST_SAMPLES 500
#else
#define FEW_SAMPLES 160
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
    const uint32_t most = data[7] % 16 ? FEW_SAMPLES : MOST_SAMPLES;
    dfk_shape shape = {1u + data[0] % 6, 1u + data[1], 1u + data[2] % 128, 1u + data[3] % 16, 1u + data[4] % 2};
    if (data[5] == 255)
        shape.columns += data[6] * 64u;
    if (shape.bits > 8)
        shape.sample_bytes = 2;
    if (shape.rows * shape.columns > most)
        shape.rows = 1 + most / shape.columns;
    while (shape.frames > 1 && shape.frames * shape.rows * shape.columns > most)
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
