/* Products that least squares are fitted from, in integers, and the solution of the normal equations. */
#include "fast_encoder.h"

#include <string.h>

/* Products of centred samples up to this size add up within 32 bits over a block. */
#define CENTRED_LIMIT 2896

typedef struct {
    int16_t sample[FAST_MOST_DIMENSIONS + 3][FAST_BLOCK_SAMPLES];
} gathered;

static void gather(const fast_encoder *e, const int16_t *from, uint32_t height, uint32_t width, int16_t *to)
{
    const size_t stride = e->geometry.stride;
    if (width == FAST_OCTET)
        for (uint32_t y = 0; y < height; y++)
            memcpy(to + y * FAST_OCTET, from + y * stride, FAST_OCTET * sizeof *to);
    else
        for (uint32_t y = 0; y < height; y++)
            memcpy(to + y * width, from + y * stride, width * sizeof *to);
}

/* Subtracts the mean of the block from all taps and makes them small enough. */
static void centre(gathered *all, uint32_t count, uint32_t samples, fast_block *block)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < samples; i++)
        sum += all->sample[count - 1][i];
    block->mean = sum / (int32_t)samples;
    int32_t least = block->mean, largest = block->mean;
    for (uint32_t t = 0; t < count; t++) {
        int16_t low = INT16_MAX, high = INT16_MIN;
        for (uint32_t i = 0; i < samples; i++) {
            low = all->sample[t][i] < low ? all->sample[t][i] : low;
            high = all->sample[t][i] > high ? all->sample[t][i] : high;
        }
        least = low < least ? low : least;
        largest = high > largest ? high : largest;
    }
    int32_t size = largest - block->mean > block->mean - least ? largest - block->mean : block->mean - least;
    block->shift = 0;
    while (size >> block->shift > CENTRED_LIMIT)
        block->shift++;
    const int32_t mean = block->mean, shift = (int32_t)block->shift;
    for (uint32_t t = 0; t < count; t++)
        for (uint32_t i = 0; i < samples; i++)
            all->sample[t][i] = (int16_t)((all->sample[t][i] - mean) >> shift);
}

void fast_gram(const fast_encoder *e, uint32_t stage, uint32_t frame, uint32_t row, uint32_t column,
               fast_block *block)
{
    const fast_stage *s = &e->plan.stage[stage];
    uint32_t size = 1u << e->plan.block_log, distance[DFK_REFERENCES];
    uint32_t height = e->shape.rows - row < size ? e->shape.rows - row : size;
    uint32_t width = e->shape.columns - column < size ? e->shape.columns - column : size;
    gathered all;
    fast_stage_of(&e->plan, frame, distance);
    ptrdiff_t stride = e->geometry.stride;
    for (uint32_t t = 0; t < s->taps; t++) {
        fast_tap tap = fast_taps[s->tap[t]];
        const int16_t *from = e->frames[tap.reference ? frame - distance[tap.reference - 1] : frame].sample;
        gather(e, from + ((ptrdiff_t)row + tap.row) * stride + column + tap.column, height, width, all.sample[t]);
    }
    gather(e, e->frames[frame].sample + (ptrdiff_t)row * stride + column, height, width, all.sample[s->taps]);
    block->samples = height * width;
    uint32_t count = s->taps + 1;
    centre(&all, count, block->samples, block);
    /* The constant is moved to the place before the sample itself. */
    memcpy(all.sample[count], all.sample[count - 1], block->samples * sizeof(int16_t));
    for (uint32_t i = 0; i < block->samples; i++)
        all.sample[count - 1][i] = 1;
    uint32_t whole = (block->samples + FAST_CHUNK - 1) / FAST_CHUNK * FAST_CHUNK;
    for (uint32_t i = 0; i <= count; i++)
        memset(all.sample[i] + block->samples, 0, (whole - block->samples) * sizeof(int16_t));
    e->rows->products(all.sample[0], count + 1, whole, block->product);
}

void fast_gram_add(const fast_encoder *e, const fast_block *block, uint32_t count, double weight, double origin,
                   fast_system *system)
{
    const float *sums = block->product + (count - 2) * (count - 1) / 2, *last = sums + count - 1;
    const double scale = (double)(1 << block->shift), away = (double)block->mean - origin;
    e->rows->add(block->product, count * (count + 1) / 2, weight * scale * scale, system->product);
    e->rows->add(sums, count - 2, weight * scale, system->sum);
    e->rows->add(sums, count - 2, weight * scale * away, system->moved);
    system->sum[count - 1] += weight * scale * (double)last[count - 2];
    system->moved[count - 1] += weight * scale * away * (double)last[count - 2];
    system->samples += weight * block->samples;
    system->away += weight * block->samples * away;
    system->away_squared += weight * block->samples * away * away;
}

void fast_gram_sum(const fast_system *system, uint32_t count, double *normal)
{
    const double *product = system->product;
    const uint32_t constant = count - 2;
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j <= i; j++, product++, normal++) {
            if (i == constant && j == constant)
                *normal = system->samples;
            else if (i == constant || j == constant)
                *normal = system->sum[i == constant ? j : i] + system->away;
            else
                *normal = *product + (system->moved[i] + system->moved[j]) + system->away_squared;
        }
}

int fast_solve(const double *system, uint32_t count, double *solution)
{
    double matrix[FAST_MOST_DIMENSIONS][FAST_MOST_DIMENSIONS + 1];
    const double *right = system + count * (count + 1) / 2;
    double trace = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j <= i; j++)
            matrix[i][j] = matrix[j][i] = system[i * (i + 1) / 2 + j];
        matrix[i][count] = right[i];
        trace += matrix[i][i];
    }
    if (!(trace > 0))
        return 0;
    for (uint32_t i = 0; i < count; i++)
        matrix[i][i] += trace * 1e-10 + 1e-6 * system[count * (count + 1) / 2 - 1];
    for (uint32_t k = 0; k < count; k++) {
        if (!(matrix[k][k] > 0))
            return 0;
        double inverse = 1 / matrix[k][k];
        for (uint32_t i = k + 1; i < count; i++) {
            double factor = matrix[i][k] * inverse;
            for (uint32_t j = k; j <= count; j++)
                matrix[i][j] -= factor * matrix[k][j];
        }
    }
    for (uint32_t k = count; k-- > 0;) {
        double sum = matrix[k][count];
        for (uint32_t j = k + 1; j < count; j++)
            sum -= matrix[k][j] * solution[j];
        solution[k] = sum / matrix[k][k];
    }
    return 1;
}
