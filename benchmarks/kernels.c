/* SPDX-License-Identifier: Apache-2.0
 * kernels.c: what each kernel reads and multiplies per clock cycle, on one thread; kernels.py builds it, runs it and draws the
 * table.
 *
 *     kernels SECONDS MEGABYTES TIER      how long a figure takes, and the size of a matrix that no cache holds
 *
 * Prints lines `type <tab> what <tab> figure`. The clock is counted as a chain of dependent additions, one cycle each,
 * run before and after every piece of work: a virtual machine tells no frequency, and it changes with load. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/alloc.h"
#include "base/call.h"
#include "base/half.h"
#include "kernels/kernels.h"

enum {
    K = 1024,
    TOKENS = SLM_PREFILL_CHUNK, /* of a GEMM: with their scales they fill a third of 1 MB of L2 */
    NEAR_BYTES = 1 << 19,       /* of a matrix that stays in L2 */
    PANELS = 64,                /* of one column that a GEMV is called with at once, as ops/linear.c does */
    BF16_PANELS = 4,            /* of many columns, likewise */
    MOST_COLUMNS = 16,          /* of a GEMV */
    PIECES = 9,                 /* of one figure; the median counts */
    CHAIN = 20000,              /* additions */
};

static double seconds_per_figure;
static size_t far_bytes;

/* ---- the clock --------------------------------------------------------------------------------------------------------- */

static double chain_rate(void) { /* cycles per second */
    uint64_t sum = 1, one = 1;
    double start = slm_seconds();
    for (int i = 0; i < CHAIN; i += 20) {
#pragma GCC unroll 20
        for (int j = 0; j < 20; j++) {
#if defined(__x86_64__)
            __asm__ volatile("add %1, %0" : "+r"(sum) : "r"(one));
#else
            __asm__ volatile("add %0, %0, %1" : "+r"(sum) : "r"(one));
#endif
        }
    }
    return CHAIN / (slm_seconds() - start);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef void (*work)(void *arg);

/* Median cycles of one call; *seconds, if not NULL: its median time. */
static double cycles_of(work run, void *arg, double *seconds) {
    double start = slm_seconds();
    run(arg); /* warm */
    double once = slm_seconds() - start, spent = 0, cycles[PIECES], times[PIECES];
    int64_t calls = (int64_t)(seconds_per_figure / PIECES / once) + 1;
    int n = 0;
    for (; n < PIECES && spent < 10 * seconds_per_figure; n++) {
        double before = chain_rate();
        start = slm_seconds();
        for (int64_t j = 0; j < calls; j++) run(arg);
        spent += slm_seconds() - start;
        times[n] = (slm_seconds() - start) / (double)calls;
        cycles[n] = times[n] * (before + chain_rate()) / 2;
    }
    qsort(cycles, (size_t)n, sizeof *cycles, ascending);
    qsort(times, (size_t)n, sizeof *times, ascending);
    if (seconds) *seconds = times[n / 2];
    return cycles[n / 2];
}

/* ---- what the chip can do: products per cycle of independent instructions ------------------------------------------------ */

#if defined(__x86_64__)
enum { CHAINS = 12, PEAK_STEPS = 2000 };

#define PEAK(NAME, ISA, TYPE, ZERO, STEP)                                                                                        \
    __attribute__((target(ISA))) static void NAME(void *arg) {                                                                   \
        TYPE acc[CHAINS], a = ZERO, b = ZERO;                                                                                    \
        (void)arg;                                                                                                               \
        _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] = ZERO;                                                 \
        __asm__ volatile("" : "+v"(a), "+v"(b)); /* values that the compiler does not know */                                    \
        for (int step = 0; step < PEAK_STEPS; step++) {                                                                          \
            _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) {                                                          \
                acc[i] = STEP;                                                                                                   \
                __asm__ volatile("" : "+v"(acc[i]));                                                                             \
            }                                                                                                                    \
        }                                                                                                                        \
    }

PEAK(dots_bf16, SLM_AVX512_BF16, __m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(acc[i], (__m512bh)a, (__m512bh)b))
PEAK(dots_avx512, SLM_AVX512, __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(acc[i], a, b))
PEAK(fmas_avx512, SLM_AVX512, __m512, _mm512_setzero_ps(), _mm512_fmadd_ps(a, b, acc[i]))
PEAK(dots_avx2, SLM_AVX2, __m256i, _mm256_setzero_si256(), _mm256_maddubs_epi16(acc[i], b))
#if defined(SLM_AVX2_VNNI)
PEAK(dots_avx2_vnni, SLM_AVX2_VNNI, __m256i, _mm256_setzero_si256(), _mm256_dpbusd_avx_epi32(acc[i], a, b))
#endif
PEAK(fmas_avx2, SLM_AVX2, __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(a, b, acc[i]))

