/* The row functions of the fast stream, included once per instruction set: NAME gives the functions their names,
 * TARGET their attributes, WIDE says that AVX2 may be used.  The sums of a class's taps are the hot part; pairs of
 * 16-bit products fit the multiply-and-add instructions of x86, elsewhere the compiler finds its own.
 */

TARGET static void NAME(contexts)(const uint16_t *restrict error, const uint16_t *restrict before, uint32_t stride,
                                  uint32_t columns, uint8_t *restrict out)
{
    const uint32_t limit = FAST_ERROR_LIMIT;
    for (uint32_t x0 = 0; x0 < columns; x0 += FAST_CHUNK) {
        const uint16_t *n = error - stride + x0, *nn = n - stride, *c = before ? before + x0 : NULL;
        uint16_t sum[FAST_CHUNK], marks[FAST_CHUNK];
        for (int i = 0; i < FAST_CHUNK; i++) {
            sum[i] = (uint16_t)(3 * (n[i] & limit) + 2 * (n[i - 1] & limit) + 2 * (n[i + 1] & limit) +
                                (n[i - 2] & limit) + (n[i + 2] & limit) + (nn[i - 1] & limit) + (nn[i] & limit) +
                                (nn[i + 1] & limit));
            marks[i] = (uint16_t)((n[i] >> FAST_SPIKE_BIT) + (n[i - 1] >> FAST_SPIKE_BIT) + (n[i + 1] >> FAST_SPIKE_BIT));
        }
        if (c != NULL) {
            const uint16_t *s = c + stride;
            for (int i = 0; i < FAST_CHUNK; i++) {
                sum[i] = (uint16_t)(sum[i] + 2 * (c[i] & limit) + (c[i - 1] & limit) + (c[i + 1] & limit) +
                                    (s[i] & limit) + (((s[i - 1] & limit) + (s[i + 1] & limit)) >> 1));
                marks[i] = (uint16_t)(marks[i] + (c[i] >> FAST_SPIKE_BIT));
            }
        } else {
            for (int i = 0; i < FAST_CHUNK; i++) {
                sum[i] = (uint16_t)(sum[i] + (sum[i] >> 1));
                marks[i] = (uint16_t)(marks[i] + (nn[i] >> FAST_SPIKE_BIT));
            }
        }
        for (int i = 0; i < FAST_CHUNK; i++) {
            /* The exponent and the two bits below the leading one, as the float's own bits show them. */
            float value = (float)(int32_t)(sum[i] + 1);
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            uint32_t surround = (uint32_t)(marks[i] > 0) + (uint32_t)(marks[i] > 2);
            out[x0 + (uint32_t)i] = (uint8_t)((bits >> 21) - (127u << 2) + FAST_MOST_SHIFT + surround * FAST_ACTIVITIES);
        }
    }
}

TARGET static void NAME(residuals)(const fast_scaling *scaling, uint32_t columns, int32_t *restrict value,
                                   int32_t *restrict mask, uint16_t *restrict error)
{
    const uint32_t shift = scaling->error_shift;
    const int32_t spiked = scaling->spiked != 0, spike = scaling->spike;
    if (!spiked) {
        for (uint32_t x = 0; x < columns; x++) {
            int32_t z = value[x], size = (z + 1) >> 1;
            value[x] = (z >> 1) ^ -(z & 1);
            int32_t scaled = size >> shift;
            error[x] = (uint16_t)(scaled < FAST_ERROR_LIMIT ? scaled : FAST_ERROR_LIMIT);
        }
        return;
    }
    for (uint32_t x = 0; x < columns; x++) {
        int32_t z = value[x] - 1, size = (z + 1) >> 1;
        int32_t keep = -(z >= 0), residual = (z >> 1) ^ -(z & 1), scaled = size >> shift;
        scaled = scaled < FAST_ERROR_LIMIT ? scaled : FAST_ERROR_LIMIT;
        value[x] = (residual & keep) | (spike & ~keep);
        mask[x] = keep;
        error[x] = (uint16_t)((scaled & keep) | ((1 << FAST_SPIKE_BIT) & ~keep));
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

/* Products of row a with four rows one after the other. */
TARGET static inline void NAME(four_products)(const int16_t *restrict a, const int16_t *restrict b, uint32_t samples,
                                              int32_t *restrict out)
{
#if defined(WIDE)
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
    for (uint32_t n = 0; n < samples; n += FAST_CHUNK) {
        __m256i one = _mm256_loadu_si256((const __m256i *)(a + n));
        for (int r = 0; r < 4; r++) {
            __m256i other = _mm256_loadu_si256((const __m256i *)(b + r * FAST_BLOCK_SAMPLES + n));
            sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(one, other));
        }
    }
    __m256i pairs = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]), _mm256_hadd_epi32(sum[2], sum[3]));
    __m128i all = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    _mm_storeu_si128((__m128i *)out, all);
#elif defined(__SSE2__)
    for (int r = 0; r < 4; r++) {
        __m128i sum = _mm_setzero_si128();
        for (uint32_t n = 0; n < samples; n += 8)
            sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_loadu_si128((const __m128i *)(a + n)),
                                                    _mm_loadu_si128((const __m128i *)(b + r * FAST_BLOCK_SAMPLES + n))));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
        out[r] = _mm_cvtsi128_si32(sum);
    }
#else
    for (int r = 0; r < 4; r++) {
        int32_t sum = 0;
        for (uint32_t n = 0; n < samples; n++)
            sum += (int32_t)a[n] * b[r * FAST_BLOCK_SAMPLES + (int)n];
        out[r] = sum;
    }
#endif
}

TARGET static void NAME(products)(const int16_t *restrict rows, uint32_t count, uint32_t samples,
                                  int32_t *restrict out)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j <= i; j += 4) {
            int32_t four[4];
            NAME(four_products)(rows + i * FAST_BLOCK_SAMPLES, rows + j * FAST_BLOCK_SAMPLES, samples, four);
            for (uint32_t r = 0; r < 4 && j + r <= i; r++)
                *out++ = four[r];
        }
}

TARGET static void NAME(forms)(const int32_t *restrict product, uint32_t count, const float *restrict coefficient,
                               float *restrict out)
{
    typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));
    const lanes *vector = (const lanes *)coefficient;
    lanes total0 = {0}, total1 = {0};
    for (uint32_t i = 0; i < count; i++) {
        lanes inner0 = {0}, inner1 = {0};
        for (uint32_t j = 0; j < i; j++) {
            float entry = 2.0f * (float)*product++;
            inner0 += entry * vector[2 * j];
            inner1 += entry * vector[2 * j + 1];
        }
        float own = (float)*product++;
        total0 += vector[2 * i] * (inner0 + own * vector[2 * i]);
        total1 += vector[2 * i + 1] * (inner1 + own * vector[2 * i + 1]);
    }
    memcpy(out, &total0, sizeof total0);
    memcpy(out + 8, &total1, sizeof total1);
}
