/* Coding of frames with AVX2.  The results are those of dense_frame_base. */
#if defined(__x86_64__)
#define DENSE_USE_AVX2 1
#include <immintrin.h>
#include <string.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,lzcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,bmi,bmi2,lzcnt")
#endif
#include "dense_frame.h"

void dense_frame_avx2(dense_model *model, const uint16_t *samples) { dense_frame_any(model, samples); }
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int dense_no_avx2; /* a translation unit must declare something */
#endif
