/* The decoder of the fast stream: opens it and yields frame after frame; see kernel.h and docs/codec.md. */
#include "fast_rows.h"
#include "output.h"

#include <string.h>

#define RAW_RESERVE_PER_COLUMN 3 /* FAST_RAW_LIMIT bits and to spare */
#define RESERVE_MORE 32

/* The taps of a stage as they are used: early and late ones, and for each class the weights of their pairs. */
typedef struct {
    fast_pairing early, late;
    int16_t weight[FAST_CLASSES][FAST_PAIRS][2];
} pairs;

typedef struct {
    dfk_shape shape;
    fast_geometry geometry;
    fast_plan plan;
    fast_scaling scaling;
    const fast_rows *rows;
    uint32_t mode, frame, ring_frames;
    int failed;
    fast_frame ring[FAST_MOST_DISTANCE + 1];
    fast_side side;
    fast_map_models map;
    fast_entropy entropy;
    fast_decoding_table *tables;
    pairs *pairs; /* of each stage */
    fast_row_terms terms;
    uint8_t *classes, *used;
    uint16_t *unfold;
    int32_t *sum[2], *mask[2]; /* of two rows */
    fast_octet *octet;
    int16_t *weight;
    void *row; /* of samples as they are delivered */
    const uint8_t *stored;
} decoder;

static int shape_valid(const dfk_shape *shape)
{
    const uint32_t most = 65535;
    return shape != NULL && shape->frames - 1 < most && shape->rows - 1 < most && shape->columns - 1 < most &&
           shape->bits - 1 < 16 && shape->sample_bytes - 1 < 2 && shape->bits <= 8 * shape->sample_bytes;
}

static uint32_t ring_size(const dfk_shape *shape)
{
    return shape->frames < FAST_MOST_DISTANCE + 1 ? shape->frames : FAST_MOST_DISTANCE + 1;
}

static uint32_t blocks(uint32_t length, uint32_t block_log)
{
    return (length + (1u << block_log) - 1) >> block_log;
}

/* Takes all memory but the ring of frames. */
static decoder *lay_out(dfk_arena *arena, const dfk_shape *shape)
{
    uint64_t width = fast_geometry_of(shape).stride;
    size_t words = 2 * (2 * width + RESERVE_MORE), raw = 2 * (RAW_RESERVE_PER_COLUMN * width + RESERVE_MORE);
    decoder *d = dfk_take(arena, 1, sizeof *d);
    fast_decoding_table *tables = dfk_take(arena, FAST_TABLES, sizeof *tables);
    pairs *stages = dfk_take(arena, FAST_STAGES, sizeof *stages);
    uint8_t *classes = dfk_take(arena, blocks(shape->rows, 3), blocks(shape->columns, 3));
    uint8_t *used = dfk_take(arena, 1u << shape->bits, 1);
    uint16_t *unfold = dfk_take(arena, 1u << shape->bits, sizeof *unfold);
    int32_t *sum = dfk_take(arena, 2 * width, sizeof *sum);
    int32_t *mask = dfk_take(arena, 2 * width, sizeof *mask);
    fast_octet *octet = dfk_take(arena, width / FAST_OCTET, sizeof *octet);
    int16_t *weight = dfk_take(arena, width, FAST_PAIRS * sizeof *weight);
    void *row = dfk_take(arena, shape->columns, shape->sample_bytes);
    uint8_t *words_tail = dfk_take(arena, words, 1), *raw_tail = dfk_take(arena, raw, 1);
    if (arena->start == NULL || arena->used > arena->size)
        return NULL;
    memset(d, 0, sizeof *d);
    memset(octet, 0, width / FAST_OCTET * sizeof *octet); /* the last chunk may have one that no block covers */
    d->shape = *shape;
    d->geometry = fast_geometry_of(shape);
    d->tables = tables;
    d->pairs = stages;
    d->classes = classes;
    d->used = used;
    d->unfold = unfold;
    d->sum[0] = sum;
    d->sum[1] = sum + width;
    d->mask[0] = mask;
    d->mask[1] = mask + width;
    d->octet = octet;
    d->weight = weight;
    d->row = row;
    d->terms = (fast_row_terms){
        .columns = shape->columns, .stride = d->geometry.stride, .octet = octet, .weight = weight};
    d->entropy.words.tail = words_tail;
    d->entropy.words.reserve = words / 2;
    d->entropy.raw.tail = raw_tail;
    d->entropy.raw.reserve = raw / 2;
    return d;
}

