/* Binary32 arithmetic as IEEE 754 has it, whatever the caller's thread was set to.
 *
 * A library built with -ffast-math switches subnormal numbers off for the thread that loads it, and any code may
 * change the direction of rounding.  A frame coded like that would come back with other samples elsewhere.
 */
#ifndef DICOMFS_DENSE_ROUNDING_H
#define DICOMFS_DENSE_ROUNDING_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
/* Rounding (bits 13, 14) and "flush to zero" (15), "denormals are zero" (6). */
#define DENSE_MODE_BITS 0xe040u
#elif defined(__aarch64__)
/* Flush to zero (24, also for inputs), rounding (22, 23), default NaN (25), and FIZ and AH (0, 1) of newer cores. */
#define DENSE_MODE_BITS 0x3c00003u
#endif

/* Sets rounding to nearest with subnormal numbers; returns what was set before. */
static inline uint64_t dense_enter_rounding(void) {
#if defined(__x86_64__)
    const uint32_t before = _mm_getcsr();
    if (before & DENSE_MODE_BITS)
        _mm_setcsr(before & ~DENSE_MODE_BITS);
    return before;
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    if (before & DENSE_MODE_BITS)
        __asm__ volatile("msr fpcr, %0" : : "r"(before & ~(uint64_t)DENSE_MODE_BITS));
    return before;
#else
    return 0;
#endif
}

static inline void dense_leave_rounding(uint64_t before) {
#if defined(__x86_64__)
    if (before & DENSE_MODE_BITS)
        _mm_setcsr((uint32_t)before);
#elif defined(__aarch64__)
    if (before & DENSE_MODE_BITS)
        __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

#endif
