/* Which tables the tokens of a fast stream are coded with: contexts that are alike share one, and each table is
 * described by scale and shape alone unless corrections pay.
 */
#include "fast_encoder.h"

#include <string.h>

#define BITS_PER_TABLE 50.0
#define MEAN_PER_SHIFT 12
#define CORRECTION_LIMIT 100
#define SCALES 32
#define SHAPES 4

double fast_log2(double value)
{
    /* ln((1 + t) / (1 - t)) = 2 (t + t^3 / 3 + ...) with the mantissa brought near 1. */
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    double exponent = (double)((int32_t)(bits >> 52 & 0x7FF) - 1023);
    bits = (bits & UINT64_C(0xFFFFFFFFFFFFF)) | UINT64_C(1023) << 52;
    memcpy(&value, &bits, sizeof value);
    if (value > 1.4142) {
        value *= 0.5;
        exponent += 1;
    }
    double t = (value - 1) / (value + 1), s = t * t;
    return exponent + 2.8853900817779268 * t * (1 + s * (1.0 / 3 + s * (1.0 / 5 + s * (1.0 / 7 + s * (1.0 / 9)))));
}

/* Bits of tokens under their own frequencies. */
static double entropy(const uint32_t *count, uint32_t symbols)
{
    double bits = 0;
    uint64_t total = 0;
    for (uint32_t i = 0; i < symbols; i++)
        if (count[i]) {
            bits -= count[i] * fast_log2(count[i]);
            total += count[i];
        }
    return total ? bits + (double)total * fast_log2((double)total) : 0;
}

static double raw_bits(const uint32_t *count)
{
    double bits = 0;
    for (uint32_t i = FAST_DIRECT; i < FAST_TOKENS; i++) {
        uint32_t extra;
        fast_token_base(i, &extra);
        bits += (double)count[i] * extra;
    }
    return bits;
}

double fast_token_bits(const fast_encoder *e)
{
    double bits = 0;
    for (uint32_t i = 0; i < FAST_CONTEXTS; i++)
        bits += entropy(e->tokens[i], FAST_TOKENS + 1) + raw_bits(e->tokens[i]);
    return bits;
}

typedef struct {
    uint32_t count[FAST_CONTEXTS][FAST_TOKENS + 1];
    uint64_t total[FAST_CONTEXTS];
    double bits[FAST_CONTEXTS], joined[FAST_CONTEXTS]; /* alone, and with the next group */
    uint32_t first[FAST_CONTEXTS];
    uint32_t groups;
} grouping;

static double joined_bits(const grouping *g, uint32_t at)
{
    uint32_t sum[FAST_TOKENS + 1];
    if (at + 1 >= g->groups)
        return 0;
    for (uint32_t i = 0; i <= FAST_TOKENS; i++)
        sum[i] = g->count[at][i] + g->count[at + 1][i];
    return entropy(sum, FAST_TOKENS + 1);
}

static void join(grouping *g, uint32_t at)
{
    for (uint32_t i = 0; i <= FAST_TOKENS; i++)
        g->count[at][i] += g->count[at + 1][i];
    g->total[at] += g->total[at + 1];
    g->bits[at] = g->joined[at];
    g->groups--;
    for (uint32_t i = at + 1; i < g->groups; i++) {
        memcpy(g->count[i], g->count[i + 1], sizeof g->count[i]);
        g->total[i] = g->total[i + 1];
        g->bits[i] = g->bits[i + 1];
        g->joined[i] = g->joined[i + 1];
        g->first[i] = g->first[i + 1];
    }
    g->joined[at] = joined_bits(g, at);
    if (at > 0)
        g->joined[at - 1] = joined_bits(g, at - 1);
}

