/* Predictors and classes of a stage: blocks are shared out among classes by what each class's predictor leaves over,
 * and predictors are fitted to their blocks, by turns.
 */
#include "fast_encoder.h"

#include <stdlib.h>
#include <string.h>

/* Squares of errors are never taken for less than this: rounding alone leaves a twelfth. */
#define LEAST_VARIANCE 0.15
#define BUCKETS 2048
#define BUCKETS_PER_OCTAVE 24
#define BITS_PER_WEIGHT 10.0
/* What a tap must save per sample to be worth its time in the decoder. */
#define BITS_PER_TAP 0.0005
#define TRIAL_BLOCKS 384
#define TRIAL_ITERATIONS 2
/* Predictors are fitted to one block in so many of a short stage, down to the least. */
#define LEAST_SHARE 2
#define LEAST_TRAINED 1024

typedef struct {
    fast_encoder *e;
    fast_stage *stage;
    uint32_t number, first, last; /* frames */
    uint32_t across, down, dimensions;
    uint64_t left; /* blocks that are no copies */
    uint32_t trained;
    double origin;
    float coefficient[FAST_CLASSES / FAST_CLASS_GROUP][FAST_MOST_DIMENSIONS * FAST_CLASS_GROUP];
    float rest[FAST_CLASSES], offset[FAST_CLASSES]; /* what weights lack to a sum of 1 */
} fitting;

static uint8_t *class_at(const fitting *f, uint32_t frame, uint32_t by, uint32_t bx)
{
    return f->e->classes + ((size_t)frame * f->down + by) * f->across + bx;
}

static int same(const int16_t *a, const int16_t *b, size_t stride, uint32_t height, uint32_t width)
{
    for (uint32_t y = 0; y < height; y++, a += stride, b += stride)
        if (memcmp(a, b, width * sizeof *a))
            return 0;
    return 1;
}

/* Blocks that are copies get their class for good; the others are counted. */
static void mark_copies(fitting *f)
{
    fast_encoder *e = f->e;
    uint32_t size = 1u << e->plan.block_log, distance[DFK_REFERENCES];
    size_t stride = e->geometry.stride;
    f->left = 0;
    for (uint32_t frame = f->first; frame < f->last; frame++) {
        uint32_t references = fast_stage_of(&e->plan, frame, distance);
        for (uint32_t by = 0; by < f->down; by++)
            for (uint32_t bx = 0; bx < f->across; bx++) {
                uint32_t row = by * size, column = bx * size;
                uint32_t height = e->shape.rows - row < size ? e->shape.rows - row : size;
                uint32_t width = e->shape.columns - column < size ? e->shape.columns - column : size;
                const int16_t *at = e->frames[frame].sample + row * stride + column;
                uint8_t *class = class_at(f, frame, by, bx);
                *class = 0;
                if (same(at, at - stride, stride, height, width))
                    *class = FAST_COPY_ABOVE;
                else if (references && same(at, e->frames[frame - distance[0]].sample + row * stride + column, stride,
                                            height, width))
                    *class = FAST_COPY_BEFORE;
                else
                    f->left++;
            }
    }
}

/* Takes about every step-th block that is no copy, spread without regularity. */
static void train_on(fitting *f, uint32_t most)
{
    fast_encoder *e = f->e;
    uint64_t step = (f->left + most - 1) / most, index = 0;
    double total = 0;
    f->trained = 0;
    for (uint32_t frame = f->first; frame < f->last; frame++)
        for (uint32_t by = 0; by < f->down; by++)
            for (uint32_t bx = 0; bx < f->across; bx++) {
                if (*class_at(f, frame, by, bx) >= FAST_CLASSES)
                    continue;
                uint32_t hash = (uint32_t)(index++ * 2654435761u) >> 8;
                if (f->trained == most || hash % step)
                    continue;
                fast_block *block = &e->block[f->trained];
                block->product = e->product + (size_t)f->trained++ * (f->dimensions * (f->dimensions + 1) / 2);
                fast_gram(e, f->number, frame, by << e->plan.block_log, bx << e->plan.block_log, block);
                total += block->mean;
            }
    f->origin = f->trained ? (double)(int32_t)(total / f->trained) : 0;
}

static float entry(const fast_block *block, uint32_t i, uint32_t j)
{
    return block->product[i * (i + 1) / 2 + j];
}

/* First classes: by how far samples are from those left of and above them, as many blocks in each. */
static void start_classes(fitting *f)
{
    uint32_t count[BUCKETS] = {0}, before = 0;
    uint32_t own = f->dimensions - 1;
    for (uint32_t b = 0; b < f->trained; b++) {
        fast_block *block = &f->e->block[b];
        double left = (double)entry(block, own, own) - 2.0 * entry(block, own, 0) + entry(block, 0, 0);
        double above = (double)entry(block, own, own) - 2.0 * entry(block, own, 2) + entry(block, 2, 2);
        double scale = (double)(1 << block->shift);
        block->error = (left + above) * 0.5 * scale * scale;
        double level = fast_log2(block->error / block->samples + LEAST_VARIANCE) + 4;
        block->class = (uint32_t)dfk_clamp((int32_t)(level * BUCKETS_PER_OCTAVE), 0, BUCKETS - 1);
        count[block->class]++;
    }
    for (uint32_t i = 0; i < BUCKETS; i++) {
        uint32_t here = count[i];
        count[i] = (uint32_t)(((uint64_t)before + here / 2) * f->stage->classes / (f->trained ? f->trained : 1));
        before += here;
    }
    for (uint32_t b = 0; b < f->trained; b++)
        f->e->block[b].class = count[f->e->block[b].class];
}

