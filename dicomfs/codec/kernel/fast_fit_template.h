/* The functions of the fast stream's encoder that work on many samples at a time, included once per instruction set
 * like those of fast_rows_template.h, and after them.  Floating point is element by element in a fixed order.
 */

/* What a predictor leaves of the samples of half a block. */
TARGET static inline __attribute__((always_inline)) void NAME(half_residuals)(const fast_half_block *half,
                                                                              uint32_t pairs, const int16_t *weight,
                                                                              int32_t offset, uint32_t fraction,
                                                                              fast_ints *out)
{
#if defined(WIDE)
    __m256i sum[FAST_HALF_ROWS];
    for (int r = 0; r < FAST_HALF_ROWS; r++)
        sum[r] = _mm256_set1_epi32(offset);
    for (uint32_t p = 0; p < pairs; p++) {
        int32_t both;
        memcpy(&both, weight + 2 * p, sizeof both);
        const __m256i w = _mm256_set1_epi32(both);
        for (int r = 0; r < FAST_HALF_ROWS; r++)
            sum[r] = _mm256_add_epi32(
                sum[r], _mm256_madd_epi16(_mm256_load_si256((const __m256i *)half->tap[p][r]), w));
    }
    const __m128i count = _mm_cvtsi32_si128((int)fraction);
    for (int r = 0; r < FAST_HALF_ROWS; r++)
        out[r] = *(const fast_ints *)half->sample[r] - (fast_ints)_mm256_sra_epi32(sum[r], count);
#elif defined(__SSE2__)
    __m128i sum[2 * FAST_HALF_ROWS];
    for (int r = 0; r < 2 * FAST_HALF_ROWS; r++)
        sum[r] = _mm_set1_epi32(offset);
    for (uint32_t p = 0; p < pairs; p++) {
        int32_t both;
        memcpy(&both, weight + 2 * p, sizeof both);
        const __m128i w = _mm_set1_epi32(both), *tap = (const __m128i *)half->tap[p];
        for (int r = 0; r < 2 * FAST_HALF_ROWS; r++)
            sum[r] = _mm_add_epi32(sum[r], _mm_madd_epi16(_mm_load_si128(tap + r), w));
    }
    for (int r = 0; r < FAST_HALF_ROWS; r++) {
        fast_ints whole;
        memcpy(&whole, &sum[2 * r], sizeof whole);
        out[r] = *(const fast_ints *)half->sample[r] - (whole >> fraction);
    }
#else
    for (int r = 0; r < FAST_HALF_ROWS; r++) {
        int32_t sum[FAST_OCTET];
        for (int i = 0; i < FAST_OCTET; i++)
            sum[i] = offset;
        for (uint32_t p = 0; p < pairs; p++)
            for (int i = 0; i < FAST_OCTET; i++)
                sum[i] += weight[2 * p] * half->tap[p][r][2 * i] + weight[2 * p + 1] * half->tap[p][r][2 * i + 1];
        for (int i = 0; i < FAST_OCTET; i++)
            out[r][i] = half->sample[r][i] - (sum[i] >> fraction);
    }
#endif
}

TARGET static uint32_t NAME(sizes)(const fast_half_block *half, uint32_t pairs, const int16_t *weight, int32_t offset,
                                   uint32_t fraction)
{
    fast_ints residual[FAST_HALF_ROWS], total = {0};
    NAME(half_residuals)(half, pairs, weight, offset, fraction, residual);
    for (int r = 0; r < FAST_HALF_ROWS; r++) {
        const fast_ints sign = residual[r] >> 31;
        total += ((residual[r] ^ sign) - sign) & *(const fast_ints *)half->inside[r];
    }
    uint32_t sum = 0;
    for (int i = 0; i < FAST_OCTET; i++)
        sum += (uint32_t)total[i];
    return sum;
}

