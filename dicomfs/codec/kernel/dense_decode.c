/* The decoder of the dense stream: frames one by one. */
#include "dense_model.h"
#include "output.h"

/* What lies at the start of a decoder's memory. */
typedef struct {
    dense_model *model; /* null for a stored stream */
    dfk_shape shape;
    dense_header header;
    const uint8_t *stored;
    void *row; /* of samples as they are delivered */
    uint32_t frame;
    int damaged;
} dense_decoder;

/* A word that is not 0 turns into memory for a decoder and its model. */
static int64_t layout(dense_decoder **decoder, dense_model **model, const dfk_shape *shape,
                      const dense_header *header, void *memory, size_t bytes) {
    dfk_arena arena = memory ? dfk_arena_over(memory, bytes) : (dfk_arena){0};
    dense_decoder *at = dfk_take(&arena, 1, sizeof **decoder);
    void *row = dfk_take(&arena, shape->columns, shape->sample_bytes);
    if (memory && !row)
        return DFK_BAD_ARGUMENT;
    if (memory) {
        *decoder = at;
        at->row = row;
    }
    if (header->stored)
        return (int64_t)arena.used + DFK_ALIGNMENT;
    const int64_t needed =
        memory ? dense_layout(model, shape, header, arena.start + arena.used, (size_t)(arena.size - arena.used))
               : dense_layout(model, shape, header, NULL, 0);
    return needed < 0 ? needed : (int64_t)arena.used + needed + DFK_ALIGNMENT;
}

int64_t dfk_dense_decoder_memory(const dfk_shape *shape, const uint8_t *stream, size_t length) {
    dense_header header;
    if (!dense_shape_ok(shape))
        return DFK_BAD_ARGUMENT;
    if (!dense_read_header(&header, stream, length))
        return DFK_DAMAGED;
    return layout(NULL, NULL, shape, &header, NULL, 0);
}

int dfk_dense_open(const dfk_shape *shape, const uint8_t *stream, size_t length, void *memory, size_t memory_bytes) {
    dense_header header;
    dense_decoder *decoder = NULL;
    dense_model *model = NULL;
    if (!dense_shape_ok(shape))
        return DFK_BAD_ARGUMENT;
    const size_t head = dense_read_header(&header, stream, length);
    if (!head)
        return DFK_DAMAGED;
    const uint64_t samples = (uint64_t)shape->frames * shape->rows * shape->columns;
    if (header.stored && length - head != samples * shape->sample_bytes)
        return DFK_DAMAGED;
    if (!header.stored && dense_largest_sample(&header) >> shape->bits)
        return DFK_DAMAGED;
    const int64_t needed = layout(&decoder, &model, shape, &header, memory, memory_bytes);
    if (needed < 0)
        return (int)needed;
    *decoder = (dense_decoder){model, *shape, header, stream + head, decoder->row, 0, 0};
    if (model) {
        dense_start(model);
        dense_coder_start_decoder(&model->coder, stream + head, length - head);
    }
    return 0;
}

/* Copies a row of a stored stream, whose samples have sample_bytes bytes, the low one first. */
static void copy_stored(dense_decoder *decoder, void *out) {
    const size_t columns = decoder->shape.columns;
    if (decoder->shape.sample_bytes == 1) {
        memcpy(out, decoder->stored, columns);
    } else {
        uint16_t *samples = out;
        for (size_t x = 0; x < columns; x++)
            samples[x] = (uint16_t)(decoder->stored[2 * x] | decoder->stored[2 * x + 1] << 8);
    }
    decoder->stored += columns * decoder->shape.sample_bytes;
}

static uint32_t open_gaps(const dense_header *header, uint32_t value) {
    for (uint32_t i = 0; i < header->gap_count && value >= header->gaps[i].at; i++)
        value += header->gaps[i].size;
    return value;
}

static void copy_row(const dense_decoder *decoder, const uint16_t *row, void *out) {
    const size_t columns = decoder->shape.columns;
    for (size_t x = 0; x < columns; x++) {
        const uint32_t value = open_gaps(&decoder->header, row[x]);
        if (decoder->shape.sample_bytes == 1)
            ((uint8_t *)out)[x] = (uint8_t)value;
        else
            ((uint16_t *)out)[x] = (uint16_t)value;
    }
}

static void deliver(dense_decoder *decoder, dfk_output *output) {
    const dense_model *model = decoder->model;
    for (size_t y = 0; y < decoder->shape.rows; y++) {
        void *row = dfk_output_row(output);
        if (model)
            copy_row(decoder, model->row0 + y * model->stride, row);
        else
            copy_stored(decoder, row);
        dfk_output_done(output);
    }
}

static int next_frame(dense_decoder *decoder, dfk_output *output) {
    if (decoder->damaged)
        return DFK_DAMAGED;
    if (decoder->frame == decoder->shape.frames)
        return DFK_NO_MORE;
    decoder->frame++;
    dense_model *model = decoder->model;
    if (!model) {
        deliver(decoder, output);
        return 0;
    }
    dense_code_frame(model, NULL);
    /* The encoder's stream ends where its last word is read, but for zeros that go without saying. */
    const dense_coder *coder = &model->coder;
    decoder->damaged = coder->at > coder->limit + DENSE_OVERREAD ||
                       (decoder->frame == decoder->shape.frames && coder->at < coder->limit);
    if (decoder->damaged)
        return DFK_DAMAGED;
    deliver(decoder, output);
    return 0;
}

int64_t dfk_dense_next(void *memory, uint32_t frames, const dfk_field *field, uint32_t word_bytes, void *out) {
    if (memory == NULL || out == NULL || !dfk_output_valid(field, word_bytes))
        return DFK_BAD_ARGUMENT;
    dense_decoder *decoder = (dense_decoder *)(void *)dfk_arena_over(memory, SIZE_MAX).start;
    const dfk_shape *shape = &decoder->shape;
    dfk_output output = {field, shape->columns, shape->sample_bytes, word_bytes, decoder->row, out};
    for (uint32_t done = 0; done < frames; done++) {
        const int code = next_frame(decoder, &output);
        if (code)
            return done ? (int64_t)done : code;
    }
    return frames;
}
