/* Which class each block of a stage gets, and what its predictor leaves. */
#include "fast_encoder.h"

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Sizes of errors are never taken for less than this on average. */
#define LEAST_DEVIATION 0.35
#define BITS_OTHER_CLASS 5.0
#define BITS_SAME_CLASS 1.0

/* The work on one block. */
typedef struct {
    fast_encoder *e;
    const fast_stage *stage;
    const fast_frame *frames; /* this one and its references */
    fast_half_block half[2];
    uint32_t row, column, height, width, pairs;
} block_work;

/* The samples at two taps by turns. */
static void interleave(const int16_t *a, const int16_t *b, int16_t *out)
{
#if defined(__SSE2__)
    const __m128i first = _mm_loadu_si128((const __m128i *)a), second = _mm_loadu_si128((const __m128i *)b);
    _mm_store_si128((__m128i *)out, _mm_unpacklo_epi16(first, second));
    _mm_store_si128((__m128i *)out + 1, _mm_unpackhi_epi16(first, second));
#else
    for (uint32_t i = 0; i < FAST_OCTET; i++) {
        out[2 * i] = a[i];
        out[2 * i + 1] = b[i];
    }
#endif
}

static void gather(block_work *w)
{
    const ptrdiff_t stride = w->e->geometry.stride, at = (ptrdiff_t)w->row * stride + w->column;
    const fast_stage *s = w->stage;
    for (uint32_t p = 0; p < w->pairs; p++) {
        /* An odd tap is listed twice; its second weight is 0. */
        const fast_tap a = fast_taps[s->tap[2 * p]], b = fast_taps[s->tap[2 * p + (2 * p + 1 < s->taps)]];
        const int16_t *from = w->frames[a.reference].sample + at + a.row * stride + a.column;
        const int16_t *other = w->frames[b.reference].sample + at + b.row * stride + b.column;
        for (uint32_t y = 0; y < w->height; y++, from += stride, other += stride)
            interleave(from, other, w->half[y % 2].tap[p][y / 2]);
    }
    const int16_t *sample = w->frames[0].sample + at;
    for (uint32_t y = 0; y < FAST_OCTET; y++)
        for (uint32_t x = 0; x < FAST_OCTET; x++) {
            const int inside = y < w->height && x < w->width;
            w->half[y % 2].sample[y / 2][x] = inside ? sample[y * stride + x] : 0;
            w->half[y % 2].inside[y / 2][x] = inside ? -1 : 0;
        }
}

static uint32_t half_sizes(const block_work *w, int half, uint32_t class)
{
    return w->e->rows->sizes(&w->half[half], w->pairs, w->stage->weight[class], w->stage->offset[class],
                             w->e->plan.fraction);
}

/* Classes in the order of what they leave of every other row, as many as are tried in full. */
static uint32_t best_classes(const block_work *w, uint32_t *best, uint32_t *sizes)
{
    uint32_t count = 0, most = w->e->effort.candidates;
    for (uint32_t c = 0; c < w->stage->classes; c++) {
        uint32_t size = half_sizes(w, 0, c), at = most - 1;
        if (count < most)
            at = count++;
        else if (size >= sizes[at])
            continue;
        for (; at > 0 && size < sizes[at - 1]; at--) {
            best[at] = best[at - 1];
            sizes[at] = sizes[at - 1];
        }
        best[at] = c;
        sizes[at] = size;
    }
    return count;
}

/* The class that codes the block with the fewest bits, its own and those of the map. */
static uint32_t best_class(const block_work *w, uint32_t left, uint32_t above)
{
    uint32_t best[FAST_CLASSES], sizes[FAST_CLASSES], chosen = 0, count = best_classes(w, best, sizes);
    const double samples = w->height * w->width;
    double least = 0;
    for (uint32_t i = 0; i < count; i++) {
        double size = sizes[i] + half_sizes(w, 1, best[i]);
        double bits = samples * fast_log2(size / samples + LEAST_DEVIATION);
        bits += best[i] == left || best[i] == above ? BITS_SAME_CLASS : BITS_OTHER_CLASS;
        if (i == 0 || bits < least) {
            least = bits;
            chosen = best[i];
        }
    }
    return chosen;
}

static void keep_values(const block_work *w, uint32_t class, uint32_t *value)
{
    uint32_t found[2][FAST_HALF_ROWS][FAST_OCTET];
    for (int half = 0; half < 2; half++)
        w->e->rows->errors(&w->half[half], w->pairs, w->stage->weight[class], w->stage->offset[class],
                           w->e->plan.fraction, found[half][0]);
    for (uint32_t y = 0; y < w->height; y++)
        memcpy(value + (size_t)y * w->e->shape.columns, found[y % 2][y / 2], w->width * sizeof *value);
}

void fast_choose_classes(fast_encoder *e, uint32_t stage, uint32_t first, uint32_t last)
{
    const uint32_t across = fast_blocks(e->shape.columns, FAST_BLOCK_LOG);
    const uint32_t down = fast_blocks(e->shape.rows, FAST_BLOCK_LOG);
    block_work w = {.e = e, .stage = &e->plan.stage[stage], .pairs = (e->plan.stage[stage].taps + 1) / 2};
    for (uint32_t frame = first; frame < last; frame++) {
        uint32_t distance[DFK_REFERENCES], references = fast_stage_of(&e->plan, frame, distance);
        fast_frame frames[FAST_STAGES] = {e->frames[frame]};
        for (uint32_t i = 0; i < references; i++)
            frames[1 + i] = e->frames[frame - distance[i]];
        w.frames = frames;
        for (uint32_t block = 0; block < down * across; block++) {
            uint8_t *class = e->classes + (size_t)frame * down * across + block;
            if (*class >= FAST_CLASSES)
                continue;
            w.row = block / across << FAST_BLOCK_LOG;
            w.column = block % across << FAST_BLOCK_LOG;
            w.height = e->shape.rows - w.row < FAST_OCTET ? e->shape.rows - w.row : FAST_OCTET;
            w.width = e->shape.columns - w.column < FAST_OCTET ? e->shape.columns - w.column : FAST_OCTET;
            gather(&w);
            const uint32_t left = w.column ? class[-1] : FAST_CLASSES;
            *class = (uint8_t)best_class(&w, left, w.row ? class[-(ptrdiff_t)across] : FAST_CLASSES);
            keep_values(&w, *class, e->value + ((size_t)frame * e->shape.rows + w.row) * e->shape.columns + w.column);
        }
    }
}
