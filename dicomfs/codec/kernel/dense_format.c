#include "dense_format.h"

#define SAME 0, 0
#define WEST 0, -1
#define EAST 0, 1
#define NORTH -1, 0
#define SOUTH 1, 0

/* The first three taps lie in the row being coded; everything else is known before a row starts.  The spatial
 * lists prefer the neighbourhood, the temporal ones the same place in all references. */
const dense_tap dense_taps[2][DENSE_LISTS][DENSE_MOST_TERMS - 1] = {
    {{{0, WEST}, {0, 0, -2}, {0, 0, -3}, {0, NORTH}, {1, SAME}, {0, -1, -1}, {0, -1, 1}, {0, -2, 0},
      {1, EAST}, {1, SOUTH}, {1, WEST}, {1, NORTH}, {1, 1, 1}, {2, SAME}, {0, -2, 1}, {0, -1, 2},
      {1, 1, -1}, {1, -1, 1}, {1, -1, -1}, {0, -2, -1}, {0, -1, -2}, {0, -3, 0}, {2, EAST}},
     {{0, WEST}, {0, 0, -2}, {0, 0, -3}, {0, NORTH}, {1, SAME}, {2, SAME}, {3, SAME}, {0, -1, -1},
      {0, -1, 1}, {1, EAST}, {1, SOUTH}, {1, WEST}, {1, NORTH}, {2, EAST}, {2, SOUTH}, {2, WEST},
      {2, NORTH}, {3, EAST}, {3, SOUTH}, {3, WEST}, {3, NORTH}, {1, 1, 1}, {0, -2, 0}}},
    {{{0, 0, -1}, {0, 0, -2}, {0, 0, -3}, {1, 0, 0}, {0, -1, 0}, {0, -1, -1}, {0, -1, 1}, {1, -1, 0},
      {1, 0, -1}, {1, 0, 1}, {1, 1, 0}, {1, -1, -1}, {1, -1, 1}, {1, 1, -1}, {1, 1, 1}, {0, -2, 0},
      {2, 0, 0}, {0, -2, -1}, {0, -2, 1}, {0, -1, -2}, {0, -1, 2}, {1, -2, 0}, {1, 0, -2}, {1, 0, 2},
      {1, 2, 0}, {2, -1, 0}, {2, 0, -1}, {2, 0, 1}, {2, 1, 0}, {1, -2, -1}, {1, -2, 1}, {1, -1, -2},
      {1, -1, 2}, {1, 1, -2}, {1, 1, 2}, {1, 2, -1}, {1, 2, 1}, {0, -2, -2}, {0, -2, 2}, {2, -1, -1},
      {2, -1, 1}, {2, 1, -1}, {2, 1, 1}, {0, -3, 0}, {1, -2, -2}, {1, -2, 2}, {1, 2, -2}},
     {{0, 0, -1}, {0, 0, -2}, {0, 0, -3}, {0, -1, 0}, {1, 0, 0}, {2, 0, 0}, {3, 0, 0}, {0, -1, -1},
      {0, -1, 1}, {1, 0, 1}, {1, 1, 0}, {1, 0, -1}, {1, -1, 0}, {2, 0, 1}, {2, 1, 0}, {2, 0, -1},
      {2, -1, 0}, {3, 0, 1}, {3, 1, 0}, {3, 0, -1}, {3, -1, 0}, {1, 1, 1}, {1, 1, -1}, {1, -1, 1},
      {1, -1, -1}, {0, -2, 0}, {0, -2, 1}, {0, -1, 2}, {0, -2, -1}, {0, -1, -2}, {0, -3, 0}, {1, 0, 2},
      {1, 2, 0}, {1, 0, -2}, {1, -2, 0}, {2, 1, 1}, {2, 1, -1}, {2, -1, 1}, {2, -1, -1}, {3, 1, 1},
      {3, 1, -1}, {3, -1, 1}, {3, -1, -1}, {0, -2, -2}, {0, -2, 2}, {1, -1, 2}, {1, 1, -2}}},
};

/* Flags of the second byte of a stream. */
enum { STORED = 1, ARCHIVE = 2, LIST_SHIFT = 2, PARITY = 8, SPIKE_SHIFT = 4, GAPS = 64, FLAGS_KNOWN = 0x7F };

static uint8_t *put16(uint8_t *out, uint32_t value) {
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
    return out + 2;
}