TARGET static void NAME(errors)(const fast_half_block *half, uint32_t pairs, const int16_t *weight, int32_t offset,
                                uint32_t fraction, uint32_t *value)
{
    fast_ints residual[FAST_HALF_ROWS];
    NAME(half_residuals)(half, pairs, weight, offset, fraction, residual);
    for (int r = 0; r < FAST_HALF_ROWS; r++)
        residual[r] = (residual[r] + residual[r]) ^ (residual[r] >> 31);
    memcpy(value, residual, sizeof residual);
}

/* Products of row a with four rows one after the other. */
TARGET static inline void NAME(four_products)(const int16_t *restrict a, const int16_t *restrict b, uint32_t samples,
                                              float *restrict out)
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
    _mm_storeu_ps(out, _mm_cvtepi32_ps(all));
#elif defined(__SSE2__)
    for (int r = 0; r < 4; r++) {
        __m128i sum = _mm_setzero_si128();
        for (uint32_t n = 0; n < samples; n += 8)
            sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_loadu_si128((const __m128i *)(a + n)),
                                                    _mm_loadu_si128((const __m128i *)(b + r * FAST_BLOCK_SAMPLES + n))));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4E));
        sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xB1));
        out[r] = (float)_mm_cvtsi128_si32(sum);
    }
#else
    for (int r = 0; r < 4; r++) {
        int32_t sum = 0;
        for (uint32_t n = 0; n < samples; n++)
            sum += (int32_t)a[n] * b[r * FAST_BLOCK_SAMPLES + (int)n];
        out[r] = (float)sum;
    }
#endif
}

TARGET static void NAME(products)(const int16_t *restrict rows, uint32_t count, uint32_t samples, float *restrict out)
{
    /* What a group of four writes beyond its row, the next row's first group writes over. */
    for (uint32_t i = 0; i < count; out += ++i)
        for (uint32_t j = 0; j <= i; j += 4)
            NAME(four_products)(rows + i * FAST_BLOCK_SAMPLES, rows + j * FAST_BLOCK_SAMPLES, samples, out + j);
}

TARGET static void NAME(add)(const float *restrict product, uint32_t count, double factor, double *restrict sum)
{
    for (uint32_t i = 0; i < count; i++)
        sum[i] += factor * (double)product[i];
}

TARGET static void NAME(forms)(const float *const product[2], uint32_t taps, const float *restrict coefficient,
                               const float *restrict constant, float *restrict out)
{
    /* As wide as registers are: wider vectors would be taken apart through memory.  Two blocks at once share the
     * coefficients, and their additions do not wait for each other. */
#if defined(WIDE)
    enum { LANES = 8, PARTS = FAST_CLASS_GROUP / LANES };
#else
    enum { LANES = 4, PARTS = FAST_CLASS_GROUP / LANES };
#endif
    typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
    const lanes *vector = (const lanes *)coefficient, *moved = (const lanes *)constant;
    const float *first = product[0], *second = product[1];
    lanes total[2][PARTS] = {{{0}}};
    for (uint32_t i = 0; i < taps + 2; first += i + 1, second += i + 1, i++) {
        lanes inner[2][PARTS] = {{{0}}};
        for (uint32_t j = 0; j < (i < taps ? i : taps); j++)
            for (uint32_t p = 0; p < PARTS; p++) {
                inner[0][p] += first[j] * vector[PARTS * j + p];
                inner[1][p] += second[j] * vector[PARTS * j + p];
            }
        for (uint32_t p = 0; p < PARTS; p++)
            for (uint32_t b = 0; b < 2; b++) {
                const float *row = b ? second : first;
                const lanes shift = moved[PARTS * b + p];
                if (i < taps)
                    total[b][p] +=
                        vector[PARTS * i + p] * (inner[b][p] + inner[b][p] + row[i] * vector[PARTS * i + p]);
                else if (i == taps)
                    total[b][p] += shift * (inner[b][p] + inner[b][p] + row[i] * shift);
                else
                    total[b][p] += 2.0f * (inner[b][p] + row[taps] * shift) + row[i];
            }
    }
    memcpy(out, total, sizeof total);
}
