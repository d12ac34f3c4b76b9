#include "dense_model.h"
#include "dense_rounding.h"
/* round(2^31 * exp(-1 / 256)): one step of the logistic function's table. */
#define LOGISTIC_STEP 2139111487u
#define HALF_SLOT (1u << 31)

static uint32_t planes_needed(const dfk_shape *shape, const dense_header *header) {
    uint32_t farthest = 0;
    for (int i = 0; i < DFK_REFERENCES; i++) {
        /* A frame too near to the start for its distance takes 1 instead. */
        const uint32_t distance = header->references[i] < shape->frames ? header->references[i] : 1;
        if (header->references[i] && distance > farthest)
            farthest = distance;
    }
    return farthest < shape->frames ? farthest + 1 : shape->frames;
}

int64_t dense_layout(dense_model **out, const dfk_shape *shape, const dense_header *header, void *memory,
                     size_t bytes) {
    dfk_arena arena = memory ? dfk_arena_over(memory, bytes) : (dfk_arena){0};
    dense_model sizes = {.header = *header, .shape = *shape};
    dense_model *at = dfk_take(&arena, 1, sizeof sizes), *model = &sizes;
    model->cells = (shape->columns + DENSE_SEGMENT - 1) / DENSE_SEGMENT;
    model->cell_rows = (shape->rows + DENSE_CELL_ROWS - 1) / DENSE_CELL_ROWS;
    model->stride = (size_t)model->cells * DENSE_SEGMENT + 2 * DENSE_MARGIN;
    model->plane_samples = model->stride * (shape->rows + DENSE_TOP + DENSE_BOTTOM);
    model->planes = planes_needed(shape, header);
    const uint32_t level = header->level, solutions = DENSE_USED_SOLUTIONS(level);
    const uint64_t weight_bytes = DENSE_MOST_TERMS * sizeof(float);
    const uint64_t matrix = DENSE_GROUPS(DENSE_BLOCKS(header->level)) * sizeof(dense_f8);
    model->pixels = dfk_take(&arena, model->planes, model->plane_samples * sizeof(uint16_t));
    model->errors = dfk_take(&arena, model->planes, model->plane_samples * sizeof(uint16_t));
    for (int i = 0; i < 2; i++) {
        int8_t *signs = dfk_take(&arena, model->stride, 1);
        model->signs[i] = signs ? signs + DENSE_MARGIN : NULL;
        model->cell[i] = dfk_take(&arena, model->cells + 2 * DENSE_CELL_MARGIN, matrix);
    }
    model->history = dfk_take(&arena, (uint64_t)model->cells * model->cell_rows, matrix);
    model->fixed = dfk_take(&arena, (uint64_t)model->cells * solutions, matrix);
    model->weights = dfk_take(&arena, (uint64_t)model->cells * solutions, weight_bytes);
    model->solved = dfk_take(&arena, model->cells, sizeof(int32_t));
    if (level)
        for (int i = 0; i < 3 * DENSE_SOLUTIONS; i++) {
            uint16_t *errors = dfk_take(&arena, model->stride, sizeof(uint16_t));
            model->solution_errors[i / 3][i % 3] = errors ? errors + DENSE_MARGIN : NULL;
        }
    for (int i = 0; i < DENSE_USED_CONTEXTS(level); i++)
        model->slots[i] = dfk_take(&arena, (uint64_t)dense_context_count[i] * NODES, sizeof(uint32_t));
    for (int i = 0; i < DENSE_MIXERS(level); i++)
        model->mixer[i] = dfk_take(&arena, NODES * DENSE_SETS * DENSE_MIX_LANES(level), sizeof(int16_t));
    if (level)
        model->refine = dfk_take(&arena, DENSE_REFINES, sizeof(uint32_t));
    model->bias[0] = dfk_take(&arena, DENSE_BIAS0, sizeof(dense_bias));
    model->bias[1] = dfk_take(&arena, DENSE_BIAS1, sizeof(dense_bias));
    model->low = dfk_take(&arena, DENSE_LOWS, sizeof(uint32_t));
    if (arena.used == UINT64_MAX)
        return DFK_BAD_ARGUMENT;
    if (memory) {
        if (arena.used > arena.size)
            return DFK_BAD_ARGUMENT;
        *at = sizes;
        *out = at;
    }
    return (int64_t)arena.used + DFK_ALIGNMENT;
}

