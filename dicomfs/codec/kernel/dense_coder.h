/* The binary arithmetic coder of the dense stream: 64-bit range, 16-bit probabilities, 32-bit renormalisation. */
#ifndef DICOMFS_DENSE_CODER_H
#define DICOMFS_DENSE_CODER_H

#include <stddef.h>
#include <stdint.h>

/* What is inlined into one copy of the code for each level and direction; builds that cannot wait for the compiler
 * leave the choice to it. */
#ifndef DENSE_INLINE
#define DENSE_INLINE static inline __attribute__((always_inline))
#endif

/* Bytes the decoder reads beyond the end at most, as zeros: one word that it is ahead, one that was left away. */
#define DENSE_OVERREAD 8

typedef struct {
    uint64_t low;   /* encoder: start of the interval; decoder: distance of the code from it */
    uint64_t range; /* length of the interval, at least 1 << 32 between decisions */
    uint8_t *out;   /* encoder only */
    const uint8_t *in; /* decoder only */
    size_t at, limit;
    int overflow; /* the output did not fit */
} dense_coder;

/* Compilers for x86 move limits into vectors, where the way there and back takes longer than they do. */
DENSE_INLINE int32_t dense_clamp(int32_t value, int32_t low, int32_t high) {
    value = value < low ? low : value;
    __asm__("" : "+r"(value));
    return value > high ? high : value;
}

/* The last bytes, from `in` on, and zeros behind them. */
static __attribute__((noinline)) uint64_t dense_fetch_last(const uint8_t *in, size_t left) {
    uint64_t word = 0;
    for (size_t i = 0; i < 4; i++)
        word = word << 8 | (i < left ? in[i] : 0);
    return word;
}

DENSE_INLINE uint64_t dense_fetch(dense_coder *coder) {
    const size_t at = coder->at, left = at < coder->limit ? coder->limit - at : 0;
    const uint8_t *in = coder->in + (left ? at : 0);
    coder->at = at + 4;
    if (__builtin_expect(left < 4, 0))
        return dense_fetch_last(in, left);
    return (uint64_t)in[0] << 24 | (uint64_t)in[1] << 16 | (uint64_t)in[2] << 8 | in[3];
}

static inline void dense_coder_start_decoder(dense_coder *coder, const uint8_t *in, size_t length) {
    *coder = (dense_coder){.range = UINT64_MAX, .in = in, .limit = length};
    coder->low = dense_fetch(coder) << 32;
    coder->low |= dense_fetch(coder);
}

static inline void dense_coder_start_encoder(dense_coder *coder, uint8_t *out, size_t capacity) {
    *coder = (dense_coder){.range = UINT64_MAX, .out = out, .limit = capacity};
}

DENSE_INLINE void dense_emit(dense_coder *coder) {
    if (coder->limit < 4 || coder->at > coder->limit - 4) {
        coder->overflow = 1;
        return;
    }
    const uint32_t word = (uint32_t)(coder->low >> 32);
    for (int i = 0; i < 4; i++)
        coder->out[coder->at++] = (uint8_t)(word >> (24 - 8 * i));
}

/* Adds one to what was written: the interval's start went past the next power of two. */
static inline void dense_carry(uint8_t *out, size_t at) {
    while (at > 0 && ++out[at - 1] == 0)
        at--;
}

/* Makes the range longer where it is shorter than 32 bits. */
DENSE_INLINE void dense_lengthen(dense_coder *coder, const int decoding) {
    if (__builtin_expect(coder->range >> 32 != 0, 1))
        return;
    if (decoding) {
        coder->low = coder->low << 32 | dense_fetch(coder);
    } else {
        dense_emit(coder);
        coder->low <<= 32;
    }
    coder->range <<= 32;
}

/* Moves the start of the interval up. */
DENSE_INLINE void dense_move(dense_coder *coder, uint64_t by, const int decoding) {
    if (decoding) {
        coder->low -= by;
        return;
    }
    coder->low += by;
    if (coder->low < by)
        dense_carry(coder->out, coder->at);
}

/* Codes one decision; probability (1 to 65535, of 65536) is that of a one. */
DENSE_INLINE int dense_code(dense_coder *coder, int bit, uint32_t probability, const int decoding) {
    const uint64_t one = (coder->range >> 16) * probability;
    /* Without branches on what nobody can foresee: masks, where the compiler must not see that they are bits. */
    uint64_t mask = (uint64_t)0 - (uint64_t)(decoding ? coder->low < one : bit != 0);
    if (decoding) {
        __asm__("" : "+r"(mask));
        bit = (int)(mask & 1);
    }
    dense_move(coder, one & ~mask, decoding);
    const uint64_t rest = coder->range - one;
    coder->range = rest ^ ((rest ^ one) & mask);
    dense_lengthen(coder, decoding);
    return bit;
}

/* Codes the low `count` bits of value, each as likely as not. */
DENSE_INLINE uint32_t dense_code_plain(dense_coder *coder, uint32_t value, int count, const int decoding) {
    uint32_t out = 0;
    while (count-- > 0) {
        const int bit = decoding ? 0 : (int)(value >> count & 1);
        out = out << 1 | (uint32_t)dense_code(coder, bit, 32768, decoding);
    }
    return out;
}

/* Writes a number inside the interval; up to four zero bytes at the end go without saying. */
static inline void dense_coder_finish(dense_coder *coder) {
    const uint64_t end = coder->low + coder->range - 1;
    if (end < coder->low)
        dense_carry(coder->out, coder->at);
    coder->low = end & ~(uint64_t)UINT32_MAX;
    dense_emit(coder);
    for (int i = 0; i < 4 && !coder->overflow && coder->at > 0 && coder->out[coder->at - 1] == 0; i++)
        coder->at--;
}

#endif