/* Rounds a predictor so that the sum of its weights keeps its value. */
static void set_predictor(fitting *f, uint32_t class, const double *solution)
{
    const fast_plan *plan = &f->e->plan;
    fast_stage *s = f->stage;
    double one = (double)(1 << plan->fraction), running = 0;
    int32_t before = 0, total = 0;
    for (uint32_t i = 0; i < s->taps; i++) {
        double wanted = running + solution[i] * one;
        if (!(wanted > -1e8 && wanted < 1e8))
            wanted = running;
        running = wanted;
        int32_t rounded = (int32_t)(running + (running < 0 ? -0.5 : 0.5));
        int32_t weight = dfk_clamp(rounded - before, -32767, 32767);
        before = rounded;
        total += weight;
        s->weight[class][i] = (int16_t)weight;
    }
    double offset = (solution[s->taps] + f->origin * (1 - total / one)) * 8;
    int32_t eighths = offset > -4e5 && offset < 4e5 ? (int32_t)(offset + (offset < 0 ? -0.5 : 0.5)) : 0;
    s->offset[class] = eighths * (1 << (plan->fraction - 3)) + (1 << (plan->fraction - 1));
    if (!fast_weights_hold(plan, s, class)) {
        memset(s->weight[class], 0, sizeof s->weight[class]);
        s->weight[class][0] = (int16_t)(1 << plan->fraction);
        s->offset[class] = 1 << (plan->fraction - 1);
    }
}

/* The predictor in the form that quadratic forms take: what is left of a sample. */
static void set_coefficients(fitting *f, uint32_t class)
{
    const fast_stage *s = f->stage;
    double one = (double)(1 << f->e->plan.fraction), sum = 0;
    float *to = f->coefficient[class / FAST_CLASS_GROUP] + class % FAST_CLASS_GROUP;
    for (uint32_t i = 0; i < s->taps; i++) {
        double weight = s->weight[class][i] / one;
        to[i * FAST_CLASS_GROUP] = (float)-weight;
        sum += weight;
    }
    f->rest[class] = (float)(1 - sum);
    f->offset[class] = (float)(s->offset[class] / one - 0.5);
}

static void solve_classes(fitting *f)
{
    fast_encoder *e = f->e;
    memset(e->system, 0, f->stage->classes * sizeof *e->system);
    for (uint32_t b = 0; b < f->trained; b++) {
        const fast_block *block = &e->block[b];
        double weight = 1 / (block->error / block->samples + LEAST_VARIANCE);
        fast_gram_add(e, block, f->dimensions, weight, f->origin, &e->system[block->class]);
    }
    for (uint32_t c = 0; c < f->stage->classes; c++) {
        double solution[FAST_MOST_DIMENSIONS];
        fast_gram_sum(&e->system[c], f->dimensions, e->normal);
        if (fast_solve(e->normal, f->dimensions - 1, solution))
            set_predictor(f, c, solution);
        set_coefficients(f, c);
    }
}

/* The classes that leave the least squares of errors in two blocks. */
static void assign_two(fitting *f, fast_block *const block[2])
{
    const float *const product[2] = {block[0]->product, block[1]->product};
    float constant[2][FAST_CLASS_GROUP], error[2][FAST_CLASS_GROUP], least[2] = {0};
    for (uint32_t c = 0; c < f->stage->classes; c++) {
        const uint32_t k = c % FAST_CLASS_GROUP;
        if (k == 0) {
            for (uint32_t b = 0; b < 2; b++)
                for (uint32_t i = 0; i < FAST_CLASS_GROUP; i++)
                    constant[b][i] = ((float)block[b]->mean * f->rest[c + i] - f->offset[c + i]) /
                                     (float)(1 << block[b]->shift);
            f->e->rows->forms(product, f->stage->taps, f->coefficient[c / FAST_CLASS_GROUP], constant[0], error[0]);
        }
        for (uint32_t b = 0; b < 2; b++)
            if (c == 0 || error[b][k] < least[b]) {
                least[b] = error[b][k];
                block[b]->class = c;
            }
    }
    for (uint32_t b = 0; b < 2; b++) {
        const float scale = (float)(1 << block[b]->shift);
        block[b]->error = least[b] > 0 ? (double)(least[b] * scale * scale) : 0;
    }
}

static void assign_trained(fitting *f)
{
    for (uint32_t b = 0; b < f->trained; b += 2) {
        fast_block *const two[2] = {&f->e->block[b], &f->e->block[b + 1 < f->trained ? b + 1 : b]};
        assign_two(f, two);
    }
}