static void fill_tables(dense_model *model) {
    const uint64_t one = HALF_SLOT;
    uint64_t power = one; /* exp(-i / 256) */
    for (int i = 0; i < 2048; i++) {
        uint64_t value = (one << 16) / (one + power);
        value = value > 65520 ? 65520 : value;
        model->squash[2048 + i] = (uint16_t)value;
        if (i)
            model->squash[2048 - i] = (uint16_t)(65536 - value);
        power = (power * LOGISTIC_STEP + (one >> 1)) >> 31;
    }
    model->squash[0] = 16;
    int next = 0;
    for (int x = -2047; x <= 2047; x++)
        for (; next <= model->squash[x + 2048] >> 4 && next < 4096; next++)
            model->stretch[next] = (int16_t)x;
    for (; next < 4096; next++)
        model->stretch[next] = 2047;
}

/* Copies what stands already: a stream of a few samples spends most of its time here. */
static void fill(uint32_t *slots, size_t count) {
    size_t done = 1;
    slots[0] = HALF_SLOT;
    for (size_t next; done < count; done += next) {
        next = done < count - done ? done : count - done;
        memcpy(slots + done, slots, next * sizeof *slots);
    }
}

/* Weights of batches of steps: 0 where there is no context. */
static void start_batches(int16_t *mixer, int16_t share) {
    for (int node = NODE_POSITIVE; node <= NODE_NEGATIVE; node += NODE_NEGATIVE - NODE_POSITIVE)
        for (int i = 0; i < DENSE_SETS * DENSE_BATCH_LANES; i++) {
            const int context = 2 * (i % DENSE_BATCH_LANES / 8) + i % 2;
            mixer[node * DENSE_SETS * DENSE_MIX_LANES(0) + i] = context < DENSE_USED_CONTEXTS(0) ? share : 0;
        }
}

void dense_start(dense_model *model) {
    fill_tables(model);
    const size_t plane_bytes = model->plane_samples * model->planes * sizeof(uint16_t);
    memset(model->pixels, 0, plane_bytes);
    memset(model->errors, 0, plane_bytes);
    for (int i = 0; i < 2; i++)
        memset(model->signs[i] - DENSE_MARGIN, 0, model->stride);
    const int level = (int)model->header.level, contexts = DENSE_USED_CONTEXTS(level);
    const int lanes = DENSE_MIX_LANES(level);
    for (int i = 0; i < contexts; i++)
        fill(model->slots[i], (size_t)dense_context_count[i] * NODES);
    fill(model->low, DENSE_LOWS);
    fill(model->escapes, DENSE_ESCAPES);
    fill(model->flat, 2);
    for (int m = 0; m < DENSE_MIXERS(level); m++)
        for (int16_t *set = model->mixer[m]; set < model->mixer[m] + NODES * DENSE_SETS * lanes; set += lanes)
            for (int i = 0; i < lanes; i++)
                set[i] = i >= contexts ? 0 : (int16_t)(DENSE_WHOLE_WEIGHT / contexts);
    if (!level)
        start_batches(model->mixer[0], DENSE_WHOLE_WEIGHT / DENSE_USED_CONTEXTS(0));
    if (level)
        for (int i = 0; i < DENSE_REFINES; i++) {
            const int step = i % DENSE_REFINE_STEPS;
            model->refine[i] = model->squash[step == 0 ? 1 : step == 32 ? 4095 : step * 128] * 16u;
        }
    memset(model->bias[0], 0, DENSE_BIAS0 * sizeof(dense_bias));
    memset(model->bias[1], 0, DENSE_BIAS1 * sizeof(dense_bias));
    memset(&model->segment, 0, sizeof model->segment);
    memset(model->weights, 0, (size_t)model->cells * DENSE_USED_SOLUTIONS(level) * DENSE_MOST_TERMS * sizeof(float));
    model->frame = 0;
}

#if defined(__x86_64__) && !defined(DENSE_BASE_ONLY)
/* Whether the machine counts leading zeros: one that does not takes the instruction for another, whose result here
 * would be 0.  Not every compiler can be asked for it. */
static int counts_zeros(void) {
    uint32_t zeros;
    __asm__ volatile("lzcnt %1, %0" : "=r"(zeros) : "r"(1u) : "cc");
    return zeros == 31;
}
#endif

/* DENSE_BASE_ONLY and DENSE_NO_INTRINSICS are for builds that compare the paths. */
static void code_frame_here(dense_model *model, const uint16_t *samples) {
#if defined(__x86_64__) && !defined(DENSE_BASE_ONLY)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
        counts_zeros()) {
        dense_frame_avx2(model, samples);
        return;
    }
#endif
    dense_frame_base(model, samples);
}

void dense_code_frame(dense_model *model, const uint16_t *samples) {
    const uint64_t before = dense_enter_rounding();
    code_frame_here(model, samples);
    dense_leave_rounding(before);
}