/* Joins neighbouring contexts until none of the tables left is worth less than it takes. */
static void group_contexts(const fast_encoder *e, grouping *g)
{
    g->groups = 0;
    for (uint32_t i = 0; i < FAST_CONTEXTS; i++) {
        uint32_t any = 0;
        for (uint32_t t = 0; t <= FAST_TOKENS; t++)
            any |= e->tokens[i][t];
        if (!any && i)
            continue;
        memcpy(g->count[g->groups], e->tokens[i], sizeof g->count[0]);
        g->total[g->groups] = e->total[i];
        g->bits[g->groups] = entropy(e->tokens[i], FAST_TOKENS + 1);
        g->first[g->groups++] = i;
    }
    for (uint32_t i = 0; i < g->groups; i++)
        g->joined[i] = joined_bits(g, i);
    while (g->groups > 1) {
        uint32_t best = 0;
        for (uint32_t i = 1; i + 1 < g->groups; i++)
            if (g->joined[i] - g->bits[i] - g->bits[i + 1] < g->joined[best] - g->bits[best] - g->bits[best + 1])
                best = i;
        double loss = g->joined[best] - g->bits[best] - g->bits[best + 1];
        if (loss > BITS_PER_TABLE && g->groups <= FAST_TABLES)
            break;
        join(g, best);
    }
}

static double table_bits(const fast_plan *plan, const fast_table *t, const uint32_t *count)
{
    uint16_t frequency[FAST_TOKENS + 1];
    uint32_t symbols = fast_frequencies(plan, t, frequency);
    double bits = 0;
    for (uint32_t i = plan->spiked; i < symbols; i++)
        if (count[i - plan->spiked])
            bits += count[i - plan->spiked] * (FAST_FREQUENCY_BITS - fast_log2(frequency[i]));
    return bits;
}

static void set_spike(const fast_plan *plan, fast_table *t, const uint32_t *count)
{
    uint64_t total = count[FAST_TOKENS];
    for (uint32_t i = 0; i < FAST_TOKENS; i++)
        total += count[i];
    uint64_t share = total ? (count[FAST_TOKENS] * (uint64_t)FAST_FREQUENCIES + total / 2) / total : 1;
    uint64_t most = FAST_FREQUENCIES - t->tokens;
    t->spike = !plan->spiked ? 0 : share < 1 ? 1 : (uint32_t)(share < most ? share : most);
}

/* Tries every shape and the scales around the mean. */
static double fit_shape(const fast_plan *plan, fast_table *t, const uint32_t *count, double mean)
{
    int32_t middle = (int32_t)(4 * (fast_log2(mean * 0.5 + 0.01) + 4)), low = dfk_clamp(middle - 5, 0, SCALES - 1);
    int32_t high = dfk_clamp(middle + 4, 0, SCALES - 1);
    double least = -1;
    fast_table best = *t;
    for (uint32_t shape = 0; shape < SHAPES; shape++)
        for (int32_t scale = low; scale <= high; scale++) {
            t->shape = shape;
            t->scale = (uint32_t)scale;
            double bits = table_bits(plan, t, count);
            if (least < 0 || bits < least) {
                least = bits;
                best = *t;
            }
        }
    *t = best;
    return least;
}

static void fit_corrections(const fast_plan *plan, fast_table *t, const uint32_t *count, double bits)
{
    fast_table tried = *t;
    double total = 0, weights = 0, spent = 0;
    for (uint32_t i = 0; i < t->tokens; i++) {
        total += count[i];
        weights += (double)fast_token_weight(t, i);
    }
    int32_t last = 0;
    for (uint32_t i = 0; i < t->tokens; i++) {
        int32_t correction = last;
        if (count[i]) {
            double weight = (double)fast_token_weight(t, i) + 1e-3;
            double wanted = 8 * (fast_log2(weight / weights) - fast_log2(count[i] / total));
            correction = dfk_clamp((int32_t)(wanted + (wanted < 0 ? -0.5 : 0.5)), -CORRECTION_LIMIT, CORRECTION_LIMIT);
        }
        int32_t jump = correction - last;
        spent += 1.5 + 2 * fast_log2(1 + (jump < 0 ? -jump : jump));
        tried.correction[i] = (int8_t)(last = correction);
    }
    tried.corrected = 1;
    if (table_bits(plan, &tried, count) + spent < bits)
        *t = tried;
}

