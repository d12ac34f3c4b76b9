/* Small helpers that both streams of the kernel share: memory carved from a block that the caller brings, and
 * clamping.  Nothing here knows a stream.
 */
#ifndef DICOMFS_KERNEL_COMMON_H
#define DICOMFS_KERNEL_COMMON_H

#include <stddef.h>
#include <stdint.h>

#define DFK_ALIGNMENT 64

/* A block of memory handed out piece by piece.  With a null start it only adds up what would be taken, so that one
 * function tells the size and makes the layout. */
typedef struct {
    uint8_t *start;
    uint64_t used;
    uint64_t size;
} dfk_arena;

/* Returns aligned memory, or null when measuring or when the block is too small (used is then above size).  Needs
 * that fit no 62 bits stay recognisable: used sticks at its largest value. */
static inline void *dfk_take(dfk_arena *arena, uint64_t count, uint64_t item)
{
    const uint64_t limit = (uint64_t)1 << 62;
    uint64_t at = arena->used;
    if (count > limit / (item ? item : 1) || at > limit - DFK_ALIGNMENT) {
        arena->used = UINT64_MAX;
        return NULL;
    }
    uint64_t bytes = (count * item + DFK_ALIGNMENT - 1) / DFK_ALIGNMENT * DFK_ALIGNMENT;
    arena->used = at + bytes;
    if (arena->start == NULL || arena->used > arena->size)
        return NULL;
    return arena->start + at;
}

/* An arena over a caller's block whose start is moved up to the alignment. */
static inline dfk_arena dfk_arena_over(void *memory, size_t bytes)
{
    size_t lead = (size_t)(-(uintptr_t)memory) % DFK_ALIGNMENT;
    dfk_arena arena = {(uint8_t *)memory + (lead <= bytes ? lead : 0), 0, lead <= bytes ? bytes - lead : 0};
    return arena;
}

static inline int32_t dfk_clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* floor(log2(value)) of a value above 0. */
static inline uint32_t dfk_log2(uint32_t value)
{
    return 31u - (uint32_t)__builtin_clz(value);
}

#endif
