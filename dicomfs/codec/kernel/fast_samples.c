/* From the caller's samples to padded planes, with samples that never occur left out where that pays. */
#include "fast_encoder.h"

#include <string.h>

#define WORTH_FOLDING 8   /* shortest gap that the careful folding closes */
#define PRICED_ROWS 512   /* rows that candidates are priced on */
#define BITS_PER_GAP 16.0

static inline uint32_t sample_at(const fast_encoder *e, const void *samples, size_t at)
{
    return e->shape.sample_bytes == 1 ? ((const uint8_t *)samples)[at] : ((const uint16_t *)samples)[at];
}

/* Fills rank from used; returns the number of values. */
static uint32_t set_ranks(fast_encoder *e)
{
    uint32_t values = 0;
    for (uint32_t v = 0; v < 1u << e->shape.bits; v++) {
        e->rank[v] = (uint16_t)values;
        values += e->used[v];
    }
    return values;
}

/* Marks what occurs, and gaps shorter than `least` as if they did; returns the number of gaps left. */
static uint32_t mark_used(fast_encoder *e, uint32_t least)
{
    uint32_t size = 1u << e->shape.bits, gaps = 0, empty = 0;
    for (uint32_t v = 0; v < size; v++) {
        e->used[v] = e->histogram[v] > 0;
        if (!e->used[v]) {
            empty++;
            continue;
        }
        if (empty < least)
            memset(e->used + v - empty, 1, empty);
        gaps += empty >= least;
        empty = 0;
    }
    return gaps;
}

/* Bits of the differences between neighbours, on some rows: a stand-in for what coding takes. */
static double roughness(const fast_encoder *e, const void *samples, int ranked)
{
    uint64_t rows = (uint64_t)e->shape.frames * e->shape.rows, step = rows / PRICED_ROWS + 1;
    double bits = 0;
    for (uint64_t row = 0; row < rows; row += step) {
        size_t at = (size_t)row * e->shape.columns;
        uint32_t product_bits = 0;
        for (uint32_t x = 1; x < e->shape.columns; x++) {
            uint32_t a = sample_at(e, samples, at + x - 1), b = sample_at(e, samples, at + x);
            if (ranked) {
                a = e->rank[a];
                b = e->rank[b];
            }
            /* Logarithms to a quarter of a bit are enough to compare. */
            uint32_t size = 2 * (a > b ? a - b : b - a) + 1, octave = dfk_log2(size);
            product_bits += 4 * octave + ((size << 2 >> octave) & 3);
        }
        bits += product_bits * 0.25;
    }
    return bits * (double)step;
}

static void choose_folding(fast_encoder *e, const void *samples)
{
    static const uint32_t least_gap[] = {WORTH_FOLDING, 1};
    double best = roughness(e, samples, 0) * 0.997;
    uint32_t chosen = 0;
    e->plan.folded = 0;
    for (uint32_t i = 0; i < sizeof least_gap / sizeof *least_gap; i++) {
        uint32_t gaps = mark_used(e, least_gap[i]);
        set_ranks(e);
        double bits = roughness(e, samples, 1) + gaps * BITS_PER_GAP;
        if (bits < best) {
            best = bits;
            chosen = least_gap[i];
        }
    }
    e->plan.bits = e->shape.bits;
    if (chosen == 0)
        return;
    e->plan.folded = 1;
    mark_used(e, chosen);
    e->plan.values = set_ranks(e);
    e->plan.bits = e->plan.values > 1 ? dfk_log2(e->plan.values - 1) + 1 : 1;
}

static void fill_planes(fast_encoder *e, const void *samples)
{
    const int32_t half = 1 << (e->plan.bits - 1);
    size_t at = 0;
    for (uint32_t f = 0; f < e->shape.frames; f++) {
        uint32_t distance[DFK_REFERENCES], stage = fast_stage_of(&e->plan, f, distance);
        fast_pad_above(&e->geometry, e->frames[f], stage ? &e->frames[f - distance[0]] : NULL);
        for (uint32_t row = 0; row < e->shape.rows; row++) {
            int16_t *to = e->frames[f].sample + (size_t)row * e->geometry.stride;
            fast_pad_left(&e->geometry, e->frames[f], row);
            for (uint32_t x = 0; x < e->shape.columns; x++, at++) {
                uint32_t sample = sample_at(e, samples, at);
                to[x] = (int16_t)((int32_t)(e->plan.folded ? e->rank[sample] : sample) - half);
            }
            fast_pad_right(&e->geometry, e->frames[f], row);
        }
        fast_pad_below(&e->geometry, e->frames[f]);
    }
}

int fast_choose_samples(fast_encoder *e, const void *samples)
{
    size_t count = (size_t)e->shape.frames * e->shape.rows * e->shape.columns;
    memset(e->histogram, 0, sizeof *e->histogram << 16);
    for (size_t i = 0; i < count; i++)
        e->histogram[sample_at(e, samples, i)]++;
    for (uint32_t v = 1u << e->shape.bits; v < 1u << 16; v++)
        if (e->histogram[v])
            return DFK_BAD_ARGUMENT;
    choose_folding(e, samples);
    fill_planes(e, samples);
    return 0;
}
