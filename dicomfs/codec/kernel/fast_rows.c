/* The row functions of the fast stream for the base of the architecture and, on x86, for AVX2. */
#include "fast_rows.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define NAME(function) portable_##function
#define TARGET
#include "fast_rows_template.h"
#undef NAME
#undef TARGET

const fast_rows fast_rows_portable = {portable_contexts, portable_residuals, portable_reconstruct, portable_predict,
                                       portable_products, portable_forms};

#if defined(__x86_64__)
#define NAME(function) avx2_##function
#define TARGET __attribute__((target("avx2")))
#define WIDE
#include "fast_rows_template.h"
#undef NAME
#undef TARGET
#undef WIDE

const fast_rows fast_rows_avx2 = {avx2_contexts, avx2_residuals, avx2_reconstruct, avx2_predict, avx2_products,
                                   avx2_forms};

const fast_rows *fast_rows_best(void)
{
    return __builtin_cpu_supports("avx2") ? &fast_rows_avx2 : &fast_rows_portable;
}
#else
const fast_rows *fast_rows_best(void)
{
    return &fast_rows_portable;
}
#endif