static void measure_peaks(const char *tier) {
    bool wide = !strncmp(tier, "avx512", 6);
    if (!wide && strncmp(tier, "avx2", 4)) return;
    work dots = wide ? dots_avx512 : dots_avx2;
#if defined(SLM_AVX2_VNNI)
    if (!strcmp(tier, "avx2_vnni")) dots = dots_avx2_vnni;
#endif
    double steps = (double)CHAINS * PEAK_STEPS;
    printf("-\tint8 peak\t%.2f\n", steps * (wide ? 64 : 32) / cycles_of(dots, NULL, NULL));
    if (!strcmp(tier, "avx512_bf16")) printf("-\tbf16 peak\t%.2f\n", steps * 32 / cycles_of(dots_bf16, NULL, NULL));
    printf("-\tf32 peak\t%.2f\n", steps * (wide ? 16 : 8) / cycles_of(wide ? fmas_avx512 : fmas_avx2, NULL, NULL));
}
#else
static void measure_peaks(const char *tier) {
    (void)tier;
}
#endif

/* ---- kernels ----------------------------------------------------------------------------------------------------------- */

static int8_t codes[TOKENS * K];
static int32_t sums[TOKENS * K / SLM_MIN_GROUP];
static float scales[TOKENS * K / SLM_MIN_GROUP], scaled_sums[TOKENS * K / SLM_MIN_GROUP];
static _Alignas(64) float x[TOKENS * K];
static _Alignas(64) uint8_t strip_codes[SLM_STRIPS][16 * K];
static _Alignas(64) float strip_d[SLM_STRIPS][16 * K / SLM_MIN_GROUP], strip_m[SLM_STRIPS][16 * K / SLM_MIN_GROUP];

typedef struct task {
    const slm_kernels *kernels;
    slm_matrix w;
    slm_codes in;
    slm_strip strips[SLM_STRIPS];
    int64_t n_tokens;
} task;

static float y[16 * BF16_PANELS * TOKENS > 16 * PANELS *MOST_COLUMNS ? 16 * BF16_PANELS *TOKENS : 16 * PANELS *MOST_COLUMNS];

static void run_gemv(void *arg) {
    task *t = arg;
    int64_t step = PANELS / t->n_tokens, n = t->w.n_panels;
    for (int64_t p = 0; p < n; p += step)
        t->kernels->gemv(&t->w, p, p + step < n ? p + step : n, &t->in, 0, t->n_tokens, NULL, y, step * 16);
}

static void run_gemm(void *arg) {
    task *t = arg;
    t->kernels->gemm(t->strips, SLM_STRIPS, &t->in, 0, TOKENS, y, 16 * SLM_STRIPS);
}

static void run_strip(void *arg) {
    task *t = arg;
    for (int i = 0; i < SLM_STRIPS; i++)
        t->kernels->unpack(&t->w, i, t->in.group, strip_codes[i], strip_d[i], strip_m[i], &t->strips[i]);
    run_gemm(arg);
}

static void run_float(void *arg) {
    task *t = arg;
    for (int64_t p = 0; p < t->w.n_panels; p++) t->kernels->linear_float(&t->w, p, p + 1, x, K, t->n_tokens, false, y, 16);
}

static void run_bf16(void *arg) {
    task *t = arg;
    int64_t step = t->n_tokens == 1 ? PANELS : BF16_PANELS, n = t->w.n_panels;
    for (int64_t p = 0; p < n; p += step)
        t->kernels->linear_bf16(&t->w, p, p + step < n ? p + step : n, x, K, t->n_tokens, y, step * 16);
}

