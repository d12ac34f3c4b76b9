/* The codec kernel of dicomfs: lossless coding of stacks of grey frames, without any dependency.
 *
 * Two streams, specified in docs/codec.md: "fast" (forward-adaptive, decoder in integers only) and "dense"
 * (backward-adaptive; its levels trade time for size).  Everything here is reentrant: there is no global state
 * that changes, nothing is allocated (callers bring the memory, whose size the *_memory functions tell), and no
 * byte outside the buffers given is read or written, whatever a stream holds.  The same samples and settings give
 * the same stream on every machine, and a stream gives the same samples.
 */
#ifndef DICOMFS_KERNEL_H
#define DICOMFS_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#define DFK_REFERENCES 3

/* What functions return when they fail; all are negative. */
enum {
    DFK_BAD_ARGUMENT = -1, /* shape, settings or memory that the function does not take */
    DFK_NO_ROOM = -2,      /* the stream does not fit into the output buffer */
    DFK_DAMAGED = -3,      /* the stream cannot have been written by the encoder */
    DFK_NO_MORE = -4       /* all frames were decoded */
};

/* Samples are unsigned, below 1 << bits, C-contiguous (frames, rows, columns), of sample_bytes 1 or 2 in the
 * machine's byte order.  Frames, rows and columns are at least 1 and at most 65535; bits is 1 to 16. */
typedef struct {
    uint32_t frames, rows, columns;
    uint32_t bits;
    uint32_t sample_bytes;
} dfk_shape;

/* How a stream is to be written.  A decoder needs none of it: the stream says it all.
 * references: distances, in frames, to the frames that predict (0: unused); a frame nearer to the first one than a
 * distance does without that reference or takes a nearer one, as docs/codec.md says. */
typedef struct {
    uint32_t effort; /* 1 quick to 9 thorough */
    uint32_t level;  /* dense: 0 dense, 1 archive; fast: 0 */
    uint32_t references[DFK_REFERENCES];
} dfk_settings;

/* Bytes of memory that an encoder or decoder of this shape needs, or DFK_BAD_ARGUMENT. */
int64_t dfk_fast_encoder_memory(const dfk_shape *shape, const dfk_settings *settings);
int64_t dfk_fast_decoder_memory(const dfk_shape *shape);
int64_t dfk_dense_encoder_memory(const dfk_shape *shape, const dfk_settings *settings);
int64_t dfk_dense_decoder_memory(const dfk_shape *shape, const uint8_t *stream, size_t length);

/* Writes all frames as one stream.  Returns its length in bytes. */
int64_t dfk_fast_encode(const dfk_shape *shape, const dfk_settings *settings, const void *samples,
                        uint8_t *out, size_t capacity, void *memory, size_t memory_bytes);
int64_t dfk_dense_encode(const dfk_shape *shape, const dfk_settings *settings, const void *samples,
                         uint8_t *out, size_t capacity, void *memory, size_t memory_bytes);

/* What samples stand for, in steps of 16 bits: samples from fold_at on are raised by fold_size, all by offset; then
 * only the bits of mask are kept, moved up by shift, and joined with fixed (docs/format.md, "Sample planes").  Words
 * have word_bytes 1 or 2, in the machine's byte order. */
typedef struct {
    uint16_t fold_at, fold_size, offset, mask, shift, fixed;
} dfk_field;

/* Prepares memory to decode a stream; memory and stream must stay until the last frame is decoded.
 * Then each call decodes the next frames, (frames, rows, columns), into out, as the words that a field makes of them or,
 * where that is null, as samples.  It returns how many frames they are: fewer where the last one was decoded, or where
 * the next one cannot be, which the call that begins with it tells. */
int dfk_fast_open(const dfk_shape *shape, const uint8_t *stream, size_t length, void *memory, size_t memory_bytes);
int64_t dfk_fast_next(void *memory, uint32_t frames, const dfk_field *field, uint32_t word_bytes, void *out);
int dfk_dense_open(const dfk_shape *shape, const uint8_t *stream, size_t length, void *memory,
                   size_t memory_bytes);
int64_t dfk_dense_next(void *memory, uint32_t frames, const dfk_field *field, uint32_t word_bytes, void *out);

/* Writes the words that so many samples stand for. */
int dfk_words(const dfk_field *field, const void *samples, uint32_t sample_bytes, size_t count, void *words,
              uint32_t word_bytes);

#endif