void fast_choose_shifts(fast_encoder *e, uint32_t frames)
{
    double mean[FAST_CONTEXTS], sum[FAST_STAGES][FAST_CLASSES] = {{0}}, expected[FAST_STAGES][FAST_CLASSES] = {{0}};
    for (uint32_t i = 0; i < FAST_CONTEXTS; i++) {
        uint64_t count = 0;
        for (uint32_t t = 0; t < FAST_TOKENS; t++)
            count += e->tokens[i][t];
        mean[i] = ((double)e->total[i] + 0.5) / ((double)count + 1);
    }
    uint32_t across = fast_blocks(e->shape.columns, e->plan.block_log);
    uint32_t down = fast_blocks(e->shape.rows, e->plan.block_log), distance[DFK_REFERENCES];
    const uint8_t *context = e->context;
    const uint32_t *value = e->value;
    for (uint32_t f = 0; f < frames; f++) {
        uint32_t stage = fast_stage_of(&e->plan, f, distance);
        for (uint32_t y = 0; y < e->shape.rows; y++) {
            const uint8_t *class = e->classes + ((size_t)f * down + (y >> e->plan.block_log)) * across;
            for (uint32_t x = 0; x < e->shape.columns; x++, context++, value++) {
                uint32_t c = class[x >> e->plan.block_log];
                if (c >= FAST_CLASSES)
                    continue;
                sum[stage][c] += *value;
                expected[stage][c] += mean[*context];
            }
        }
    }
    for (uint32_t s = 0; s < FAST_STAGES; s++)
        for (uint32_t c = 0; c < FAST_CLASSES; c++) {
            double steps = 4 * fast_log2((sum[s][c] + 1) / (expected[s][c] + 1));
            int32_t shift = (int32_t)(steps + (steps < 0 ? -0.5 : 0.5));
            e->plan.stage[s].shift[c] = (int8_t)dfk_clamp(shift, -FAST_MOST_SHIFT, FAST_MOST_SHIFT);
        }
}

void fast_choose_tables(fast_encoder *e)
{
    grouping g;
    fast_plan *plan = &e->plan;
    group_contexts(e, &g);
    plan->tables = g.groups;
    for (uint32_t i = 0, group = 0; i < FAST_CONTEXTS; i++) {
        while (group + 1 < g.groups && g.first[group + 1] <= i)
            group++;
        plan->table_of[i] = (uint8_t)group;
    }
    double mean[FAST_TABLES];
    for (uint32_t t = 0; t < g.groups; t++) {
        uint64_t values = 0;
        for (uint32_t i = 0; i < FAST_TOKENS; i++)
            values += g.count[t][i];
        plan->table[t] = (fast_table){0};
        while (values && (g.total[t] >> plan->table[t].shift) > values * MEAN_PER_SHIFT)
            plan->table[t].shift++;
        mean[t] = values ? (double)(g.total[t] >> plan->table[t].shift) / (double)values : 0;
    }
    memset(e->tokens, 0, sizeof e->tokens);
    size_t count = (size_t)e->shape.frames * e->shape.rows * e->shape.columns;
    for (size_t i = 0; i < count; i++) {
        if (e->context[i] == FAST_SKIPPED)
            continue;
        uint32_t t = plan->table_of[e->context[i]], value = e->value[i];
        if (value & FAST_SPIKE_VALUE)
            e->tokens[t][FAST_TOKENS]++;
        else
            e->tokens[t][fast_token_of(value >> plan->table[t].shift)]++;
    }
    for (uint32_t t = 0; t < g.groups; t++) {
        fast_table *table = &plan->table[t];
        for (uint32_t i = 0; i < FAST_TOKENS; i++)
            if (e->tokens[t][i])
                table->tokens = i + 1;
        table->tokens += table->tokens == 0;
        set_spike(plan, table, e->tokens[t]);
        fit_corrections(plan, table, e->tokens[t], fit_shape(plan, table, e->tokens[t], mean[t]));
    }
}