static uint32_t get16(const uint8_t *in) { return in[0] | (uint32_t)in[1] << 8; }

int dense_shape_ok(const dfk_shape *shape) {
    const uint32_t most = 65535;
    return shape->frames - 1 < most && shape->rows - 1 < most && shape->columns - 1 < most &&
           shape->bits - 1 < 16 && (shape->sample_bytes == 2 || (shape->sample_bytes == 1 && shape->bits <= 8));
}

size_t dense_write_header(const dense_header *header, uint8_t *out) {
    uint8_t *next = out;
    *next++ = DENSE_VERSION;
    if (header->stored) {
        *next++ = STORED;
        return (size_t)(next - out);
    }
    *next++ = (uint8_t)((header->level ? ARCHIVE : 0) | header->list << LIST_SHIFT | (header->parity ? PARITY : 0) |
                        header->spike_count << SPIKE_SHIFT | (header->gap_count ? GAPS : 0));
    next = put16(next, header->largest);
    for (int i = 0; i < DFK_REFERENCES; i++)
        next = put16(next, header->references[i]);
    for (uint32_t i = 0; i < header->spike_count; i++)
        next = put16(next, header->spikes[i]);
    if (header->gap_count) {
        *next++ = (uint8_t)header->gap_count;
        for (uint32_t i = 0; i < header->gap_count; i++)
            next = put16(put16(next, header->gaps[i].at), header->gaps[i].size);
    }
    return (size_t)(next - out);
}

/* Reads the gaps, which lie in rising order and leave samples of at most 16 bits. */
static size_t read_gaps(dense_header *header, const uint8_t *in, size_t length) {
    if (length < 1 || in[0] < 1 || in[0] > DENSE_GAPS || length < 1 + 4u * in[0])
        return 0;
    header->gap_count = in[0];
    uint32_t end = 0, removed = 0;
    for (uint32_t i = 0; i < header->gap_count; i++) {
        dense_gap gap = {get16(in + 1 + 4 * i), get16(in + 3 + 4 * i)};
        if (gap.at < end || !gap.size)
            return 0;
        end = gap.at + gap.size;
        removed += gap.size;
        header->gaps[i] = gap;
    }
    return header->largest + removed > 65535 ? 0 : 1 + 4u * header->gap_count;
}

size_t dense_read_header(dense_header *header, const uint8_t *stream, size_t length) {
    *header = (dense_header){0};
    const size_t fixed = 4 + 2 * DFK_REFERENCES;
    if (length < 2 || stream[0] != DENSE_VERSION || stream[1] & ~FLAGS_KNOWN)
        return 0;
    const uint32_t flags = stream[1];
    header->stored = flags & STORED;
    if (header->stored)
        return flags == STORED ? 2 : 0;
    header->level = (flags & ARCHIVE) != 0;
    header->list = flags >> LIST_SHIFT & 1;
    header->parity = (flags & PARITY) != 0;
    header->spike_count = flags >> SPIKE_SHIFT & 3;
    if (header->spike_count > DENSE_SPIKES || length < fixed + 2 * header->spike_count)
        return 0;
    header->largest = get16(stream + 2);
    for (int i = 0; i < DFK_REFERENCES; i++)
        header->references[i] = get16(stream + 4 + 2 * i);
    size_t at = fixed;
    for (uint32_t i = 0; i < header->spike_count; i++, at += 2) {
        header->spikes[i] = get16(stream + at);
        if (header->spikes[i] > header->largest)
            return 0;
    }
    if (flags & GAPS) {
        const size_t read = read_gaps(header, stream + at, length - at);
        if (!read)
            return 0;
        at += read;
    }
    return at;
}

void dense_frame_references(const uint32_t *configured, uint32_t frame, uint32_t *distances) {
    for (int i = 0; i < DFK_REFERENCES; i++) {
        uint32_t distance = configured[i] > frame ? 1 : configured[i];
        for (int j = 0; j < i; j++)
            if (distances[j] == distance)
                distance = 0;
        distances[i] = distance > frame ? 0 : distance;
    }
}

uint32_t dense_largest_sample(const dense_header *header) {
    uint32_t value = header->largest;
    for (uint32_t i = 0; i < header->gap_count && value >= header->gaps[i].at; i++)
        value += header->gaps[i].size;
    return value;
}
