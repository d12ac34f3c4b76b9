/* The encoder of the fast stream; see kernel.h and docs/codec.md. */
#include "fast_encoder.h"

#include <string.h>

#define HEADER_BYTES 2
#define LENGTH_BYTES 5
#define FRACTION 12
#define MEAN_ERROR 300 /* errors in the planes are scaled to about this at most */
#define RAW_BYTES_PER_SAMPLE 3
#define TRIED_SAMPLES (1u << 17) /* coded for a trial, if not all */

static int settings_valid(const dfk_shape *shape, const dfk_settings *settings)
{
    const uint32_t most = 65535;
    return shape != NULL && settings != NULL && shape->frames - 1 < most && shape->rows - 1 < most &&
           shape->columns - 1 < most && shape->bits - 1 < 16 && shape->sample_bytes - 1 < 2 &&
           shape->bits <= 8 * shape->sample_bytes && settings->effort - 1 < 9 && settings->level == 0;
}

static fast_effort effort_of(uint32_t effort)
{
    if (effort < 3)
        return (fast_effort){.classes = 16, .trained = 2048, .iterations = 4, .candidates = 2, .lists = 1};
    if (effort < 5)
        return (fast_effort){.classes = 32, .trained = 2048, .iterations = 3, .candidates = 4, .lists = 3};
    if (effort < 8)
        return (fast_effort){.classes = 48, .trained = 8192, .iterations = 12, .candidates = 8, .lists = 4};
    return (fast_effort){.classes = 64, .trained = 16384, .iterations = 24, .candidates = 16, .lists = 4};
}

static int lay_out(dfk_arena *arena, const dfk_shape *shape, const dfk_settings *settings, fast_encoder **encoder)
{
    fast_encoder *e = dfk_take(arena, 1, sizeof *e), spare = {0};
    if (e == NULL)
        e = &spare;
    memset(e, 0, sizeof *e);
    e->shape = *shape;
    e->effort = effort_of(settings->effort);
    e->geometry = fast_geometry_of(shape);
    uint64_t count = (uint64_t)shape->frames * shape->rows * shape->columns;
    uint64_t blocks = (uint64_t)shape->frames * fast_blocks(shape->rows, FAST_BLOCK_LOG) *
                      fast_blocks(shape->columns, FAST_BLOCK_LOG);
    if (e->effort.trained > blocks)
        e->effort.trained = (uint32_t)blocks;
    e->frames = dfk_take(arena, shape->frames, sizeof *e->frames);
    e->classes = dfk_take(arena, blocks, sizeof *e->classes);
    e->block = dfk_take(arena, e->effort.trained, sizeof *e->block);
    e->product = dfk_take(arena, (uint64_t)e->effort.trained * FAST_PRODUCTS + FAST_SPARE_PRODUCTS, sizeof *e->product);
    e->system = dfk_take(arena, FAST_CLASSES, sizeof *e->system);
    e->normal = dfk_take(arena, FAST_PRODUCTS, sizeof *e->normal);
    e->histogram = dfk_take(arena, 1u << 16, sizeof *e->histogram);
    e->used = dfk_take(arena, 1u << 16, 1);
    e->rank = dfk_take(arena, 1u << 16, sizeof *e->rank);
    e->value = dfk_take(arena, count, sizeof *e->value);
    e->context = dfk_take(arena, count, 1);
    e->symbol = dfk_take(arena, count, 1);
    e->words = dfk_take(arena, count + 1, sizeof *e->words);
    e->raw = dfk_take(arena, count * RAW_BYTES_PER_SAMPLE + 1, 1);
    e->row_context = dfk_take(arena, e->geometry.stride, 1);
    for (uint32_t f = 0; f < shape->frames; f++) {
        fast_frame frame = fast_frame_take(arena, &e->geometry);
        if (e->frames != NULL && frame.error != NULL)
            e->frames[f] = frame;
    }
    *encoder = e;
    return arena->start != NULL && arena->used <= arena->size ? 0 : DFK_BAD_ARGUMENT;
}

