/* Coding of frames with the instructions that every machine of the architecture has. */
#include "dense_frame.h"

void dense_frame_base(dense_model *model, const uint16_t *samples) { dense_frame_any(model, samples); }
