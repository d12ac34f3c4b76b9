/* The header of the fast stream, laid down once for writing and reading. */
#include "fast_format.h"

#include <stdlib.h>
#include <string.h>

const fast_tap fast_taps[FAST_TAPS] = {
    {0, 0, -1},  {0, 0, -2},  {0, -1, 0},  {0, -1, -1}, {0, -1, 1},  {0, -2, 0},   {0, -2, 1},  {0, -1, 2},
    {0, -1, -2}, {0, -2, -1}, {0, -3, 0},  {0, -2, 2},  {0, -2, -2}, {0, -1, 3},   {0, -1, -3}, {0, -3, 1},
    {0, -3, -1}, {1, 0, 0},   {1, 0, 1},   {1, 1, 0},   {1, 0, -1},  {1, -1, 0},   {1, 1, 1},   {1, 1, -1},
    {1, -1, 1},  {1, -1, -1}, {1, 0, 2},   {1, 2, 0},   {1, 0, -2},  {1, -2, 0},   {2, 0, 0},   {2, 0, 1},
    {2, 1, 0},   {2, 0, -1},  {2, -1, 0},  {2, 1, 1},   {2, 1, -1},  {2, -1, 1},   {2, -1, -1}, {3, 0, 0},
    {3, 0, 1},   {3, 1, 0},   {3, 0, -1},  {3, -1, 0},
};

#define OFFSET_STEPS 3 /* an offset is sent in eighths of a grey level */
#define WEIGHT_MODELS 3
#define LARGEST_SHIFT 15

typedef struct {
    fast_number run, weight[WEIGHT_MODELS], offset, shift, spike, correction;
    fast_bit tap[FAST_STAGES], context[4], table_tree[FAST_TABLES], corrected;
} header_models;

uint32_t fast_stage_of(const fast_plan *plan, uint32_t frame, uint32_t distance[DFK_REFERENCES])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->references; i++)
        if (plan->distance[i] <= frame)
            distance[count++] = plan->distance[i];
    return count;
}

void fast_mark_stages(fast_plan *plan, uint32_t frames)
{
    uint32_t ignored[DFK_REFERENCES];
    for (uint32_t s = 0; s < FAST_STAGES; s++)
        plan->stage[s].used = 0;
    for (uint32_t f = 0; f < frames && f <= FAST_MOST_DISTANCE; f++)
        plan->stage[fast_stage_of(plan, f, ignored)].used = 1;
}

/* Runs of samples that do not occur and that do, by turns. */
static int fold_runs(fast_side *side, header_models *m, fast_plan *plan, uint32_t size, uint8_t *used)
{
    uint32_t at = 0, present = 0;
    plan->values = 0;
    while (at < size) {
        uint32_t run = 0;
        if (side->out != NULL)
            while (at + run < size && used[at + run] == present)
                run++;
        run = fast_side_number(side, &m->run, run);
        if (run > size - at || (run == 0 && at > 0))
            return DFK_DAMAGED;
        memset(used + at, (int)present, run);
        plan->values += present ? run : 0;
        at += run;
        present ^= 1;
    }
    return plan->values > 0 ? 0 : DFK_DAMAGED;
}

static int samples(fast_side *side, header_models *m, fast_plan *plan, const dfk_shape *shape, uint8_t *used)
{
    plan->bits = shape->bits;
    plan->folded = fast_side_plain(side, 1, plan->folded);
    if (plan->folded) {
        if (fold_runs(side, m, plan, 1u << shape->bits, used))
            return DFK_DAMAGED;
        plan->bits = plan->values > 1 ? dfk_log2(plan->values - 1) + 1 : 1;
    }
    plan->block_log = 3 + fast_side_plain(side, 1, plan->block_log - 3);
    plan->fraction = fast_side_plain(side, 4, plan->fraction);
    plan->error_shift = fast_side_plain(side, 4, plan->error_shift);
    plan->spiked = fast_side_plain(side, 1, plan->spiked);
    if (plan->spiked)
        plan->spike = fast_side_plain(side, plan->bits, plan->spike);
    plan->references = fast_side_plain(side, 2, plan->references);
    for (uint32_t i = 0; i < plan->references; i++) {
        plan->distance[i] = fast_side_plain(side, 8, plan->distance[i]);
        if (plan->distance[i] == 0)
            return DFK_DAMAGED;
    }
    return plan->fraction >= OFFSET_STEPS ? 0 : DFK_DAMAGED;
}

/* Which model a tap's weight has: nearest, next and further samples. */
static uint32_t weight_model(fast_tap tap)
{
    uint32_t away = (uint32_t)(abs(tap.row) + abs(tap.column)) + (uint32_t)tap.reference;
    return away <= 1 ? 0 : away == 2 ? 1 : 2;
}

int fast_weights_hold(const fast_plan *plan, const fast_stage *stage, uint32_t class)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < stage->taps; i++)
        sum += abs(stage->weight[class][i]);
    sum = (sum << (plan->bits - 1)) + llabs(stage->offset[class]);
    return sum < INT64_C(1) << 30;
}

