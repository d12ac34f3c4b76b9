/* Which taps of the fast stream the decoder multiplies together. */
#include "fast_rows.h"

#define REACH 3 /* columns that a tap is away at most */

static int same_row(fast_tap a, fast_tap b)
{
    return a.reference == b.reference && a.row == b.row;
}

/* The number of a tap that is not taken, one column right of another, or the number of taps. */
static uint32_t right_of(const fast_stage *stage, const uint8_t *taken, uint32_t left)
{
    const fast_tap tap = fast_taps[stage->tap[left]];
    uint32_t i = FAST_SERIAL_TAPS;
    for (; i < stage->taps; i++) {
        const fast_tap other = fast_taps[stage->tap[i]];
        if (!taken[i] && same_row(tap, other) && other.column == tap.column + 1)
            break;
    }
    return i;
}

void fast_pair_taps(const fast_stage *stage, int late, fast_pairing *pairing)
{
    uint8_t taken[FAST_TAPS];
    for (uint32_t i = 0; i < stage->taps; i++) {
        const fast_tap tap = fast_taps[stage->tap[i]];
        taken[i] = i < FAST_SERIAL_TAPS || (tap.reference == 0 && tap.row == -1) != (late != 0);
    }
    uint32_t pairs = 0;
    /* From the left, so that no tap is left over between two pairs. */
    for (int column = -REACH; column <= REACH; column++)
        for (uint32_t i = FAST_SERIAL_TAPS; i < stage->taps; i++) {
            const uint32_t right = taken[i] || fast_taps[stage->tap[i]].column != column ? stage->taps
                                                                                         : right_of(stage, taken, i);
            if (right == stage->taps)
                continue;
            taken[i] = taken[right] = 1;
            pairing->tap[pairs][0] = (uint8_t)i;
            pairing->tap[pairs++][1] = (uint8_t)right;
        }
    pairing->adjacent = pairs;
    uint32_t half = 0;
    for (uint32_t i = FAST_SERIAL_TAPS; i < stage->taps; i++)
        if (!taken[i]) {
            pairing->tap[pairs][half] = pairing->tap[pairs][1] = (uint8_t)i;
            pairs += half;
            half ^= 1;
        }
    pairing->pairs = pairs + half;
}

void fast_neighbours_of(const fast_stage *stage, const fast_pairing *pairing, const fast_frame *frames,
                        uint32_t stride, fast_neighbours *around)
{
    for (uint32_t i = 0; i < 2 * pairing->pairs; i++) {
        const fast_tap tap = fast_taps[stage->tap[pairing->tap[i / 2][i % 2]]];
        around->tap[i] = frames[tap.reference].sample + tap.row * (ptrdiff_t)stride + tap.column;
    }
    around->pairs = pairing->pairs;
    around->adjacent = pairing->adjacent;
}
