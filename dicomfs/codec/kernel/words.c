/* From samples to the words that they stand for; see kernel.h. */
#include "output.h"

#define WORDS(sample, word)                                                          \
    do {                                                                             \
        const sample *restrict from = samples;                                       \
        word *restrict to = words;                                                   \
        for (size_t i = 0; i < count; i++)                                           \
            to[i] = (word)dfk_word(f, from[i]);                                      \
    } while (0)

int dfk_words(const dfk_field *field, const void *samples, uint32_t sample_bytes, size_t count, void *words,
              uint32_t word_bytes)
{
    if (field == NULL || samples == NULL || words == NULL || sample_bytes - 1 > 1 || word_bytes - 1 > 1 ||
        field->shift > 15)
        return DFK_BAD_ARGUMENT;
    const dfk_field f = *field;
    if (word_bytes == 1 && sample_bytes == 1)
        WORDS(uint8_t, uint8_t);
    else if (word_bytes == 1)
        WORDS(uint16_t, uint8_t);
    else if (sample_bytes == 1)
        WORDS(uint8_t, uint16_t);
    else
        WORDS(uint16_t, uint16_t);
    return 0;
}
