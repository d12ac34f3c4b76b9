/* The encoder of the dense stream: looks at the samples, tries what the header can choose, writes. */
#include "dense_model.h"

#define VALUES 65536
#define SPIKE_CANDIDATES 4
/* A value rarer than one sample in so many is no spike, nor one that is not so many times as frequent as those next
 * to it on one side: there the prediction tells as much. */
#define RARE 200
#define PEAK 2
/* One that is so many times as frequent is a spike for certain, but where it is more than half of all samples.  Whether
 * others are takes a trial, which a short stream is worth only where a value has no neighbours at all. */
#define CLEAR_PEAK 12
#define LEAST_DOUBT (1 << 16)
/* Shorter runs of values that do not occur are left as they are. */
#define LEAST_GAP 8
/* A choice must gain this part of what the trial takes. */
#define WORTH_WHILE 1000
#define LEAST_TRIAL_EFFORT 2
#define TRIAL_FRAMES 4
#define LEAST_TRIAL_ROWS 16
#define TRIAL_SAMPLES 5000 /* times effort */
/* Of short stacks trials take one part in so many, down to the least. */
#define TRIAL_SHARE 24
#define LEAST_TRIAL_SAMPLES 4096
/* Even and odd values must differ in number by one part in so many for their parity to be worth a trial. */
#define UNEVEN 12
/* A gap must have so many samples on one side of it, no farther away than it is long: where values are sparse there are
 * gaps everywhere. */
#define BESIDE_GAP 24

static uint32_t sample_at(const dfk_shape *shape, const void *samples, size_t index) {
    return shape->sample_bytes == 1 ? ((const uint8_t *)samples)[index] : ((const uint16_t *)samples)[index];
}