int64_t dfk_fast_decoder_memory(const dfk_shape *shape)
{
    if (!shape_valid(shape))
        return DFK_BAD_ARGUMENT;
    dfk_arena arena = {NULL, 0, 0};
    lay_out(&arena, shape);
    fast_geometry geometry = fast_geometry_of(shape);
    for (uint32_t i = 0; i < ring_size(shape); i++)
        fast_frame_take(&arena, &geometry);
    return arena.used > INT64_MAX / 2 ? DFK_BAD_ARGUMENT : (int64_t)arena.used + DFK_ALIGNMENT;
}

static void build_tables(decoder *d)
{
    fast_plan *plan = &d->plan;
    for (uint32_t t = 0; t < plan->tables; t++)
        fast_decoding_table_fill(plan, &plan->table[t], &d->tables[t]);
    for (uint32_t i = 0; i < FAST_CONTEXTS; i++)
        d->entropy.by_context[i] = &d->tables[plan->table_of[i]];
    if (plan->folded)
        for (uint32_t sample = 0, at = 0; sample < 1u << d->shape.bits; sample++)
            if (d->used[sample])
                d->unfold[at++] = (uint16_t)sample;
}

static void pair_taps(const fast_stage *stage, pairs *out)
{
    fast_pair_taps(stage, 0, &out->early);
    fast_pair_taps(stage, 1, &out->late);
    for (uint32_t class = 0; class < stage->classes; class++)
        for (uint32_t p = 0; p < out->early.pairs + out->late.pairs; p++) {
            const uint8_t *tap = p < out->early.pairs ? out->early.tap[p] : out->late.tap[p - out->early.pairs];
            out->weight[class][p][0] = stage->weight[class][tap[0]];
            out->weight[class][p][1] = tap[0] == tap[1] ? 0 : stage->weight[class][tap[1]];
        }
}

static void set_scaling(decoder *d)
{
    const fast_plan *plan = &d->plan;
    d->scaling = (fast_scaling){plan->bits, plan->fraction, plan->error_shift, plan->spiked,
                                1u << (plan->bits - 1), (int32_t)plan->spike - (1 << (plan->bits - 1))};
}

