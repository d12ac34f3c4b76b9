/* Coding of frames with the instructions that every machine of the architecture has. */
#include "dense_core.h"

void dense_frame_base(dense_model *model, const uint16_t *samples) {
    if (samples)
        dense_frame_with(model, samples, DENSE_BLOCKS(0), 0);
    else
        dense_frame_with(model, NULL, DENSE_BLOCKS(0), 1);
}
