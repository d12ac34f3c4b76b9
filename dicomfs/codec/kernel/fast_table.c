/* Frequencies of the tokens of a fast stream, from few parameters and in integers only. */
#include "fast_format.h"

#include <string.h>

/* round(2 ** (32 - j / 32)) */
static const uint64_t exp2_table[32] = {
    4294967296u, 4202935003u, 4112874773u, 4024744348u, 3938502376u, 3854108391u,
    3771522796u, 3690706840u, 3611622603u, 3534232978u, 3458501653u, 3384393094u,
    3311872529u, 3240905930u, 3171459999u, 3103502151u, 3037000500u, 2971923842u,
    2908241642u, 2845924021u, 2784941738u, 2725266179u, 2666869345u, 2609723834u,
    2553802834u, 2499080105u, 2445529972u, 2393127307u, 2341847524u, 2291666561u,
    2242560872u, 2194507417u,
};

/* A bit of cost is 32 steps; corrections are sent in eighths of a bit. */
#define COST_PER_CORRECTION 4
#define COST_BIAS 256      /* corrections may raise a weight by this much */
#define COST_LIMIT 1535    /* above it a token has no weight but its floor */

static const uint32_t scale_start[4] = {16, 19, 23, 27};
static const uint32_t shape_width[4] = {0, 1, 3, 12};

/* Cost of twice an error's size under exp(-size**2 / (scale * (size + width * scale))): Laplacian for large sizes,
 * the more Gaussian near zero the larger the width. */
static uint32_t size_cost(const fast_table *table, uint64_t twice)
{
    uint64_t scale = (uint64_t)scale_start[table->scale & 3] << (table->scale >> 2);
    uint64_t below = scale * (128 * twice + shape_width[table->shape] * scale);
    if (twice == 0 || below == 0)
        return 0;
    uint64_t cost = (twice * twice << 19) / below;
    return cost < COST_LIMIT ? (uint32_t)cost : COST_LIMIT;
}

uint64_t fast_token_weight(const fast_table *table, uint32_t token)
{
    uint32_t extra, base = fast_token_base(token, &extra);
    uint64_t value = base + (extra ? 1u << (extra - 1) : 0);
    uint64_t twice = table->shift ? value : (value + 1) >> 1 << 1;
    int32_t cost = (int32_t)size_cost(table, twice) + COST_PER_CORRECTION * table->correction[token];
    cost = dfk_clamp(cost + COST_BIAS, 0, COST_LIMIT);
    return exp2_table[cost & 31] >> (cost >> 5) << extra;
}

uint32_t fast_frequencies(const fast_plan *plan, const fast_table *table, uint16_t frequency[FAST_TOKENS + 1])
{
    uint64_t weight[FAST_TOKENS], total = 0;
    uint32_t first = plan->spiked ? 1 : 0, largest = 0;
    for (uint32_t i = 0; i < table->tokens; i++) {
        weight[i] = fast_token_weight(table, i);
        total += weight[i];
        if (weight[i] > weight[largest])
            largest = i;
    }
    uint32_t room = FAST_FREQUENCIES - table->spike - table->tokens, left = room;
    for (uint32_t i = 0; i < table->tokens; i++) {
        uint32_t share = total ? (uint32_t)(weight[i] * room / total) : 0;
        frequency[first + i] = (uint16_t)(1 + share);
        left -= share;
    }
    frequency[first + largest] = (uint16_t)(frequency[first + largest] + left);
    if (plan->spiked)
        frequency[0] = (uint16_t)table->spike;
    return first + table->tokens;
}