int64_t dfk_fast_encoder_memory(const dfk_shape *shape, const dfk_settings *settings)
{
    if (!settings_valid(shape, settings))
        return DFK_BAD_ARGUMENT;
    dfk_arena arena = {NULL, 0, 0};
    fast_encoder *ignored;
    lay_out(&arena, shape, settings, &ignored);
    return arena.used > INT64_MAX / 2 ? DFK_BAD_ARGUMENT : (int64_t)arena.used + DFK_ALIGNMENT;
}

/* Distances in their order, without those that no frame reaches or that come twice. */
static void set_references(fast_plan *plan, const dfk_shape *shape, const dfk_settings *settings)
{
    plan->references = 0;
    for (uint32_t i = 0; i < DFK_REFERENCES; i++) {
        uint32_t distance = settings->references[i], known = 0;
        for (uint32_t j = 0; j < plan->references; j++)
            known |= plan->distance[j] == distance;
        if (distance > 0 && distance < shape->frames && distance <= FAST_MOST_DISTANCE && !known)
            plan->distance[plan->references++] = distance;
    }
}

/* How far errors are scaled down for the error planes, so that their common sizes stay below the limit. */
static uint32_t choose_error_shift(const fast_encoder *e)
{
    uint64_t count = 0, total = 0;
    for (uint32_t i = 0; i < FAST_CONTEXTS; i++) {
        total += e->total[i];
        for (uint32_t t = 0; t < FAST_TOKENS; t++)
            count += e->tokens[i][t];
    }
    uint32_t shift = 0;
    while (shift < 15 && count && (total >> (1 + shift)) > count * MEAN_ERROR)
        shift++;
    return shift;
}

/* How many frames are coded for a trial: of every stage some. */
static uint32_t tried_frames(const fast_encoder *e)
{
    uint64_t frames = 1 + TRIED_SAMPLES / ((uint64_t)e->shape.rows * e->shape.columns);
    for (uint32_t i = 0; i < e->plan.references; i++)
        if (frames < 2 * (uint64_t)e->plan.distance[i] + 1)
            frames = 2 * (uint64_t)e->plan.distance[i] + 1;
    return frames < e->shape.frames ? (uint32_t)frames : e->shape.frames;
}

static void choose_plan(fast_encoder *e)
{
    fast_plan *plan = &e->plan;
    plan->block_log = FAST_BLOCK_LOG;
    plan->fraction = FRACTION;
    fast_mark_stages(plan, e->shape.frames);
    for (uint32_t s = 0; s < FAST_STAGES; s++)
        if (plan->stage[s].used)
            fast_fit_stage(e, s);
    const uint32_t tried = tried_frames(e);
    plan->error_shift = 0;
    fast_code_values(e, tried);
    plan->error_shift = choose_error_shift(e);
    fast_choose_shifts(e, tried);
    fast_choose_spike(e, tried);
    if (!plan->spiked || tried < e->shape.frames)
        fast_code_values(e, e->shape.frames);
    fast_choose_tables(e);
}

static void write_maps(fast_side *side, const fast_encoder *e)
{
    fast_map_models models;
    fast_bits_reset(&models, sizeof models);
    uint32_t across = fast_blocks(e->shape.columns, e->plan.block_log);
    uint32_t down = fast_blocks(e->shape.rows, e->plan.block_log);
    const uint8_t *class = e->classes;
    for (uint32_t f = 0; f < e->shape.frames; f++)
        for (uint32_t by = 0; by < down; by++)
            for (uint32_t bx = 0; bx < across; bx++, class++) {
                uint32_t before = f ? *(class - (size_t)across * down) : 0, above = by ? *(class - across) : before;
                fast_side_class(side, &models, bx ? class[-1] : above, above, before, *class);
            }
}

static size_t put_length(uint8_t *out, size_t value)
{
    size_t at = 0;
    for (; value > 0x7F; value >>= 7)
        out[at++] = (uint8_t)(value | 0x80);
    out[at++] = (uint8_t)value;
    return at;
}

