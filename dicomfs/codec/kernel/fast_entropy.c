/* Tables and inputs of the fast stream's entropy decoder; its loop is among the row functions. */
#include "fast_entropy.h"

#include <string.h>

void fast_decoding_table_fill(const fast_plan *plan, const fast_table *table, fast_decoding_table *out)
{
    uint16_t frequency[FAST_TOKENS + 1];
    uint32_t count = fast_frequencies(plan, table, frequency), start = 0;
    for (uint32_t symbol = 0; symbol < count; start += frequency[symbol++]) {
        memset(out->slot + start, (int)symbol, frequency[symbol]);
        fast_symbol *said = &out->symbol[symbol];
        *said = (fast_symbol){frequency[symbol], (uint16_t)start, 0};
        if (plan->spiked && symbol == 0)
            continue;
        uint32_t extra, base = fast_token_base(symbol - plan->spiked, &extra) << table->shift;
        said->value = (base + plan->spiked) << 5 | (extra + table->shift);
    }
}

void fast_input_prepare(fast_input *input)
{
    size_t left = (size_t)(input->end - input->at);
    if (input->in_tail || left >= input->reserve)
        return;
    memcpy(input->tail, input->at, left);
    memset(input->tail + left, 0, input->reserve);
    input->at = input->tail;
    input->end = input->tail + left;
    input->in_tail = 1;
}