static int stage(fast_side *side, header_models *m, fast_plan *plan, uint32_t references)
{
    fast_stage *s = &plan->stage[references];
    uint32_t taps = 0;
    for (uint32_t i = 0, next = 0; i < FAST_TAPS; i++) {
        uint32_t reference = (uint32_t)fast_taps[i].reference;
        if (reference > references)
            break;
        uint32_t wanted = side->out != NULL && next < s->taps && s->tap[next] == i;
        next += wanted;
        if (i < FAST_SERIAL_TAPS || fast_side_bit(side, &m->tap[reference], wanted))
            s->tap[taps++] = (uint8_t)i;
    }
    s->taps = taps;
    s->classes = 1 + fast_side_plain(side, 6, s->classes - 1);
    const int32_t half = 1 << (plan->fraction - 1);
    for (uint32_t c = 0; c < s->classes; c++) {
        for (uint32_t i = 0; i < taps; i++) {
            int32_t weight = fast_side_signed(side, &m->weight[weight_model(fast_taps[s->tap[i]])], s->weight[c][i]);
            if (weight != (int16_t)weight)
                return DFK_DAMAGED;
            s->weight[c][i] = (int16_t)weight;
        }
        int32_t eighths = (s->offset[c] - half) / (1 << (plan->fraction - OFFSET_STEPS));
        int64_t offset = fast_side_signed(side, &m->offset, eighths);
        offset = offset * (1 << (plan->fraction - OFFSET_STEPS)) + half;
        if (offset != (int32_t)offset)
            return DFK_DAMAGED;
        s->offset[c] = (int32_t)offset;
        int32_t shift = fast_side_signed(side, &m->shift, s->shift[c]);
        if (shift < -FAST_MOST_SHIFT || shift > FAST_MOST_SHIFT)
            return DFK_DAMAGED;
        s->shift[c] = (int8_t)shift;
        if (!fast_weights_hold(plan, s, c))
            return DFK_DAMAGED;
    }
    return 0;
}

static int contexts(fast_side *side, header_models *m, fast_plan *plan)
{
    plan->tables = 1 + fast_side_plain(side, 5, plan->tables - 1);
    uint32_t last = 0, count = plan->spiked ? FAST_CONTEXTS : FAST_ACTIVITIES;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t table = plan->table_of[i], jump = table == last ? 0 : table == last + 1 ? 1 : 2;
        if (!fast_side_bit(side, &m->context[0], jump != 0))
            table = last;
        else if (!fast_side_bit(side, &m->context[1], jump == 2))
            table = last + 1;
        else
            table = fast_side_tree(side, m->table_tree, 5, table);
        if (table >= plan->tables)
            return DFK_DAMAGED;
        plan->table_of[i] = (uint8_t)(last = table);
    }
    for (uint32_t i = count; i < FAST_CONTEXTS; i++)
        plan->table_of[i] = plan->table_of[i % FAST_ACTIVITIES];
    return 0;
}

static int table(fast_side *side, header_models *m, const fast_plan *plan, fast_table *t)
{
    t->shift = fast_side_plain(side, 4, t->shift);
    t->tokens = 1 + fast_side_plain(side, 6, t->tokens - 1);
    t->scale = fast_side_plain(side, 5, t->scale);
    t->shape = fast_side_plain(side, 2, t->shape);
    t->spike = plan->spiked ? fast_side_number(side, &m->spike, t->spike) : 0;
    t->corrected = fast_side_bit(side, &m->corrected, t->corrected);
    int32_t last = 0;
    for (uint32_t i = 0; i < t->tokens; i++) {
        if (!t->corrected) {
            t->correction[i] = 0;
            continue;
        }
        last += fast_side_signed(side, &m->correction, t->correction[i] - last);
        if (last != (int8_t)last)
            return DFK_DAMAGED;
        t->correction[i] = (int8_t)last;
    }
    uint32_t extra;
    fast_token_base(t->tokens - 1, &extra);
    if (t->spike + t->tokens > FAST_FREQUENCIES || (plan->spiked && t->spike == 0))
        return DFK_DAMAGED;
    return extra + t->shift <= FAST_RAW_LIMIT && t->shift <= LARGEST_SHIFT ? 0 : DFK_DAMAGED;
}

int fast_header(fast_side *side, fast_plan *plan, const dfk_shape *shape, uint8_t *used)
{
    header_models m;
    fast_bits_reset(&m, sizeof m);
    if (samples(side, &m, plan, shape, used))
        return DFK_DAMAGED;
    fast_mark_stages(plan, shape->frames);
    for (uint32_t s = 0; s < FAST_STAGES; s++)
        if (plan->stage[s].used && stage(side, &m, plan, s))
            return DFK_DAMAGED;
    if (contexts(side, &m, plan))
        return DFK_DAMAGED;
    for (uint32_t t = 0; t < plan->tables; t++)
        if (table(side, &m, plan, &plan->table[t]))
            return DFK_DAMAGED;
    return 0;
}

uint32_t fast_side_class(fast_side *side, fast_map_models *m, uint32_t left, uint32_t above, uint32_t before,
                         uint32_t class)
{
    uint32_t kind = left == above ? (above == before ? 0 : 1) : above == before ? 2 : left == before ? 3 : 4;
    if (fast_side_bit(side, &m->same[kind], class == above))
        return above;
    if (left != above && fast_side_bit(side, &m->second[kind - 2], class == left))
        return left;
    if (before != above && before != left && fast_side_bit(side, &m->third[left == above], class == before))
        return before;
    return fast_side_tree(side, m->tree, 7, class);
}