static uint64_t stored_bytes(const dfk_shape *shape)
{
    return HEADER_BYTES + ((uint64_t)shape->frames * shape->rows * shape->columns * shape->bits + 7) / 8;
}

/* Returns the length, or 0 when that would be above the limit. */
static uint64_t write_coded(fast_encoder *e, uint8_t *out, uint64_t limit)
{
    uint32_t state[FAST_LANES];
    size_t raw, words = fast_write_values(e, state, &raw);
    uint64_t samples = (uint64_t)e->shape.frames * e->shape.rows * e->shape.columns;
    uint64_t rest = raw + 4 * FAST_LANES + 2 * (uint64_t)words + HEADER_BYTES + 2 * LENGTH_BYTES;
    if (rest >= limit)
        return 0;
    uint8_t lengths[2 * LENGTH_BYTES], *at = out + HEADER_BYTES + 2 * LENGTH_BYTES;
    fast_side side;
    fast_side_write(&side, at, (size_t)(limit - rest));
    fast_header(&side, &e->plan, &e->shape, e->used);
    write_maps(&side, e);
    size_t side_bytes = fast_side_finish(&side);
    if (side_bytes > limit - rest)
        return 0;
    size_t used = put_length(lengths, side_bytes);
    used += put_length(lengths + used, raw);
    memmove(out + HEADER_BYTES + used, at, side_bytes);
    memcpy(out + HEADER_BYTES, lengths, used);
    at = out + HEADER_BYTES + used + side_bytes;
    memcpy(at, e->raw, raw);
    at += raw;
    for (uint32_t lane = 0; lane < FAST_LANES; lane++)
        for (uint32_t byte = 0; byte < 4; byte++)
            *at++ = (uint8_t)(state[lane] >> (8 * byte));
    const uint16_t *first = e->words + 1 + samples - words;
    for (size_t i = 0; i < words; i++) {
        uint16_t word = first[i];
        *at++ = (uint8_t)word;
        *at++ = (uint8_t)(word >> 8);
    }
    out[0] = FAST_VERSION;
    out[1] = FAST_CODED;
    return (uint64_t)(at - out);
}

static void write_stored(const dfk_shape *shape, const void *samples, uint8_t *out)
{
    const uint64_t count = (uint64_t)shape->frames * shape->rows * shape->columns;
    uint32_t pending = 0, held = 0;
    *out++ = FAST_VERSION;
    *out++ = FAST_STORED;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t sample = shape->sample_bytes == 1 ? ((const uint8_t *)samples)[i] : ((const uint16_t *)samples)[i];
        pending |= sample << held;
        for (held += shape->bits; held >= 8; held -= 8, pending >>= 8)
            *out++ = (uint8_t)pending;
    }
    if (held)
        *out = (uint8_t)pending;
}

int64_t dfk_fast_encode(const dfk_shape *shape, const dfk_settings *settings, const void *samples, uint8_t *out,
                        size_t capacity, void *memory, size_t memory_bytes)
{
    if (!settings_valid(shape, settings) || samples == NULL || out == NULL || memory == NULL)
        return DFK_BAD_ARGUMENT;
    dfk_arena arena = dfk_arena_over(memory, memory_bytes);
    fast_encoder *e;
    if (lay_out(&arena, shape, settings, &e))
        return DFK_BAD_ARGUMENT;
    e->rows = fast_rows_best();
    set_references(&e->plan, shape, settings);
    if (fast_choose_samples(e, samples))
        return DFK_BAD_ARGUMENT;
    choose_plan(e);
    uint64_t stored = stored_bytes(shape);
    uint64_t length = write_coded(e, out, stored < capacity ? stored : capacity);
    if (length)
        return (int64_t)length;
    if (stored > capacity)
        return DFK_NO_ROOM;
    write_stored(shape, samples, out);
    return (int64_t)stored;
}
