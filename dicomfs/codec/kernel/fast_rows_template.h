/* The row functions of the fast stream, included once per instruction set: NAME gives the functions their names,
 * TARGET their attributes, WIDE says that AVX2 may be used.  The sums of a class's taps are the hot part; pairs of
 * 16-bit products fit the multiply-and-add instructions of x86, elsewhere the compiler finds its own.
 */

TARGET static void NAME(contexts)(const uint8_t *restrict error, const uint8_t *restrict before, uint32_t stride,
                                  uint32_t columns, uint8_t *restrict out)
{
    const uint32_t limit = FAST_ERROR_LIMIT;
    for (uint32_t x0 = 0; x0 < columns; x0 += FAST_CHUNK) {
        const uint8_t *n = error - stride + x0, *nn = n - stride, *c = before ? before + x0 : NULL;
        uint16_t sum[FAST_CHUNK], marks[FAST_CHUNK];
        for (int i = 0; i < FAST_CHUNK; i++) {
            sum[i] = (uint16_t)(3 * (n[i] & limit) + 2 * (n[i - 1] & limit) + 2 * (n[i + 1] & limit) +
                                (n[i - 2] & limit) + (n[i + 2] & limit) + (nn[i] & limit));
            marks[i] = (uint16_t)((n[i] >> 7) + (n[i - 1] >> 7) + (n[i + 1] >> 7));
        }
        if (c != NULL) {
            const uint8_t *s = c + stride;
            for (int i = 0; i < FAST_CHUNK; i++) {
                sum[i] = (uint16_t)(sum[i] + 2 * (c[i] & limit) + (c[i - 1] & limit) + (c[i + 1] & limit) +
                                    (s[i] & limit) + (((s[i - 1] & limit) + (s[i + 1] & limit)) >> 1));
                marks[i] = (uint16_t)(marks[i] + (c[i] >> 7));
            }
        } else {
            for (int i = 0; i < FAST_CHUNK; i++) {
                sum[i] = (uint16_t)(sum[i] + (sum[i] >> 1));
                marks[i] = (uint16_t)(marks[i] + (nn[i] >> 7));
            }
        }
        for (int i = 0; i < FAST_CHUNK; i++) {
            /* The exponent and the two bits below the leading one, as the float's own bits show them. */
            float value = (float)(int32_t)(sum[i] + 1);
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            uint32_t surround = (uint32_t)(marks[i] > 0) + (uint32_t)(marks[i] > 2);
            out[x0 + (uint32_t)i] = (uint8_t)((bits >> 21) - (127u << 2) + surround * FAST_ACTIVITIES);
        }
    }
}

TARGET static void NAME(residuals)(const fast_scaling *scaling, uint32_t columns, int32_t *restrict value,
                                   int32_t *restrict mask, uint8_t *restrict error)
{
    const uint32_t shift = scaling->error_shift;
    const int32_t spiked = scaling->spiked != 0, spike = scaling->spike;
    if (!spiked) {
        for (uint32_t x = 0; x < columns; x++) {
            int32_t z = value[x], size = (z + 1) >> 1;
            value[x] = (z >> 1) ^ -(z & 1);
            int32_t scaled = size >> shift;
            error[x] = (uint8_t)(scaled < FAST_ERROR_LIMIT ? scaled : FAST_ERROR_LIMIT);
        }
        return;
    }
    for (uint32_t x = 0; x < columns; x++) {
        int32_t z = value[x] - 1, size = (z + 1) >> 1;
        int32_t keep = -(z >= 0), residual = (z >> 1) ^ -(z & 1), scaled = size >> shift;
        scaled = scaled < FAST_ERROR_LIMIT ? scaled : FAST_ERROR_LIMIT;
        value[x] = (residual & keep) | (spike & ~keep);
        mask[x] = keep;
        error[x] = (uint8_t)((scaled & keep) | (FAST_SPIKE_MARK & ~keep));
    }
}

