/* libFuzzer: any samples under any settings come back, or are refused with a code; a buffer that is too small is
 * never overrun.
 *
 * Built with -DSTREAM=fast or -DSTREAM=dense.  Input: a shape of eight bytes, settings of eight, then what the
 * samples are made from.  When SEEDS names a folder, each stream goes there, as input for kernel_decode.c.
 */
#include "kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel_fuzz.h"

#define SETTINGS_BYTES 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static void put(uint8_t *samples, size_t index, uint32_t sample_bytes, uint32_t value)
{
    if (sample_bytes == 1) {
        samples[index] = (uint8_t)value;
    } else {
        uint16_t wide = (uint16_t)value;
        memcpy(samples + 2 * index, &wide, 2);
    }
}

/* Noise, steps, ramps and repeats of the input, by its own choice. */
static void fill(uint8_t *samples, const dfk_shape *shape, const uint8_t *data, size_t length, uint8_t kind)
{
    uint32_t mask = (1u << shape->bits) - 1, value = 0, state = 1;
    size_t count = (size_t)shape->frames * shape->rows * shape->columns;
    size_t frame = (size_t)shape->rows * shape->columns;
    for (size_t index = 0; index < count; index++) {
        uint32_t byte = length ? data[(kind & 4 ? index % frame : index) % length] : 0;
        uint32_t next = length ? data[(index * 7 + 1) % length] : 0;
        state = state * 1664525u + 1013904223u;
        switch (kind & 3) {
        case 0:
            value = byte | next << 8;
            break;
        case 1:
            value += (byte & 15) - 7u;
            break;
        case 2:
            value = (byte & 1 ? mask : 0) ^ (next == 9 ? state >> 20 : 0);
            break;
        default:
            value = (uint32_t)(index % shape->columns) * (byte & 3) + (state >> 29);
        }
        if ((kind & 8) != 0 && byte < 24)
            value = 0;
        put(samples, index, shape->sample_bytes, value & mask);
    }
}

static void keep(const uint8_t *shape, const uint8_t *stream, size_t length)
{
    static unsigned number;
    const char *folder = getenv("SEEDS");
    char path[4096];
    if (folder == NULL || number >= 400)
        return;
    snprintf(path, sizeof path, "%s/%u", folder, number++);
    FILE *file = fopen(path, "wb");
    require(file != NULL);
    fwrite(shape, 1, SHAPE_BYTES, file);
    fwrite(stream, 1, length, file);
    fclose(file);
}

static void compare(const dfk_shape *shape, const uint8_t *samples, const uint8_t *stream, size_t length)
{
    size_t frame_bytes = (size_t)shape->rows * shape->columns * shape->sample_bytes;
    int64_t size = decoder_memory(shape, stream, length);
    require(size >= 0);
    uint8_t *memory = copy_of(NULL, (size_t)size), *frame = copy_of(NULL, frame_bytes);
    require(OPEN(shape, stream, length, memory, (size_t)size) == 0);
    for (uint32_t index = 0; index < shape->frames; index++) {
        require(NEXT(memory, 1, NULL, 0, frame) == 1);
        require(memcmp(frame, samples + index * frame_bytes, frame_bytes) == 0);
    }
    require(NEXT(memory, 1, NULL, 0, frame) == DFK_NO_MORE);
    free(frame);
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    if (length < SHAPE_BYTES + SETTINGS_BYTES)
        return 0;
    dfk_shape shape = shape_of(data);
    const uint8_t *chosen = data + SHAPE_BYTES;
    dfk_settings settings = {1u + chosen[0] % 9, chosen[1] % 2, {chosen[2] % 8, chosen[3] % 8, chosen[4] % 8}};
    size_t samples_bytes = (size_t)shape.frames * shape.rows * shape.columns * shape.sample_bytes;
    uint8_t *samples = copy_of(NULL, samples_bytes);
    fill(samples, &shape, chosen + SETTINGS_BYTES, length - SHAPE_BYTES - SETTINGS_BYTES, chosen[5]);
    int64_t size = ENCODER_MEMORY(&shape, &settings);
    if (size >= 0) {
        size_t capacity = chosen[6] < 32 ? samples_bytes * chosen[6] / 32 : 2 * samples_bytes + 65536;
        uint8_t *memory = copy_of(NULL, (size_t)size), *out = copy_of(NULL, capacity);
        int64_t coded = ENCODE(&shape, &settings, samples, out, capacity, memory, (size_t)size);
        require(coded <= (int64_t)capacity);
        if (coded >= 0) {
            uint8_t *stream = copy_of(out, (size_t)coded);
            keep(data, stream, (size_t)coded);
            compare(&shape, samples, stream, (size_t)coded);
            free(stream);
        } else {
            require(coded == DFK_NO_ROOM || coded == DFK_BAD_ARGUMENT);
            require(coded != DFK_NO_ROOM || capacity < 2 * samples_bytes + 65536);
        }
        free(out);
        free(memory);
    }
    free(samples);
    return 0;
}
