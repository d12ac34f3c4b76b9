/* The row functions of the fast stream for the base of the architecture and, on x86, for AVX2. */
#include "fast_rows.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Errors of FAST_CHUNK columns. */
typedef uint16_t fast_lanes __attribute__((vector_size(2 * FAST_CHUNK)));

#define fast_load(from) (*(const fast_lanes_anywhere *)(const void *)(from))
typedef uint16_t fast_lanes_anywhere __attribute__((vector_size(2 * FAST_CHUNK), aligned(2), may_alias));
typedef uint16_t fast_half __attribute__((vector_size(FAST_CHUNK)));
typedef int32_t fast_ints __attribute__((vector_size(2 * FAST_CHUNK)));
typedef float fast_floats __attribute__((vector_size(2 * FAST_CHUNK)));
typedef uint8_t fast_octets __attribute__((vector_size(FAST_CHUNK)));

/* Reading positions, in registers while a run of values is decoded. */
typedef struct {
    const uint8_t *words, *raw;
    uint64_t word, bits;
    uint32_t bit;
} fast_cursor;

#define NAME(function) portable_##function
#define TARGET
#include "fast_rows_template.h"
#include "fast_fit_template.h"
#undef NAME
#undef TARGET

const fast_rows fast_rows_portable = {portable_contexts, portable_values,   portable_residuals,
                                       portable_rebuild,  portable_sizes,    portable_errors,
                                       portable_products, portable_add,      portable_forms};

#if defined(__x86_64__)
#define NAME(function) avx2_##function
/* Every processor with AVX2 has the bit instructions too. */
#define TARGET __attribute__((target("avx2,bmi,bmi2")))
#define WIDE
#include "fast_rows_template.h"
#include "fast_fit_template.h"
#undef NAME
#undef TARGET
#undef WIDE

const fast_rows fast_rows_avx2 = {avx2_contexts, avx2_values, avx2_residuals, avx2_rebuild, avx2_sizes,
                                   avx2_errors, avx2_products, avx2_add, avx2_forms};

const fast_rows *fast_rows_best(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") ? &fast_rows_avx2 : &fast_rows_portable;
}
#else
const fast_rows *fast_rows_best(void)
{
    return &fast_rows_portable;
}
#endif