/* Weighted sums of FAST_CHUNK columns. */
TARGET static inline void NAME(sums)(const fast_neighbours *around, const int16_t *weight, int32_t offset,
                                     uint32_t x, int32_t *restrict out)
{
#if defined(WIDE)
    __m256i low = _mm256_set1_epi32(offset), high = low;
    for (uint32_t p = 0; p < around->pairs; p++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(around->tap[2 * p] + x));
        __m256i b = _mm256_loadu_si256((const __m256i *)(around->tap[2 * p + 1] + x));
        int32_t both;
        memcpy(&both, weight + 2 * p, sizeof both);
        __m256i w = _mm256_set1_epi32(both);
        low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), w));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), w));
    }
    _mm256_storeu_si256((__m256i *)out, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256((__m256i *)(out + 8), _mm256_permute2x128_si256(low, high, 0x31));
#elif defined(__SSE2__)
    __m128i sum[4];
    sum[0] = sum[1] = sum[2] = sum[3] = _mm_set1_epi32(offset);
    for (uint32_t p = 0; p < around->pairs; p++) {
        const int16_t *first = around->tap[2 * p] + x, *second = around->tap[2 * p + 1] + x;
        int32_t both;
        memcpy(&both, weight + 2 * p, sizeof both);
        __m128i w = _mm_set1_epi32(both);
        for (int half = 0; half < 2; half++) {
            __m128i a = _mm_loadu_si128((const __m128i *)(first + 8 * half));
            __m128i b = _mm_loadu_si128((const __m128i *)(second + 8 * half));
            sum[2 * half] = _mm_add_epi32(sum[2 * half], _mm_madd_epi16(_mm_unpacklo_epi16(a, b), w));
            sum[2 * half + 1] = _mm_add_epi32(sum[2 * half + 1], _mm_madd_epi16(_mm_unpackhi_epi16(a, b), w));
        }
    }
    for (int i = 0; i < 4; i++)
        _mm_storeu_si128((__m128i *)(out + 4 * i), sum[i]);
#else
    for (int i = 0; i < FAST_CHUNK; i++)
        out[i] = offset;
    for (uint32_t t = 0; t < 2 * around->pairs; t++)
        for (int i = 0; i < FAST_CHUNK; i++)
            out[i] += (int32_t)weight[t] * around->tap[t][x + (uint32_t)i];
#endif
}

TARGET static uint32_t NAME(reconstruct)(const fast_scaling *scaling, const fast_neighbours *around,
                                         const int16_t *weight, int32_t offset, uint32_t first, uint32_t last,
                                         const int32_t *residual, const int32_t *mask, int16_t *sample)
{
    const uint32_t fraction = scaling->fraction, half = 1u << (scaling->bits - 1);
    /* Unsigned, because a damaged stream may lead out of range within a row; its end tells. */
    const uint32_t nearest = (uint32_t)(int32_t)weight[0], next = (uint32_t)(int32_t)weight[1];
    uint32_t w = (uint32_t)(int32_t) * (sample + (ptrdiff_t)first - 1);
    uint32_t ww = (uint32_t)(int32_t) * (sample + (ptrdiff_t)first - 2);
    uint32_t outside = 0;
    for (uint32_t x = first; x < last; x += FAST_CHUNK) {
        int32_t sum[FAST_CHUNK];
        NAME(sums)(around, weight + FAST_SERIAL_TAPS, offset, x, sum);
        uint32_t count = last - x < FAST_CHUNK ? last - x : FAST_CHUNK;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t total = (uint32_t)sum[i] + next * ww + nearest * w;
            uint32_t predicted = (uint32_t)((int32_t)total >> fraction);
            ww = w;
            w = (mask ? predicted & (uint32_t)mask[x + i] : predicted) + (uint32_t)residual[x + i];
            sample[x + i] = (int16_t)w;
            outside |= w + half;
        }
    }
    return outside >> scaling->bits;
}

TARGET static void NAME(predict)(const fast_neighbours *around, const int16_t *weight, int32_t offset,
                                 uint32_t fraction, uint32_t at, int32_t *restrict out)
{
    int32_t sum[FAST_CHUNK];
    NAME(sums)(around, weight, offset, at, sum);
    for (int i = 0; i < FAST_CHUNK; i++)
        out[i] = sum[i] >> fraction;
}

TARGET static void NAME(forms)(const int32_t *restrict product, uint32_t count, const double *restrict coefficient,
                               double *restrict out)
{
    double total[FAST_CLASS_GROUP] = {0};
    for (uint32_t i = 0; i < count; i++) {
        double inner[FAST_CLASS_GROUP] = {0};
        for (uint32_t j = 0; j < i; j++) {
            double entry = 2.0 * *product++;
            for (int k = 0; k < FAST_CLASS_GROUP; k++)
                inner[k] += entry * coefficient[j * FAST_CLASS_GROUP + (uint32_t)k];
        }
        double own = *product++;
        for (int k = 0; k < FAST_CLASS_GROUP; k++) {
            double value = coefficient[i * FAST_CLASS_GROUP + (uint32_t)k];
            total[k] += value * (inner[k] + own * value);
        }
    }
    memcpy(out, total, sizeof total);
}
