/* Calls the kernel without Python: for builds by other compilers and for other machines.
 *
 *     driver encode STREAM SHAPE SETTINGS < samples > stream
 *     driver decode STREAM SHAPE < stream > samples
 *
 * STREAM is fast or dense; SHAPE frames rows columns bits sample_bytes; SETTINGS effort level and three distances.
 * Samples are little-endian.  Fails with the kernel's code, negated; 100 when the machine has too little memory.
 */
#include "kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint8_t *data;
    size_t length;
} bytes;

static void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (memory == NULL)
        exit(100);
    return memory;
}

static void check(int64_t code)
{
    if (code < 0)
        exit((int)-code);
}

static bytes read_all(void)
{
    bytes all = {NULL, 0};
    size_t capacity = 0, got = 1;
    while (got > 0) {
        if (all.length == capacity) {
            capacity = capacity ? 2 * capacity : 1 << 16;
            uint8_t *larger = realloc(all.data, capacity);
            if (larger == NULL)
                exit(100);
            all.data = larger;
        }
        got = fread(all.data + all.length, 1, capacity - all.length, stdin);
        all.length += got;
    }
    return all;
}

static uint32_t number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 10);
}

static void encode(int dense, const dfk_shape *shape, const dfk_settings *settings)
{
    bytes samples = read_all();
    size_t capacity = 2 * samples.length + 65536;
    uint8_t *out = allocate(capacity);
    int64_t size = dense ? dfk_dense_encoder_memory(shape, settings) : dfk_fast_encoder_memory(shape, settings);
    check(size);
    void *memory = allocate((size_t)size);
    int64_t length =
        dense ? dfk_dense_encode(shape, settings, samples.data, out, capacity, memory, (size_t)size)
              : dfk_fast_encode(shape, settings, samples.data, out, capacity, memory, (size_t)size);
    check(length);
    fwrite(out, 1, (size_t)length, stdout);
    free(memory);
    free(out);
    free(samples.data);
}

static void decode(int dense, const dfk_shape *shape)
{
    bytes stream = read_all();
    size_t frame_bytes = (size_t)shape->rows * shape->columns * shape->sample_bytes;
    uint8_t *frame = allocate(frame_bytes);
    int64_t size = dense ? dfk_dense_decoder_memory(shape, stream.data, stream.length) : dfk_fast_decoder_memory(shape);
    check(size);
    void *memory = allocate((size_t)size);
    check(dense ? dfk_dense_open(shape, stream.data, stream.length, memory, (size_t)size)
                : dfk_fast_open(shape, stream.data, stream.length, memory, (size_t)size));
    for (uint32_t index = 0; index < shape->frames; index++) {
        check(dense ? dfk_dense_next(memory, 1, NULL, 0, frame) : dfk_fast_next(memory, 1, NULL, 0, frame));
        fwrite(frame, 1, frame_bytes, stdout);
    }
    free(memory);
    free(frame);
    free(stream.data);
}

int main(int count, char **words)
{
    if (count < 8)
        return 101;
    int dense = strcmp(words[2], "dense") == 0;
    dfk_shape shape = {number(words[3]), number(words[4]), number(words[5]), number(words[6]), number(words[7])};
    if (strcmp(words[1], "decode") == 0) {
        decode(dense, &shape);
        return 0;
    }
    if (count < 13)
        return 101;
    dfk_settings settings = {number(words[8]),
                             number(words[9]),
                             {number(words[10]), number(words[11]), number(words[12])}};
    encode(dense, &shape, &settings);
    return 0;
}