static uint32_t random_bits(void) {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* Any codes under scales of about 1/16; floats in [-1, 1). */
static void fill_panel(const slm_matrix *w, uint8_t *panel) {
    uint16_t *half = (uint16_t *)panel;
    for (size_t i = 0; i < w->panel_bytes / 2; i++) half[i] = (uint16_t)random_bits();
    if (w->form == SLM_FORM_CODES) {
        size_t groups = K / (w->coding.factor_bits ? SLM_SUPERBLOCK : w->coding.group) * 16;
        for (size_t i = 0; i < groups; i++) {
            ((uint16_t *)panel)[i] = 0x2c00;
            if (w->coding.mins) ((uint16_t *)(panel + w->m_at))[i] = 0x2c00;
        }
        return;
    }
    for (size_t i = 0; i < w->panel_bytes / (w->form == SLM_FORM_F32 ? 4 : 2); i++) {
        float value = (float)random_bits() * 0x1p-23f - 1;
        if (w->form == SLM_FORM_F32) ((float *)panel)[i] = value;
        if (w->form == SLM_FORM_BF16) half[i] = slm_f32_to_bf16(value);
        if (w->form == SLM_FORM_F16) half[i] = (uint16_t)(half[i] % 0x3c00);
    }
}

/* As many panels of the type as fit. */
static bool make_matrix(slm_matrix *w, slm_type type, size_t bytes, uint8_t *data) {
    slm_error error;
    if (slm_matrix_describe(w, type, 16, K, false, &error) != SLM_OK) return false;
    int64_t n_panels = (int64_t)(bytes / w->panel_bytes);
    if (slm_matrix_describe(w, type, 16 * n_panels, K, false, &error) != SLM_OK) return false;
    w->data = data;
    fill_panel(w, data);
    for (int64_t p = 1; p < n_panels; p++) memcpy(data + (size_t)p * w->panel_bytes, data, w->panel_bytes);
    return true;
}

static void measure_type(const slm_kernels *kernels, slm_type type, uint8_t *data) {
    task t = {.kernels = kernels, .n_tokens = 1};
    const char *name = slm_type_of(type)->name;
    if (!make_matrix(&t.w, type, far_bytes, data)) exit(1);
    bool is_codes = t.w.form == SLM_FORM_CODES;
    work one = is_codes ? run_gemv : t.w.form == SLM_FORM_BF16 ? run_bf16 : run_float;
    t.in = (slm_codes){.k = K,
                       .group = is_codes ? t.w.coding.group : SLM_GROUP,
                       .codes = codes,
                       .sums = sums,
                       .scales = scales,
                       .scaled_sums = scaled_sums};
    kernels->quantize(x, K, 0, TOKENS, 0, K, &t.in);

    double seconds, bytes = (double)slm_matrix_bytes(&t.w), cycles = cycles_of(one, &t, &seconds);
    printf("%s\tmemory B/cycle\t%.3f\n", name, bytes / cycles);
    printf("%s\tmemory GB/s\t%.3f\n", name, bytes / seconds / 1e9);
    for (t.n_tokens = 4; is_codes && t.n_tokens <= MOST_COLUMNS; t.n_tokens *= 2)
        printf("%s\t%d columns\t%.3f\n", name, (int)t.n_tokens, bytes / cycles_of(one, &t, NULL));

    if (!make_matrix(&t.w, type, NEAR_BYTES, data)) exit(1);
    t.n_tokens = 1;
    printf("%s\tL2 B/cycle\t%.3f\n", name, (double)slm_matrix_bytes(&t.w) / cycles_of(one, &t, NULL));

    double products = 16.0 * K * TOKENS;
    t.n_tokens = TOKENS;
    if (!is_codes) {
        t.w.n_panels = t.w.form == SLM_FORM_BF16 ? BF16_PANELS : 1;
        printf("%s\tGEMM MAC/cycle\t%.3f\n", name, products * (double)t.w.n_panels / cycles_of(one, &t, NULL));
        return;
    }
    run_strip(&t);
    printf("%s\tGEMM MAC/cycle\t%.3f\n", name, SLM_STRIPS * products / cycles_of(run_gemm, &t, NULL));
    printf("%s\twith unpack\t%.3f\n", name, SLM_STRIPS * products / cycles_of(run_strip, &t, NULL));
    fflush(stdout);
}

static const slm_kernels *tier_named(const char *name) {
    const slm_kernels *kernels;
    for (int i = 0; (kernels = slm_kernels_tier(i)) && strcmp(kernels->name, name) != 0; i++) {}
    return kernels;
}

int main(int argc, char **argv) {
    const slm_kernels *kernels = argc == 4 ? tier_named(argv[3]) : NULL;
    seconds_per_figure = argc == 4 ? atof(argv[1]) : 0;
    far_bytes = argc == 4 ? (size_t)atoi(argv[2]) << 20 : 0;
    if (!kernels || seconds_per_figure <= 0 || far_bytes < NEAR_BYTES) return 2;
    uint8_t *data = slm_alloc_pages(far_bytes);
    double rate;
    slm_error error;
    if (!data) return 1;
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)random_bits() * 0x1p-23f - 1;
    if (slm_measure_bandwidth(far_bytes, 5, &(slm_call){.threads = 1}, &rate, &error) != SLM_OK) return 1;
    printf("-\tcolumns\t%d\n-\tread GB/s\t%.3f\n-\tGHz\t%.3f\n", TOKENS, rate / 1e9, chain_rate() / 1e9);
    measure_peaks(kernels->name);
    for (slm_type type = SLM_TYPE_NONE + 1; type < SLM_TYPE_COUNT; type++) measure_type(kernels, type, data);
    slm_free_pages(data, far_bytes);
    return 0;
}
