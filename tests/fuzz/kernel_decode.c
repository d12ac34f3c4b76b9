/* libFuzzer: any bytes as a stream of any small shape.  Nothing may be read or written outside the buffers, which
 * lie alone in memory so that the address sanitizer sees it, and every outcome is a frame or a code.
 *
 * Built with -DSTREAM=fast or -DSTREAM=dense.  Input: a shape of eight bytes, then the stream; the same as what
 * kernel_encode.c writes as seeds.
 */
#include "kernel.h"

#include <stdlib.h>
#include <string.h>

#include <sanitizer/asan_interface.h>

#include "kernel_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

#define GUARD 4096

/* Memory of exactly this size that lasts until the next call, in one block with guards around it: getting it from the
 * system for each input, or closing off more of the block than was open, takes longer than decoding. */
static uint8_t *memory_of(size_t size)
{
    static uint8_t *block;
    static size_t capacity, opened;
    if (capacity < size + 2 * GUARD) {
        free(block);
        capacity = size + 2 * GUARD;
        opened = 0;
        block = malloc(capacity);
        require(block != NULL);
        memset(block, 0xA5, capacity);
        ASAN_POISON_MEMORY_REGION(block, capacity);
    }
    ASAN_UNPOISON_MEMORY_REGION(block + GUARD, size);
    if (opened > size)
        ASAN_POISON_MEMORY_REGION(block + GUARD + size, opened - size);
    opened = size;
    return block + GUARD;
}

/* A field of any kind from bits of any kind: in three of four cases without a shift, without a fold or without both,
 * as those of most images. */
static dfk_field field_of(uint32_t bits)
{
    const uint32_t more = bits * 2246822519u;
    dfk_field field = {(uint16_t)more, (uint16_t)(more >> 16), (uint16_t)bits, (uint16_t)(0xFFFF >> (more >> 12 & 7)),
                       bits >> 16 & 15, (uint16_t)(bits >> 11)};
    if (bits >> 31)
        field.fold_size = 0;
    if (bits >> 30 & 1)
        field.shift = 0;
    return field;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    if (length < SHAPE_BYTES)
        return 0;
    dfk_shape shape = shape_of(data);
    size_t stream_length = length - SHAPE_BYTES;
    uint8_t *stream = copy_of(data + SHAPE_BYTES, stream_length);
    int64_t size = decoder_memory(&shape, stream, stream_length);
    if (size >= 0 && size <= MOST_MEMORY) {
        const uint32_t step = 1 + stream_length % 3, word_bytes = 1 + data[6] / 4 % 2;
        const dfk_field some = field_of(2654435761u * (uint32_t)(data[6] + 256u * data[7] + 65536u * stream_length));
        const dfk_field *field = data[6] % 4 ? &some : NULL;
        size_t frame_bytes = (size_t)shape.rows * shape.columns * (field ? word_bytes : shape.sample_bytes);
        uint8_t *memory = memory_of((size_t)size), *frames = copy_of(NULL, step * frame_bytes);
        if (OPEN(&shape, stream, stream_length, memory, (size_t)size) == 0) {
            int64_t index = 0, count;
            while (index <= shape.frames && (count = NEXT(memory, step, field, word_bytes, frames)) > 0)
                index += count;
            require(index <= shape.frames);
            require(NEXT(memory, step, field, word_bytes, frames) < 0);
        }
        free(frames);
    }
    free(stream);
    return 0;
}
