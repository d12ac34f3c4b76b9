/* Where decoded rows go: to the caller as samples or as the words they stand for; who cannot make words at once has a
 * row of memory for the samples.  Both decoders write rows one by one, from the first of a frame to the last.
 */
#ifndef DICOMFS_KERNEL_OUTPUT_H
#define DICOMFS_KERNEL_OUTPUT_H

#include "kernel.h"

typedef struct {
    const dfk_field *field; /* null: samples as they are */
    uint32_t columns, sample_bytes, word_bytes;
    void *row; /* memory for the samples of a row */
    uint8_t *next;
} dfk_output;

/* The word that a sample stands for. */
static inline uint16_t dfk_word(dfk_field field, uint16_t sample)
{
    uint16_t value = (uint16_t)(sample + (sample >= field.fold_at ? field.fold_size : 0));
    value = (uint16_t)((uint16_t)(value + field.offset) & field.mask);
    return (uint16_t)((uint16_t)(value << field.shift) | field.fixed);
}

/* Whether a caller's field and words are such that `dfk_words` takes. */
static inline int dfk_output_valid(const dfk_field *field, uint32_t word_bytes)
{
    return field == NULL || (field->shift <= 15 && word_bytes - 1 <= 1);
}

/* Memory for the samples of the next row. */
static inline void *dfk_output_row(const dfk_output *output)
{
    return output->field ? output->row : output->next;
}

/* The samples of the next row are there. */
static inline void dfk_output_done(dfk_output *output)
{
    if (output->field)
        (void)dfk_words(output->field, output->row, output->sample_bytes, output->columns, output->next,
                        output->word_bytes);
    output->next += (size_t)output->columns * (output->field ? output->word_bytes : output->sample_bytes);
}

#endif