static int read_length(const uint8_t **at, const uint8_t *end, size_t *length)
{
    *length = 0;
    for (uint32_t shift = 0; shift <= 28 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        *length |= (size_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return *length <= (size_t)(end - *at) ? 0 : DFK_DAMAGED;
    }
    return DFK_DAMAGED;
}

static int open_coded(decoder *d, const uint8_t *at, const uint8_t *end)
{
    size_t side, raw;
    if (read_length(&at, end, &side) || read_length(&at, end, &raw) || (size_t)(end - at) < side + raw)
        return DFK_DAMAGED;
    fast_side_read(&d->side, at, side);
    if (fast_header(&d->side, &d->plan, &d->shape, d->used))
        return DFK_DAMAGED;
    at += side;
    d->entropy.raw.at = at;
    d->entropy.raw.end = at += raw;
    if ((size_t)(end - at) < 4 * FAST_LANES)
        return DFK_DAMAGED;
    for (uint32_t lane = 0; lane < FAST_LANES; lane++, at += 4)
        d->entropy.state[lane] = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    d->entropy.words.at = at;
    d->entropy.words.end = end;
    set_scaling(d);
    build_tables(d);
    for (uint32_t stage = 0; stage < FAST_STAGES; stage++)
        if (d->plan.stage[stage].used)
            pair_taps(&d->plan.stage[stage], &d->pairs[stage]);
    fast_bits_reset(&d->map, sizeof d->map);
    return 0;
}

/* Only as many frames are kept as references reach back. */
static int take_ring(decoder *d, dfk_arena *arena)
{
    uint32_t farthest = 0;
    for (uint32_t i = 0; i < d->plan.references; i++)
        farthest = d->plan.distance[i] > farthest ? d->plan.distance[i] : farthest;
    d->ring_frames = farthest + 1 < d->shape.frames ? farthest + 1 : d->shape.frames;
    for (uint32_t i = 0; i < d->ring_frames; i++) {
        d->ring[i] = fast_frame_take(arena, &d->geometry);
        if (d->ring[i].error == NULL)
            return DFK_BAD_ARGUMENT;
    }
    return 0;
}

int dfk_fast_open(const dfk_shape *shape, const uint8_t *stream, size_t length, void *memory, size_t memory_bytes)
{
    if (!shape_valid(shape) || stream == NULL || memory == NULL)
        return DFK_BAD_ARGUMENT;
    dfk_arena arena = dfk_arena_over(memory, memory_bytes);
    decoder *d = lay_out(&arena, shape);
    if (d == NULL)
        return DFK_BAD_ARGUMENT;
    d->rows = fast_rows_best();
    d->failed = DFK_DAMAGED;
    if (length < 2 || stream[0] != FAST_VERSION || stream[1] > FAST_CODED)
        return DFK_DAMAGED;
    d->mode = stream[1];
    if (d->mode == FAST_STORED) {
        uint64_t bits = (uint64_t)shape->frames * shape->rows * shape->columns * shape->bits;
        if (length - 2 != (bits + 7) / 8)
            return DFK_DAMAGED;
        d->stored = stream + 2;
    } else if (open_coded(d, stream + 2, stream + length)) {
        return DFK_DAMAGED;
    } else if (take_ring(d, &arena)) {
        return DFK_BAD_ARGUMENT;
    }
    d->failed = 0;
    return 0;
}

/* Sets how one octet of columns is predicted or copied. */
static void set_octet(decoder *d, uint32_t stage, uint32_t number, uint32_t class)
{
    fast_octet *octet = &d->octet[number];
    *octet = (fast_octet){.copied = class};
    if (class >= FAST_CLASSES)
        return;
    const fast_stage *s = &d->plan.stage[stage];
    const pairs *taps = &d->pairs[stage];
    *octet = (fast_octet){.offset = s->offset[class],
                          .nearest = (uint32_t)(int32_t)s->weight[class][0],
                          .next = (uint32_t)(int32_t)s->weight[class][1],
                          .shifts = (uint8_t)s->shift[class] * UINT64_C(0x0101010101010101)};
    int16_t *weight = d->weight + (size_t)number / 2 * FAST_CHUNK_WEIGHTS + number % 2 * FAST_OCTET;
    for (uint32_t p = 0; p < taps->early.pairs + taps->late.pairs; p++, weight += FAST_CHUNK)
        for (uint32_t copy = 0; copy < FAST_OCTET; copy += 2)
            memcpy(weight + copy, taps->weight[class][p], sizeof taps->weight[class][p]);
}

/* Reads the classes of one row of blocks. */
static int read_classes(decoder *d, uint32_t block_row, uint32_t stage)
{
    uint32_t across = blocks(d->shape.columns, d->plan.block_log), size = 1u << d->plan.block_log;
    const fast_stage *s = &d->plan.stage[stage];
    uint8_t *row = d->classes + (size_t)block_row * across;
    for (uint32_t b = 0; b < across; b++) {
        uint32_t before = d->frame ? row[b] : 0, above = block_row ? *(row + b - across) : before;
        uint32_t left = b ? row[b - 1] : above;
        uint32_t class = fast_side_class(&d->side, &d->map, left, above, before, 0);
        if (class >= s->classes && class != FAST_COPY_ABOVE && (class != FAST_COPY_BEFORE || !stage))
            return DFK_DAMAGED;
        row[b] = (uint8_t)class;
        for (uint32_t o = b * size / FAST_OCTET; o < (b + 1) * size / FAST_OCTET; o++)
            set_octet(d, stage, o, class);
    }
    return 0;
}

/* Reads one row, after which its samples can be rebuilt. */
static int read_row(decoder *d, const fast_frame *frames, uint32_t stage, uint32_t number, fast_row *row)
{
    const size_t at = (size_t)number * d->geometry.stride;
    *row = (fast_row){.at = at,
                      .sample = frames[0].sample + at,
                      .above = frames[0].sample + at - d->geometry.stride,
                      .before = stage ? frames[1].sample + at : NULL,
                      .error = frames[0].error + at,
                      .error_before = stage ? frames[1].error + at : NULL,
                      .sum = d->sum[number & 1],
                      .mask = d->mask[number & 1]};
    fast_entropy *e = &d->entropy;
    fast_input_prepare(&e->words);
    fast_input_prepare(&e->raw);
    d->rows->read(e, &d->scaling, &d->terms, row);
    fast_pad_errors(&d->geometry, frames[0], number);
    return e->words.at > e->words.end || e->raw.at + (e->raw_bit > 0) > e->raw.end ? DFK_DAMAGED : 0;
}

/* Decodes one row, or two: those of a pair lie in the same blocks. */
static int decode_rows(decoder *d, const fast_frame *frames, uint32_t stage, uint32_t first, uint32_t count)
{
    fast_row rows[2];
    for (uint32_t i = 0; i < count; i++)
        if (read_row(d, frames, stage, first + i, &rows[i]))
            return DFK_DAMAGED;
    fast_pad_left(&d->geometry, frames[0], first);
    return d->rows->rebuild(&d->scaling, &d->terms, &rows[0], count > 1 ? &rows[1] : NULL) ? DFK_DAMAGED : 0;
}

static void unfold_row(const decoder *d, const int16_t *sample, void *out)
{
    /* Ranks beyond the last value, which only a damaged stream has, must not be looked up. */
    const uint32_t half = 1u << (d->plan.bits - 1), last = d->plan.values - 1;
    for (uint32_t x = 0; x < d->shape.columns; x++) {
        uint32_t rank = (uint32_t)(sample[x] + (int32_t)half);
        uint16_t value = d->unfold[rank < last ? rank : last];
        if (d->shape.sample_bytes == 1)
            ((uint8_t *)out)[x] = (uint8_t)value;
        else
            ((uint16_t *)out)[x] = value;
    }
}

static void deliver_row(const decoder *d, const int16_t *sample, dfk_output *output)
{
    if (d->plan.folded) {
        unfold_row(d, sample, dfk_output_row(output));
        dfk_output_done(output);
        return;
    }
    static const dfk_field as_they_are = {.mask = 0xFFFF};
    const dfk_field *field = output->field ? output->field : &as_they_are;
    const uint32_t item_bytes = output->field ? output->word_bytes : output->sample_bytes;
    d->rows->deliver(sample, output->columns, 1u << (d->plan.bits - 1), field, item_bytes, output->next);
    output->next += (size_t)output->columns * item_bytes;
}

static int decode_frame(decoder *d, dfk_output *output)
{
    uint32_t distance[DFK_REFERENCES], stage = fast_stage_of(&d->plan, d->frame, distance);
    fast_frame frames[FAST_STAGES];
    frames[0] = d->ring[d->frame % d->ring_frames];
    for (uint32_t i = 0; i < stage; i++)
        frames[1 + i] = d->ring[(d->frame - distance[i]) % d->ring_frames];
    fast_pad_above(&d->geometry, frames[0], stage ? &frames[1] : NULL);
    fast_neighbours_of(&d->plan.stage[stage], &d->pairs[stage].early, frames, d->geometry.stride, &d->terms.early);
    fast_neighbours_of(&d->plan.stage[stage], &d->pairs[stage].late, frames, d->geometry.stride, &d->terms.late);
    const uint32_t rows = d->shape.rows, in_block = (1u << d->plan.block_log) - 1;
    for (uint32_t row = 0; row < rows; row += 2) {
        uint32_t count = rows - row < 2 ? 1 : 2;
        if ((row & in_block) == 0 && read_classes(d, row >> d->plan.block_log, stage))
            return DFK_DAMAGED;
        if (decode_rows(d, frames, stage, row, count))
            return DFK_DAMAGED;
        for (uint32_t i = row; i < row + count; i++)
            deliver_row(d, frames[0].sample + (size_t)i * d->geometry.stride, output);
    }
    fast_pad_below(&d->geometry, frames[0]);
    return 0;
}

/* Samples as they are, bit after bit, lowest first. */
static void unpack_row(const decoder *d, uint64_t at, void *out)
{
    const uint32_t bits = d->shape.bits;
    for (uint32_t i = 0; i < d->shape.columns; i++, at += bits) {
        const uint8_t *from = d->stored + (at >> 3);
        uint32_t shift = at & 7, value = from[0];
        for (uint32_t byte = 1; 8 * byte < shift + bits; byte++)
            value |= (uint32_t)from[byte] << (8 * byte);
        value = value >> shift & ((1u << bits) - 1);
        if (d->shape.sample_bytes == 1)
            ((uint8_t *)out)[i] = (uint8_t)value;
        else
            ((uint16_t *)out)[i] = (uint16_t)value;
    }
}

static void unpack_frame(const decoder *d, dfk_output *output)
{
    const uint64_t row_bits = (uint64_t)d->shape.columns * d->shape.bits;
    for (uint32_t row = 0; row < d->shape.rows; row++) {
        unpack_row(d, ((uint64_t)d->frame * d->shape.rows + row) * row_bits, dfk_output_row(output));
        dfk_output_done(output);
    }
}

static int next_frame(decoder *d, dfk_output *output)
{
    if (d->failed)
        return d->failed;
    if (d->frame == d->shape.frames)
        return DFK_NO_MORE;
    if (d->mode == FAST_STORED)
        unpack_frame(d, output);
    else if (decode_frame(d, output))
        return d->failed = DFK_DAMAGED;
    d->frame++;
    return 0;
}

int64_t dfk_fast_next(void *memory, uint32_t frames, const dfk_field *field, uint32_t word_bytes, void *out)
{
    if (memory == NULL || out == NULL || !dfk_output_valid(field, word_bytes))
        return DFK_BAD_ARGUMENT;
    decoder *d = (decoder *)(void *)dfk_arena_over(memory, SIZE_MAX).start;
    dfk_output output = {field, d->shape.columns, d->shape.sample_bytes, word_bytes, d->row, out};
    for (uint32_t done = 0; done < frames; done++) {
        int code = next_frame(d, &output);
        if (code)
            return done ? (int64_t)done : code;
    }
    return frames;
}
