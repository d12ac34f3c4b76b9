/* The row functions of the fast stream for the base of the architecture and, on x86, for AVX2. */
#include "fast_rows.h"
#include "output.h"

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
typedef uint64_t fast_words __attribute__((vector_size(FAST_CHUNK)));

/* What the bits of a float show of a number, in quarters of an octave, above its steps. */
#define FAST_FLOAT_STEPS ((127 << 2) - FAST_MOST_SHIFT)

/* States and reading positions, in registers while a row is read. */
typedef struct {
    uint32_t state[FAST_LANES];
    const uint8_t *words, *raw;
    uint64_t bits;
    uint32_t bit;
} portable_cursor;

#define INLINE static inline __attribute__((always_inline))

#define fast_cursor portable_cursor
#define NAME(function) portable_##function
#define TARGET
#include "fast_read_template.h"
#include "fast_rebuild_template.h"
#include "fast_fit_template.h"
#undef NAME
#undef TARGET
#undef fast_cursor

const fast_rows fast_rows_portable = {portable_contexts, portable_read,     portable_rebuild,
                                       portable_deliver,  portable_sizes,    portable_errors,
                                       portable_products, portable_add,      portable_forms};

#if defined(__x86_64__)
/* Bits of a window that can be looked at, at whatever bit it begins. */
#define FAST_WINDOW 57

typedef struct {
    __m256i state;
    const uint8_t *words, *raw;
    uint64_t bits;
    uint32_t bit;
} avx2_cursor;

/* For each set of lanes: where, among the next words, the two bytes of each lane's word are; 128 stands for none. */
#define BEFORE(lane, set) __builtin_popcount((set) & ((1 << (lane)) - 1))
#define BYTE(lane, set, byte) ((set) >> (lane)&1 ? 2 * BEFORE(lane, set) + (byte) : 128)
#define WORD(lane, set) BYTE(lane, set, 0), BYTE(lane, set, 1)
#define WORDS(set) \
    {WORD(0, set), WORD(1, set), WORD(2, set), WORD(3, set), WORD(4, set), WORD(5, set), WORD(6, set), WORD(7, set)}
#define SETS_4(set) WORDS(set), WORDS((set) + 1), WORDS((set) + 2), WORDS((set) + 3)
#define SETS_16(set) SETS_4(set), SETS_4((set) + 4), SETS_4((set) + 8), SETS_4((set) + 12)
#define SETS_64(set) SETS_16(set), SETS_16((set) + 16), SETS_16((set) + 32), SETS_16((set) + 48)
static const _Alignas(16) uint8_t fast_spread[256][16] = {SETS_64(0), SETS_64(64), SETS_64(128), SETS_64(192)};

#define fast_cursor avx2_cursor
#define NAME(function) avx2_##function
/* Every processor with AVX2 has the bit instructions too, but some are told not to offer them. */
#define TARGET __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define WIDE
#include "fast_read_template.h"
#include "fast_rebuild_template.h"
#include "fast_fit_template.h"
#undef NAME
#undef TARGET
#undef WIDE
#undef fast_cursor

const fast_rows fast_rows_avx2 = {avx2_contexts, avx2_read,     avx2_rebuild, avx2_deliver, avx2_sizes,
                                   avx2_errors,   avx2_products, avx2_add,     avx2_forms};

const fast_rows *fast_rows_best(void)
{
    const int offered = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
                        __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    return offered ? &fast_rows_avx2 : &fast_rows_portable;
}
#else
const fast_rows *fast_rows_best(void)
{
    return &fast_rows_portable;
}
#endif