static dense_header plain_header(const dfk_settings *settings) {
    dense_header header = {.level = settings->level};
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

/* Memory of an encoder: a model, one frame of samples as they are coded, and how often each value occurs. */
typedef struct {
    dfk_shape shape;
    const void *samples;
    uint8_t *out;
    size_t capacity;
    uint16_t *frame;
    uint32_t *counts;
    uint16_t *closed; /* what each value becomes when the gaps are closed */
    void *model_memory;
    size_t model_bytes;
} dense_encoder;

/* A part of the stack: all columns of some rows of the first frames. */
typedef struct {
    uint32_t frames, first_row, rows;
} dense_part;

static int64_t layout(dense_encoder *encoder, const dfk_shape *shape, const dense_header *header, void *memory,
                      size_t bytes) {
    dfk_arena arena = memory ? dfk_arena_over(memory, bytes) : (dfk_arena){0};
    encoder->shape = *shape;
    encoder->frame = dfk_take(&arena, (uint64_t)shape->rows * shape->columns, sizeof(uint16_t));
    encoder->counts = dfk_take(&arena, VALUES, sizeof(uint32_t));
    encoder->closed = dfk_take(&arena, VALUES, sizeof(uint16_t));
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

/* Brings the rows of a part of frame f to the form in which they are coded. */
static void load_frame(const dense_encoder *encoder, const dense_part *part, uint32_t f) {
    const dfk_shape *shape = &encoder->shape;
    const size_t start = ((size_t)f * shape->rows + part->first_row) * shape->columns;
    const size_t count = (size_t)part->rows * shape->columns;
    for (size_t i = 0; i < count; i++)
        encoder->frame[i] = encoder->closed[sample_at(shape, encoder->samples, start + i)];
}

static void prepare_gaps(const dense_encoder *encoder, const dense_header *header) {
    const uint32_t largest = dense_largest_sample(header);
    uint32_t removed = 0, next = 0;
    for (uint32_t value = 0; value <= largest; value++) {
        if (next < header->gap_count && value == header->gaps[next].at) {
            removed += header->gaps[next].size;
            value += header->gaps[next++].size;
        }
        if (value <= largest)
            encoder->closed[value] = (uint16_t)(value - removed);
    }
}

static int64_t write_coded(const dense_encoder *encoder, const dense_header *header, const dense_part *part) {
    uint8_t head[DENSE_LARGEST_HEADER];
    const size_t start = dense_write_header(header, head);
    if (start > encoder->capacity)
        return DFK_NO_ROOM;
    memcpy(encoder->out, head, start);
    dfk_shape shape = encoder->shape;
    shape.frames = part->frames;
    shape.rows = part->rows;
    dense_model *model = NULL;
    const int64_t needed = dense_layout(&model, &shape, header, encoder->model_memory, encoder->model_bytes);
    if (needed < 0)
        return needed;
    dense_start(model);
    dense_coder_start_encoder(&model->coder, encoder->out + start, encoder->capacity - start);
    for (uint32_t f = 0; f < shape.frames && !model->coder.overflow; f++) {
        load_frame(encoder, part, f);
        dense_code_frame(model, encoder->frame);
    }
    dense_coder_finish(&model->coder);
    return model->coder.overflow ? DFK_NO_ROOM : (int64_t)(start + model->coder.at);
}

/* The part on which choices are tried: a few frames, of them rows in the middle. */
static dense_part trial_part(const dfk_shape *shape, uint32_t samples) {
    dense_part part = {shape->frames < TRIAL_FRAMES ? shape->frames : TRIAL_FRAMES, 0, shape->rows};
    const uint64_t wanted = 1 + samples / ((uint64_t)part.frames * shape->columns);
    if (wanted < shape->rows) {
        part.rows = wanted < LEAST_TRIAL_ROWS ? (LEAST_TRIAL_ROWS < shape->rows ? LEAST_TRIAL_ROWS : shape->rows)
                                              : (uint32_t)wanted;
        part.first_row = (shape->rows - part.rows) / 2;
    } else {
        const uint64_t frames = 1 + samples / ((uint64_t)shape->rows * shape->columns);
        part.frames = frames < shape->frames ? (uint32_t)frames : shape->frames;
    }
    return part;
}

/* The choice so far, and the length of a part of the stack with it: 0 while nothing has asked for it, negative where it
 * cannot be coded. */
typedef struct {
    const dense_encoder *encoder;
    dense_part part;
    dense_header best;
    int64_t length;
} dense_trial;

static void measure(dense_trial *trial) {
    if (!trial->length)
        trial->length = write_coded(trial->encoder, &trial->best, &trial->part);
}

/* Keeps a changed header when it makes the part smaller by more than it costs elsewhere. */
static int better(dense_trial *trial, const dense_header *changed) {
    measure(trial);
    const int64_t length = write_coded(trial->encoder, changed, &trial->part);
    if (length < 0 || length + length / WORTH_WHILE >= trial->length)
        return 0;
    trial->best = *changed;
    trial->length = length;
    return 1;
}

static uint64_t sample_count(const dense_encoder *encoder) {
    return (uint64_t)encoder->shape.frames * encoder->shape.rows * encoder->shape.columns;
}

/* The square root of a number above 0, within a tenth. */
static uint32_t root(uint32_t value) {
    const uint32_t near = 1u << dfk_log2(value) / 2;
    return (near + value / near) / 2;
}

/* Whether even values and the odd ones behind them occur unequally often, all together or, by more than chance would
 * have it, one by one; those aside that occur very often. */
static int uneven(const dense_encoder *encoder, uint32_t largest) {
    const uint64_t often = sample_count(encoder) / RARE + 1;
    uint64_t total = 0, difference = 0, chance = 0;
    int64_t surplus = 0;
    for (uint32_t value = 0; value <= largest; value += 2) {
        const uint32_t even = encoder->counts[value], odd = encoder->counts[value + 1];
        if (even > often || odd > often || even + odd == 0)
            continue;
        total += (uint64_t)even + odd;
        surplus += (int64_t)even - odd;
        difference += even > odd ? even - odd : odd - even;
        chance += root(even + odd);
    }
    const uint64_t clear = difference > chance ? difference - chance : 0;
    return clear * UNEVEN > total || (uint64_t)(surplus < 0 ? -surplus : surplus) * UNEVEN > total;
}

/* Whether samples of the second reference are nearer to those in the same place than their neighbours are. */
static int steady(const dense_encoder *encoder, const dense_header *header) {
    const dfk_shape *shape = &encoder->shape;
    const size_t frame = (size_t)shape->rows * shape->columns, back = header->references[1] * frame;
    uint64_t apart = 0, beside = 0;
    for (size_t start = back; start < shape->frames * frame; start += shape->columns)
        for (size_t at = start + 1; at < start + shape->columns; at++) {
            const int32_t value = (int32_t)sample_at(shape, encoder->samples, at);
            const int32_t behind = (int32_t)sample_at(shape, encoder->samples, at - back);
            const int32_t west = (int32_t)sample_at(shape, encoder->samples, at - 1);
            apart += (uint64_t)(value < behind ? behind - value : value - behind);
            beside += (uint64_t)(value < west ? west - value : value - west);
        }
    return apart < beside;
}

/* Samples with values from `from` to below `to`, as far as there are such. */
static uint64_t samples_between(const dense_encoder *encoder, int64_t from, int64_t to) {
    uint64_t sum = 0;
    for (int64_t value = from < 0 ? 0 : from; value < to && value < VALUES; value++)
        sum += encoder->counts[value];
    return sum;
}

/* Whether any gap is longer than chance would have it. */
static int parting(const dense_encoder *encoder, const dense_header *header) {
    for (uint32_t i = 0; i < header->gap_count; i++) {
        const int64_t start = header->gaps[i].at, size = header->gaps[i].size, end = start + size;
        if (samples_between(encoder, start - size, start) >= BESIDE_GAP ||
            samples_between(encoder, end, end + size) >= BESIDE_GAP)
            return 1;
    }
    return 0;
}

/* How often the nearest value on one side (step 1 or -1) occurs; those beyond a gap are no neighbours. */
static uint32_t beside(const dense_encoder *encoder, int32_t value, int32_t step, int32_t largest) {
    uint32_t count = 0;
    for (int32_t i = 0, at = value + step; i < LEAST_GAP && !count && at >= 0 && at <= largest; i++, at += step)
        count = encoder->counts[at];
    return count;
}

/* How often the rarer of a value's neighbours occurs, 0 if there are none: the other one may be a spike itself. */
static uint32_t rarer_neighbour(const dense_encoder *encoder, uint32_t value, uint32_t largest) {
    const uint32_t below = beside(encoder, (int32_t)value, -1, (int32_t)largest);
    const uint32_t above = beside(encoder, (int32_t)value, 1, (int32_t)largest);
    return !below || (above && above < below) ? above : below;
}

/* Values that occur often are worth a symbol of their own where the prediction is near to them. */
static void choose_spikes(dense_trial *trial) {
    const dense_encoder *encoder = trial->encoder;
    const uint64_t total = sample_count(encoder);
    const uint32_t largest = dense_largest_sample(&trial->best);
    uint32_t candidates[SPIKE_CANDIDATES] = {0, largest}, count = largest ? 2 : 1;
    for (uint32_t round = 0; round < 2; round++) {
        uint32_t mode = VALUES;
        for (uint32_t value = 0; value <= largest; value++) {
            int known = 0;
            for (uint32_t i = 0; i < count; i++)
                known |= candidates[i] == value;
            if (!known && (mode == VALUES || encoder->counts[value] > encoder->counts[mode]))
                mode = value;
        }
        if (mode < VALUES)
            candidates[count++] = mode;
    }
    for (uint32_t i = 0; i < count && trial->best.spike_count < DENSE_SPIKES; i++) {
        const uint32_t often = encoder->counts[candidates[i]];
        const uint32_t least = rarer_neighbour(encoder, candidates[i], largest);
        if (often <= total / RARE || often / PEAK < least)
            continue;
        dense_header changed = trial->best;
        changed.spikes[changed.spike_count++] = encoder->closed[candidates[i]];
        if (least && often / CLEAR_PEAK >= least && often <= total / 2) {
            trial->best = changed;
            trial->length = 0;
        } else if (!least || total >= LEAST_DOUBT) {
            better(trial, &changed);
        }
    }
}

/* The largest runs of values that do not occur, in rising order. */
static void find_gaps(const dense_encoder *encoder, dense_header *header) {
    uint32_t start = 0;
    for (uint32_t value = 0; value <= header->largest; value++) {
        if (!encoder->counts[value])
            continue;
        const dense_gap gap = {start, value - start};
        start = value + 1;
        if (gap.size < LEAST_GAP)
            continue;
        uint32_t out = header->gap_count;
        if (out == DENSE_GAPS) {
            out = 0;
            for (uint32_t i = 1; i < DENSE_GAPS; i++)
                if (header->gaps[i].size < header->gaps[out].size)
                    out = i;
            if (header->gaps[out].size >= gap.size)
                continue;
            for (; out + 1 < DENSE_GAPS; out++)
                header->gaps[out] = header->gaps[out + 1];
        } else {
            header->gap_count++;
        }
        header->gaps[out] = gap;
    }
    for (uint32_t i = 0; i < header->gap_count; i++)
        header->largest -= header->gaps[i].size;
}

static void choose_gaps(dense_trial *trial) {
    dense_header changed = trial->best;
    find_gaps(trial->encoder, &changed);
    if (!parting(trial->encoder, &changed))
        return;
    measure(trial); /* before gaps are closed, as the choice so far has it */
    prepare_gaps(trial->encoder, &changed);
    if (!better(trial, &changed))
        prepare_gaps(trial->encoder, &trial->best);
}

static void choose(const dense_encoder *encoder, const dfk_settings *settings, dense_header *header) {
    const uint64_t share = sample_count(encoder) / TRIAL_SHARE;
    uint32_t samples = TRIAL_SAMPLES * settings->effort;
    if (samples > share)
        samples = share > LEAST_TRIAL_SAMPLES ? (uint32_t)share : LEAST_TRIAL_SAMPLES;
    dense_trial trial = {encoder, trial_part(&encoder->shape, samples), *header, 0};
    dense_header changed = trial.best;
    changed.parity = 1;
    if (uneven(encoder, header->largest))
        better(&trial, &changed);
    choose_gaps(&trial);
    choose_spikes(&trial);
    changed = trial.best;
    /* The other list takes most of its taps from the references. */
    changed.list = 1;
    if (trial.part.frames > 2 && header->references[1] && steady(encoder, header))
        better(&trial, &changed);
    *header = trial.best;
}

static void count_values(const dense_encoder *encoder, dense_header *header) {
    const size_t count = (size_t)encoder->shape.frames * encoder->shape.rows * encoder->shape.columns;
    memset(encoder->counts, 0, VALUES * sizeof *encoder->counts);
    for (size_t i = 0; i < count; i++) {
        const uint32_t value = sample_at(&encoder->shape, encoder->samples, i);
        encoder->counts[value]++;
        header->largest = value > header->largest ? value : header->largest;
    }
}

int64_t dfk_dense_encode(const dfk_shape *shape, const dfk_settings *settings, const void *samples, uint8_t *out,
                         size_t capacity, void *memory, size_t memory_bytes) {
    if (!dense_shape_ok(shape) || !settings_ok(settings))
        return DFK_BAD_ARGUMENT;
    dense_encoder encoder = {.shape = *shape};
    dense_header header = plain_header(settings);
    if (layout(&encoder, shape, &header, memory, memory_bytes) < 0)
        return DFK_BAD_ARGUMENT;
    encoder.samples = samples;
    encoder.out = out;
    encoder.capacity = capacity;
    count_values(&encoder, &header);
    prepare_gaps(&encoder, &header);
    if (settings->effort >= LEAST_TRIAL_EFFORT)
        choose(&encoder, settings, &header);
    const dense_part whole = {shape->frames, 0, shape->rows};
    const int64_t length = write_coded(&encoder, &header, &whole);
    const uint64_t stored = 2 + (uint64_t)shape->frames * shape->rows * shape->columns * shape->sample_bytes;
    if (length > 0 && (uint64_t)length < stored)
        return length;
    return write_stored(shape, samples, out, capacity);
}
