/* The encoder of the dense stream: looks at the samples, tries what the header can choose, writes. */
#include "dense_model.h"

static uint32_t sample_at(const dfk_shape *shape, const void *samples, size_t index) {
    return shape->sample_bytes == 1 ? ((const uint8_t *)samples)[index] : ((const uint16_t *)samples)[index];
}

static dense_header plain_header(const dfk_settings *settings) {
    dense_header header = {.level = 0};
    uint32_t count = 0;
    for (int i = 0; i < DFK_REFERENCES; i++) {
        int known = settings->references[i] == 0;
        for (uint32_t j = 0; j < count; j++)
            known |= header.references[j] == settings->references[i];
        if (!known)
            header.references[count++] = settings->references[i];
    }
    return header;
}

static int settings_ok(const dfk_settings *settings) {
    int ok = settings->level <= 1 && settings->effort - 1 < 9;
    for (int i = 0; i < DFK_REFERENCES; i++)
        ok &= settings->references[i] <= 65535;
    return ok;
}

/* Memory of an encoder: a model, one frame of samples as they are coded, and what tells used values. */
typedef struct {
    dense_model *model;
    uint16_t *frame;
    uint8_t *used;
    void *model_memory;
    size_t model_bytes;
} dense_encoder;

static int64_t layout(dense_encoder *encoder, const dfk_shape *shape, const dense_header *header, void *memory,
                      size_t bytes) {
    dfk_arena arena = memory ? dfk_arena_over(memory, bytes) : (dfk_arena){0};
    encoder->frame = dfk_take(&arena, (uint64_t)shape->rows * shape->columns, sizeof(uint16_t));
    encoder->used = dfk_take(&arena, 65536, 1);
    const int64_t needed = dense_layout(NULL, shape, header, NULL, 0);
    encoder->model_memory = dfk_take(&arena, 1, needed < 0 ? UINT64_MAX : (uint64_t)needed);
    encoder->model_bytes = (size_t)needed;
    if (arena.used == UINT64_MAX || (memory && arena.used > arena.size))
        return DFK_BAD_ARGUMENT;
    return (int64_t)arena.used + DFK_ALIGNMENT;
}

int64_t dfk_dense_encoder_memory(const dfk_shape *shape, const dfk_settings *settings) {
    dense_encoder encoder;
    if (!dense_shape_ok(shape) || !settings_ok(settings))
        return DFK_BAD_ARGUMENT;
    const dense_header header = plain_header(settings);
    return layout(&encoder, shape, &header, NULL, 0);
}

static int64_t write_stored(const dfk_shape *shape, const void *samples, uint8_t *out, size_t capacity) {
    const dense_header header = {.stored = 1};
    const uint64_t count = (uint64_t)shape->frames * shape->rows * shape->columns;
    if (capacity < 2 || (capacity - 2) / shape->sample_bytes < count)
        return DFK_NO_ROOM;
    size_t at = dense_write_header(&header, out);
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t value = sample_at(shape, samples, i);
        out[at++] = (uint8_t)value;
        if (shape->sample_bytes == 2)
            out[at++] = (uint8_t)(value >> 8);
    }
    return (int64_t)at;
}

static int64_t write_coded(dense_encoder *encoder, const dfk_shape *shape, const dense_header *header,
                           const void *samples, uint8_t *out, size_t capacity) {
    uint8_t head[DENSE_LARGEST_HEADER];
    const size_t start = dense_write_header(header, head), pixels = (size_t)shape->rows * shape->columns;
    if (start > capacity)
        return DFK_NO_ROOM;
    memcpy(out, head, start);
    dense_model *model = NULL;
    const int64_t needed = dense_layout(&model, shape, header, encoder->model_memory, encoder->model_bytes);
    if (needed < 0)
        return needed;
    dense_start(model);
    dense_coder_start_encoder(&model->coder, out + start, capacity - start);
    for (uint32_t f = 0; f < shape->frames && !model->coder.overflow; f++) {
        for (size_t i = 0; i < pixels; i++)
            encoder->frame[i] = (uint16_t)sample_at(shape, samples, f * pixels + i);
        dense_code_frame(model, encoder->frame);
    }
    dense_coder_finish(&model->coder);
    return model->coder.overflow ? DFK_NO_ROOM : (int64_t)(start + model->coder.at);
}

int64_t dfk_dense_encode(const dfk_shape *shape, const dfk_settings *settings, const void *samples, uint8_t *out,
                         size_t capacity, void *memory, size_t memory_bytes) {
    if (!dense_shape_ok(shape) || !settings_ok(settings))
        return DFK_BAD_ARGUMENT;
    dense_encoder encoder;
    dense_header header = plain_header(settings);
    if (layout(&encoder, shape, &header, memory, memory_bytes) < 0)
        return DFK_BAD_ARGUMENT;
    const size_t count = (size_t)shape->frames * shape->rows * shape->columns;
    for (size_t i = 0; i < count; i++) {
        const uint32_t value = sample_at(shape, samples, i);
        header.largest = value > header.largest ? value : header.largest;
    }
    const int64_t length = write_coded(&encoder, shape, &header, samples, out, capacity);
    const uint64_t stored = 2 + (uint64_t)count * shape->sample_bytes;
    if (length > 0 && (uint64_t)length < stored)
        return length;
    return write_stored(shape, samples, out, capacity);
}