/* As many classes as the samples can pay for. */
static uint32_t class_count(const fitting *f)
{
    uint64_t samples = f->left << (2 * f->e->plan.block_log);
    uint64_t worth = samples / 4096;
    return (uint32_t)(worth < 1 ? 1 : worth > f->e->effort.classes ? f->e->effort.classes : worth);
}

/* Lists of taps, each in the order of fast_taps: near ones, wide in this frame, wide in references, all. */
static const uint64_t tap_lists[] = {UINT64_C(0x8043fe03ff), UINT64_C(0x8043ffffff), UINT64_C(0xf87fffe03ff), UINT64_C(0xfffffffffff)};

static void set_taps(fitting *f, uint64_t taps)
{
    fast_stage *s = f->stage;
    s->taps = 0;
    for (uint32_t i = 0; i < FAST_TAPS; i++)
        if ((taps >> i & 1) && (uint32_t)fast_taps[i].reference <= f->number)
            s->tap[s->taps++] = (uint8_t)i;
    f->dimensions = s->taps + 2;
}

/* What predicts before anything was fitted, and where nothing can be: the sample to the left. */
static void reset_predictors(fitting *f)
{
    const double w_alone[FAST_MOST_DIMENSIONS] = {1};
    for (uint32_t c = 0; c < f->stage->classes; c++) {
        memset(f->stage->weight[c], 0, sizeof f->stage->weight[c]);
        set_predictor(f, c, w_alone);
    }
}

/* Shares blocks out among classes for a start: by predictors fitted before, or by how rough they are. */
static void begin(fitting *f, const fast_stage *fitted)
{
    fast_stage *s = f->stage;
    if (fitted != NULL) {
        *s = *fitted;
        for (uint32_t c = 0; c < s->classes; c++)
            set_coefficients(f, c);
        assign_trained(f);
        return;
    }
    start_classes(f);
    reset_predictors(f);
}

/* Fits the predictors of the stage's taps to at most so many blocks. */
static void train(fitting *f, const fast_stage *fitted, uint32_t blocks, uint32_t iterations)
{
    train_on(f, blocks);
    begin(f, fitted);
    for (uint32_t i = 0; i < iterations; i++) {
        if (i > 0)
            assign_trained(f);
        solve_classes(f);
    }
}

/* The bits that the stage's errors take at best, told from the blocks that were trained on. */
static double trained_bits(fitting *f)
{
    double bits = 0;
    assign_trained(f);
    for (uint32_t b = 0; b < f->trained; b++) {
        const fast_block *block = &f->e->block[b];
        bits += 0.5 * block->samples * fast_log2(block->error / block->samples + LEAST_VARIANCE);
    }
    return f->trained ? bits / f->trained * (double)f->left : 0;
}

/* Tries lists of taps on few blocks; those that weigh on the header or the decoder must gain that much.  The best
 * one's predictors are left for a start. */
static void choose_taps(fitting *f, fast_stage *best)
{
    fast_encoder *e = f->e;
    double least = 0;
    uint64_t samples = f->left << (2 * e->plan.block_log);
    for (uint32_t i = 0; i < e->effort.lists; i++) {
        uint32_t known = f->stage->taps;
        set_taps(f, tap_lists[i]);
        if (i > 0 && f->stage->taps == known)
            continue;
        if (i == 0) {
            train(f, NULL, TRIAL_BLOCKS, TRIAL_ITERATIONS);
        } else {
            /* The same blocks in the classes that the list before left them in. */
            train_on(f, TRIAL_BLOCKS);
            reset_predictors(f);
            solve_classes(f);
        }
        double weights = f->stage->taps * (f->stage->classes * BITS_PER_WEIGHT + (double)samples * BITS_PER_TAP);
        double bits = trained_bits(f) + weights;
        if (i == 0 || bits < least) {
            least = bits;
            *best = *f->stage;
        }
    }
    *f->stage = *best;
    f->dimensions = f->stage->taps + 2;
}

void fast_fit_stage(fast_encoder *e, uint32_t number)
{
    fitting f = {.e = e, .stage = &e->plan.stage[number], .number = number};
    fast_stage best = {0};
    uint32_t ignored[DFK_REFERENCES];
    f.first = e->shape.frames;
    for (uint32_t frame = 0; frame < e->shape.frames; frame++)
        if (fast_stage_of(&e->plan, frame, ignored) == number) {
            f.first = frame < f.first ? frame : f.first;
            f.last = frame + 1;
        }
    f.across = fast_blocks(e->shape.columns, e->plan.block_log);
    f.down = fast_blocks(e->shape.rows, e->plan.block_log);
    mark_copies(&f);
    f.stage->classes = class_count(&f);
    choose_taps(&f, &best);
    uint64_t enough = f.left / LEAST_SHARE < LEAST_TRAINED ? LEAST_TRAINED : f.left / LEAST_SHARE;
    train(&f, &best, enough < e->effort.trained ? (uint32_t)enough : e->effort.trained, e->effort.iterations);
    fast_choose_classes(e, number, f.first, f.last);
}
