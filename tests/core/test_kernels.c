/* SPDX-License-Identifier: Apache-2.0
 * test_kernels.c: every kernel of every tier this machine has gives the bits of the scalar tier; gemm gives the bits of gemv; an
 * int8 product equals the sum in double of unpacked weights and codes. Odd tails included. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "check.h"
#include "kernels/kernels.h"
#include "random_rows.h"

enum { MAX_K = 1536, MAX_TOKENS = 29, MAX_ROWS = 48 };

static _Alignas(64) uint8_t packed[MAX_ROWS * MAX_K * 4 + 4096 + 65536];
static _Alignas(64) uint8_t file_rows[MAX_ROWS * MAX_K * 4];

static float bf16_round(float a) {
    return slm_bf16_to_f32(slm_f32_to_bf16(a));
}

static bool same(const void *a, const void *b, size_t size) {
    return memcmp(a, b, size) == 0;
}

/* largest: all bits of codes are set. */
static void random_matrix(slm_matrix *w, slm_type type, int64_t rows, int64_t k, bool largest) {
    slm_error error;
    CHECK(slm_matrix_describe(w, type, rows, k, false, &error) == SLM_OK);
    w->data = packed;
    random_rows(w, largest, file_rows);
    slm_matrix_pack(w, 0, w->n_panels, file_rows, rows);
}

/* ---- int8 linears ------------------------------------------------------------------------------------------------------ */

static float x[MAX_TOKENS * MAX_K];
static int8_t codes[2][MAX_TOKENS * MAX_K];
static int32_t sums[2][MAX_TOKENS * MAX_K / 16];
static float scales[2][MAX_TOKENS * MAX_K / 16], scaled_sums[2][MAX_TOKENS * MAX_K / 16];

static slm_codes quantized(const slm_kernels *kernels, int slot, int64_t n_tokens, int64_t k, int group) {
    slm_codes out = {.k = k,
                     .group = group,
                     .codes = codes[slot],
                     .sums = sums[slot],
                     .scales = scales[slot],
                     .scaled_sums = scaled_sums[slot]};
    kernels->quantize(x, k, 0, n_tokens, 0, k, &out);
    return out;
}

static void test_quantize(const slm_kernels *tier) {
    for (int group = 16; group <= 32; group += 16) {
        int64_t k = 96;
        size_t n = (size_t)(5 * k), groups = n / (size_t)group;
        for (size_t i = 0; i < n; i++) x[i] = random_float() * expf(random_float() * 30);
        for (int64_t i = 0; i < k; i++) x[i] = 0;
        for (int64_t i = 0; i < k; i++) x[k + i] = 1e-44f * (float)(i % 7 - 3); /* subnormal */
        quantized(&slm_kernels_scalar, 0, 5, k, group);
        quantized(tier, 1, 5, k, group);
        CHECK(same(codes[0], codes[1], n));
        CHECK(same(sums[0], sums[1], groups * 4) && same(scales[0], scales[1], groups * 4) &&
              same(scaled_sums[0], scaled_sums[1], groups * 4));
        slm_codes parts = quantized(tier, 1, 5, k, group); /* again, by parts of rows */
        memset(codes[1], 1, n);
        memset(scales[1], 1, groups * 4);
        for (int64_t from = 0, end; from < k; from = end) {
            end = from ? k : 32;
            tier->quantize(x + from, k, 0, 3, from, end - from, &parts);
            tier->quantize(x + 3 * k + from, k, 3, 5, from, end - from, &parts);
        }
        CHECK(same(codes[0], codes[1], n) && same(scales[0], scales[1], groups * 4));
        for (size_t g = 0; g < groups; g++) {
            int32_t sum = 0;
            for (size_t i = 0; i < (size_t)group; i++) sum += codes[1][g * (size_t)group + i];
            CHECK(sum == sums[1][g]);
            float most = 0;
            for (size_t i = 0; i < (size_t)group; i++) most = fmaxf(most, fabsf(x[g * (size_t)group + i]));
            CHECK(scales[1][g] == most / 127.0f);
        }
        x[3] = NAN;
        x[k + 40] = INFINITY;
        quantized(tier, 1, 2, k, group);
        CHECK(isnan(scales[1][0]) && isnan(scales[1][(k + 40) / group]));
    }
}

/* All rows of a matrix, two panels at once and the last of an odd number alone. */
static void multiply_strips(const slm_kernels *tier, const slm_matrix *w, const slm_codes *in, int64_t n_tokens, float *y,
                            int64_t ldy) {
    static _Alignas(64) uint8_t strip_codes[SLM_STRIPS][MAX_K * 16];
    static _Alignas(64) float d[SLM_STRIPS][MAX_K], m[SLM_STRIPS][MAX_K];
    for (int64_t p = 0; p < w->n_panels; p += SLM_STRIPS) {
        slm_strip strips[SLM_STRIPS];
        int n = p + SLM_STRIPS <= w->n_panels ? SLM_STRIPS : 1;
        for (int i = 0; i < n; i++) tier->unpack(w, p + i, in->group, strip_codes[i], d[i], m[i], &strips[i]);
        tier->gemm(strips, n, in, 0, n_tokens, y + p * 16, ldy);
    }
}

/* A screened matrix holds the same weights: the same rows and products; all tiers screen alike. */
static void test_screened(const slm_kernels *tier, int64_t rows, int64_t k, int64_t n_tokens, int group, bool largest) {
    static _Alignas(64) uint8_t apart[sizeof packed];
    static float d[MAX_K / 32];
    static float y[3][MAX_TOKENS * MAX_ROWS], found[2][2][MAX_ROWS / 16], row[2][MAX_K];
    slm_matrix w, screened;
    random_matrix(&w, SLM_TYPE_Q8_0, rows, k, largest);
    screened = w;
    CHECK(slm_matrix_screen(&screened));
    CHECK(slm_matrix_bytes(&screened) == slm_matrix_bytes(&w) + (size_t)(w.n_panels * k / 2));
    screened.data = apart;
    slm_matrix_pack(&screened, 0, w.n_panels, file_rows, rows);
    for (int64_t r = 0; r < rows; r++) {
        slm_matrix_row(&w, r, row[0]);
        slm_matrix_row(&screened, r, row[1]);
        CHECK(same(row[0], row[1], (size_t)k * 4));
    }
    for (int64_t i = 0; i < n_tokens * k; i++) x[i] = largest ? (i / k % 2 ? -1.0f : 1.0f) : random_float();
    slm_codes in = quantized(&slm_kernels_scalar, 0, n_tokens, k, group);
    int64_t ldy = w.n_panels * 16;
    slm_kernels_scalar.gemv(&w, 0, w.n_panels, &in, 0, n_tokens, NULL, y[0], ldy);
    tier->gemv(&screened, 0, w.n_panels, &in, 0, n_tokens, NULL, y[1], ldy);
    multiply_strips(tier, &screened, &in, n_tokens, y[2], ldy);
    CHECK(same(y[0], y[1], (size_t)(n_tokens * ldy) * 4));
    CHECK(same(y[0], y[2], (size_t)(n_tokens * ldy) * 4));
    if (group == 16) return;
    for (int64_t g = 0; g < k / 32; g++) d[g] = fabsf(random_float());
    slm_kernels_scalar.screen(&screened, 0, w.n_panels, &in, d, 1e4f, found[0][0], found[0][1]);
    tier->screen(&screened, 0, w.n_panels, &in, d, 1e4f, found[1][0], found[1][1]);
    for (int i = 0; i < 2; i++) CHECK(same(found[0][i], found[1][i], (size_t)w.n_panels * 4));
}

/* largest: sums of products become as large as they can. */
static void test_int8(const slm_kernels *tier, slm_type type, int64_t rows, int64_t k, int64_t n_tokens, int group,
                      bool largest) {
    static float y[3][MAX_TOKENS * MAX_ROWS];
    slm_matrix w;
    random_matrix(&w, type, rows, k, largest);
    for (int64_t i = 0; i < n_tokens * k; i++) x[i] = largest ? (i / k % 2 ? -1.0f : 1.0f) : random_float();
    slm_codes in = quantized(&slm_kernels_scalar, 0, n_tokens, k, group);
    int64_t ldy = w.n_panels * 16, file_bytes = ldy * (int64_t)slm_matrix_row_bytes(&w);
    CHECK((int64_t)slm_matrix_bytes(&w) < file_bytes + 64 * w.n_panels); /* the file's bits and no more, but to whole lines */
    CHECK(w.panel_bytes - (size_t)(k / 32 * slm_panel_step(w.coding, false)) < 64);
    for (int64_t t = 0; t < n_tokens; t++) {
        slm_kernels_scalar.gemv(&w, 0, w.n_panels, &in, t, 1, NULL, y[0] + t * ldy, 0);
    }
    int64_t whole = n_tokens > 2 ? n_tokens - 1 : n_tokens; /* tokens from the first on and from another one */
    tier->gemv(&w, 0, w.n_panels, &in, 0, whole, NULL, y[1], ldy);
    if (whole < n_tokens) tier->gemv(&w, 0, w.n_panels, &in, whole, 1, NULL, y[1] + whole * ldy, ldy);
    multiply_strips(tier, &w, &in, n_tokens, y[2], ldy);
    CHECK(same(y[0], y[1], (size_t)(n_tokens * ldy) * 4));
    CHECK(same(y[0], y[2], (size_t)(n_tokens * ldy) * 4));
    float row[MAX_K], row_d, row_m[MAX_K / 16];
    for (int64_t r = 0; r < rows; r++) {
        slm_matrix_row(&w, r, row);
        for (int64_t g = 0; g < k / w.coding.group; g++)
            slm_row_scales(&w, slm_matrix_panel(&w, r / 16), g, (int)(r % 16), &row_d, &row_m[g]);
        for (int64_t t = 0; t < n_tokens; t++) {
            double exact = 0, size = 0; /* size: of the terms of codes and of minimums, which may cancel */
            for (int64_t i = 0; i < k; i++) {
                double activation = in.codes[t * k + i] * (double)in.scales[(t * k + i) / group];
                double minimum = row_m[i / w.coding.group];
                exact += row[i] * activation;
                size += (fabs(row[i] - minimum) + fabs(minimum)) * fabs(activation);
            }
            CHECK(fabs(y[1][t * ldy + r] - exact) <= (size + 1e-30) * 1e-5);
        }
        if (checks_failed > 20) return;
    }
    for (int64_t r = rows; r < ldy; r++) CHECK(y[1][r] == 0);
}

/* The chain over f32 activations gives the bits of an F32 matrix that holds what the codes stand for. */
static void test_gemm_float(const slm_kernels *tier, slm_type type, int64_t rows, int64_t k, int64_t n_tokens) {
    static float y[2][MAX_TOKENS * MAX_ROWS], values[MAX_ROWS * MAX_K];
    static _Alignas(64) uint8_t strip_codes[MAX_K * 16];
    static _Alignas(64) float d[MAX_K], m[MAX_K];
    slm_matrix w;
    slm_strip strip;
    slm_error error;
    random_matrix(&w, type, rows, k, false);
    for (int64_t i = 0; i < n_tokens * k; i++) x[i] = random_float();
    int64_t ldy = w.n_panels * 16;
    for (int64_t r = 0; r < rows; r++) slm_matrix_row(&w, r, values + r * k);
    for (int64_t p = 0; p < w.n_panels; p++) {
        tier->unpack(&w, p, w.coding.group, strip_codes, d, m, &strip);
        tier->gemm_float(&strip, x, k, n_tokens, y[0] + p * 16, ldy);
    }
    CHECK(slm_matrix_describe(&w, SLM_TYPE_F32, rows, k, false, &error) == SLM_OK);
    w.data = packed;
    slm_matrix_pack(&w, 0, w.n_panels, (const uint8_t *)values, rows);
    for (int64_t p = 0; p < w.n_panels; p++)
        slm_kernels_scalar.linear_float(&w, p, p + 1, x, k, n_tokens, false, y[1] + p * 16, ldy);
    for (int64_t t = 0; t < n_tokens; t++) CHECK(same(y[0] + t * ldy, y[1] + t * ldy, (size_t)rows * 4));
}

/* Rows that fill the last panel or not, columns of few and of many blocks, tokens for every tile, both groups of activations. */
static void test_type(const slm_kernels *tier, slm_type type) {
    int64_t block = slm_type_block(type), columns[] = {block, 2 * block, 3 * block, block == 32 ? 576 : 1280};
    static const int64_t rows[] = {1, 7, 40, 9}; /* of the last panel 1, 7, 8 and 9 */
    bool coarse = slm_type_of(type)->coding.group == 32;
    for (int c = 0; c < 4; c++) {
        for (int64_t n = 1; n <= MAX_TOKENS; n += n < 13 ? 1 : 8) {
            test_int8(tier, type, rows[c], columns[c], n, coarse && n % 2 ? 32 : 16, false);
            if (type == SLM_TYPE_Q8_0) test_screened(tier, rows[c], columns[c], n, n % 2 ? 32 : 16, n == 2);
        }
        test_gemm_float(tier, type, 16 * c + 1 - c / 3, columns[c], 7 + c);
    }
    test_int8(tier, type, MAX_ROWS, MAX_K, 2, coarse ? 32 : 16, false);
    for (int group = coarse ? 32 : 16; group >= 16; group -= 16) test_int8(tier, type, 16, 2 * block, 4, group, true);
}

/* ---- float kernels ------------------------------------------------------------------------------------------------------- */

static float factor(float v) {
    return fabsf(v) < 0x1p-56f ? 0 : bf16_round(v);
}

/* factors: a product with bf16 factors. */
static void test_float(const slm_kernels *tier, slm_type type, bool factors, int64_t rows, int64_t k, int64_t n_tokens) {
    static float y[2][MAX_TOKENS * MAX_ROWS], values[MAX_ROWS * MAX_K];
    static _Alignas(64) uint8_t part_packed[(MAX_ROWS + 16) * MAX_K * 4];
    slm_matrix w;
    random_matrix(&w, type, rows, k, false);
    int64_t ldx = (k + 15) / 16 * 16, ldy = w.n_panels * 16;
    memset(x, 0, sizeof x);
    for (int64_t t = 0; t < n_tokens; t++) {
        for (int64_t i = 0; i < k; i++) x[t * ldx + i] = factors ? random_small() : random_float();
    }
    const slm_kernels *both[] = {&slm_kernels_scalar, tier};
    for (int i = 0; i < 2; i++) {
        static float rounded[MAX_TOKENS * MAX_K];
        for (int64_t t = 0; t < n_tokens; t++) both[i]->round_bf16(x + t * ldx, ldx, rounded + t * ldx);
        int64_t step = i ? w.n_panels : 1; /* of the tier all panels at once */
        for (int64_t p = 0; p < w.n_panels && !factors; p += step)
            both[i]->linear_float(&w, p, p + step, x, ldx, n_tokens, false, y[i] + p * 16, ldy);
        if (factors) both[i]->linear_bf16(&w, 0, w.n_panels, rounded, ldx, n_tokens, y[i], ldy);
    }
    CHECK(same(y[0], y[1], (size_t)(n_tokens * ldy) * 4));
    float row[MAX_K];
    for (int64_t r = 0; r < rows; r++) {
        slm_matrix_row(&w, r, row);
        for (int64_t t = 0; t < n_tokens; t++) {
            double exact = 0, size = 0;
            for (int64_t i = 0; i < k; i++) {
                double product = (double)row[i] * (factors ? factor(x[t * ldx + i]) : x[t * ldx + i]);
                exact += product, size += fabs(product);
            }
            CHECK(fabs(y[1][t * ldy + r] - exact) <= size * 1e-4 + 1e-30);
        }
    }
    /* Chains that go on from what is there: those of all columns in two parts. */
    int64_t half = factors ? 0 : k / 2 / 16 * 16;
    slm_matrix part;
    slm_error error;
    for (int i = 0; i < 2 && half; i++) {
        int64_t begin = i ? half : 0, width = i ? k - half : half;
        CHECK(slm_matrix_describe(&part, SLM_TYPE_F32, rows, width, false, &error) == SLM_OK);
        for (int64_t r = 0; r < rows; r++) {
            slm_matrix_row(&w, r, row);
            memcpy(values + r * width, row + begin, (size_t)width * sizeof *values);
        }
        part.data = part_packed;
        slm_matrix_pack(&part, 0, part.n_panels, (const uint8_t *)values, rows);
        tier->linear_float(&part, 0, part.n_panels, x + begin, ldx, n_tokens, i == 1, y[0], ldy);
    }
    if (half) CHECK(same(y[0], y[1], (size_t)(n_tokens * ldy) * 4));
}

static double activation(slm_activation act, double v) {
    switch (act) {
    case SLM_ACTIVATION_GELU: return v / 2 * erfc(-v / sqrt(2));
    case SLM_ACTIVATION_GELU_TANH: return v / (1 + exp(-2 * sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    case SLM_ACTIVATION_RELU2: return v > 0 ? v * v : 0;
    default: return v / (1 + exp(-v));
    }
}

static void test_layer_norm(const slm_kernels *tier, const float *in, const float *weight, int64_t n) {
    static _Alignas(64) float out[2][528], bias[528];
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) bias[i] = random_float(), mean += (double)in[i] / (double)n;
    for (int64_t i = n; i < 528; i++) bias[i] = 0;
    for (int64_t i = 0; i < n; i++) squares += (in[i] - mean) * (in[i] - mean);
    for (int with = 0; with < 2; with++) {
        memset(out, 0, sizeof out);
        slm_kernels_scalar.layer_norm(in, weight, with ? bias : NULL, n, 1e-5f, out[0]);
        tier->layer_norm(in, weight, with ? bias : NULL, n, 1e-5f, out[1]);
        CHECK(same(out[0], out[1], sizeof out[0]));
        for (int64_t i = 0; i < n; i++) {
            double expected = (in[i] - mean) / sqrt(squares / (double)n + 1e-5) * weight[i] + (with ? bias[i] : 0);
            CHECK(fabs(out[1][i] - expected) < 1e-5);
        }
        for (int64_t i = n; i < 528; i++) CHECK(out[1][i] == 0);
    }
}

/* tanh against libm near 0, where the series changes, and far out; lengths with a tail write nothing behind it. */
static void test_soft_cap(const slm_kernels *tier) {
    static float in[1000], out[2][1001];
    for (int i = 0; i < 1000; i++) in[i] = (i % 2 ? 1.0f : -1.0f) * powf(10, -6 + 0.009f * (float)i);
    for (int64_t n = 985; n <= 1000; n++) {
        const slm_kernels *both[2] = {&slm_kernels_scalar, tier};
        for (int i = 0; i < 2; i++) {
            memcpy(out[i], in, sizeof in);
            out[i][1000] = 7;
            both[i]->soft_cap(out[i], 30, n);
        }
        CHECK(same(out[0], out[1], sizeof out[0]) && out[1][1000] == 7);
        for (int64_t i = 0; i < n; i++) {
            double expected = 30 * tanh(in[i] / 30.0);
            CHECK(fabs(out[1][i] - expected) <= 5e-7 * fabs(expected));
        }
        for (int64_t i = n; i < 1000; i++) CHECK(out[1][i] == in[i]);
    }
}

static void test_vectors(const slm_kernels *tier) {
    static _Alignas(64) float a[2][528], b[528], weight[528];
    for (int64_t n = 1; n <= 520; n = n * 2 + 1) {
        int64_t padded = (n + 15) / 16 * 16;
        memset(a, 0, sizeof a), memset(b, 0, sizeof b), memset(weight, 0, sizeof weight);
        for (int64_t i = 0; i < n; i++) b[i] = random_float() * 20, weight[i] = random_float();
        const slm_kernels *both[2] = {&slm_kernels_scalar, tier};
        for (int i = 0; i < 2; i++) both[i]->rms_norm(b, weight, n, 1e-5f, a[i]);
        CHECK(same(a[0], a[1], sizeof a[0]));
        double squares = 0;
        for (int64_t i = 0; i < n; i++) squares += (double)b[i] * b[i];
        for (int64_t i = 0; i < n; i++) CHECK(fabs(a[1][i] - b[i] / sqrt(squares / (double)n + 1e-5) * weight[i]) < 1e-5);
        test_layer_norm(tier, b, weight, n);
        for (slm_activation act = SLM_ACTIVATION_SILU; act <= SLM_ACTIVATION_RELU2; act++) {
            tier->activate(act, b, NULL, 1, padded, a[1], 0);
            for (int64_t i = 0; i < n; i++) {
                double expected = activation(act, b[i]);
                CHECK(fabs(a[1][i] - expected) < 4e-7 * fabs(expected) + 2e-7);
            }
            for (int i = 0; i < 2; i++) both[i]->activate(act, b, weight, 1, padded, a[i], 0);
            CHECK(same(a[0], a[1], sizeof a[0]));
            for (int64_t i = 0; i < n; i++) {
                double expected = activation(act, b[i]) * weight[i];
                CHECK(fabs(a[1][i] - expected) < 5e-7 * fabs(expected) + 3e-7);
            }
        }
        for (int i = 0; i < 2; i++) both[i]->add(a[i], b, padded), both[i]->scale(a[i], 0.7f, padded);
        CHECK(same(a[0], a[1], sizeof a[0]));
        CHECK(tier->all_finite(b, n));
        b[n - 1] = n % 2 ? NAN : INFINITY;
        CHECK(!tier->all_finite(b, n));
    }
    for (int i = 0; i < 96; i++) b[i] = random_float(), a[0][i] = a[1][i] = -1; /* three rows of 32, 48 apart */
    tier->activate(SLM_ACTIVATION_GELU, b, NULL, 3, 32, a[0], 48);
    for (int r = 0; r < 3; r++) tier->activate(SLM_ACTIVATION_GELU, b + 32 * r, NULL, 1, 32, a[1] + 48 * r, 0);
    CHECK(same(a[0], a[1], sizeof a[0]) && a[0][32] == -1);
    b[0] = NAN;
    for (slm_activation act = SLM_ACTIVATION_SILU; act <= SLM_ACTIVATION_RELU2; act++) {
        tier->activate(act, b, weight, 1, 16, a[0], 0);
        CHECK(isnan(a[0][0]));
    }
    test_soft_cap(tier);
}

/* ---- attention --------------------------------------------------------------------------------------------------------------
 */

/* Element i of a head at one position of an int8 panel of keys or page of values: a code and its group's scale. Returns what they
 * stand for. */
static float put_int8(uint8_t *data, int64_t i, int64_t position, int64_t n_positions, int64_t size, bool key) {
    float scale = ldexpf(0.01f, (int)(position % 5 - i / 32 % 3));
    int8_t code = (int8_t)(random_u32() % 255 - 127);
    data[key ? i * n_positions + position : position * size + i] = (uint8_t)code;
    memcpy(data + n_positions * size + (i / 32 * n_positions + position) * 4, &scale, 4);
    return scale * (float)code;
}

/* A factor of attention, as large as can be, or so small that a product's last place is hardly a normal number. */
static float random_factor(bool small) {
    float factor = ldexpf(random_float(), small ? -48 - (int)(random_u32() % 16) : 0);
    return slm_bf16_to_f32(slm_f32_to_bf16_factor(factor));
}

/* The kernels may run rows together and panels together: each count of both. */
static void test_attention(const slm_kernels *tier, slm_kv_type type, int64_t head_dim) {
    enum { ROWS = 7, POSITIONS = 64, MOST_DIM = 320 };
    static float k[POSITIONS][MOST_DIM], v[POSITIONS][MOST_DIM], q[ROWS * MOST_DIM], scores[2][ROWS * POSITIONS],
        out[2][ROWS * MOST_DIM], alone[ROWS * MOST_DIM], max[2], sum[2];
    static _Alignas(64) uint8_t k_panels[POSITIONS * MOST_DIM * 4], v_pairs[POSITIONS * MOST_DIM * 4];
    bool bf16 = type == SLM_KV_BF16;
    int64_t width = (head_dim + 15) / 16 * 16;
    size_t panel = (size_t)(type == SLM_KV_INT8 ? head_dim * 16 + (head_dim + 31) / 32 * 64 : head_dim * 16 * (bf16 ? 2 : 4));
    memset(v_pairs, 0, sizeof v_pairs);
    for (int64_t p = 0; p < POSITIONS; p++) {
        for (int64_t i = 0; i < head_dim; i++) {
            k[p][i] = random_factor(p % 2), v[p][i] = random_factor(i % 2);
            if (type == SLM_KV_INT8) {
                k[p][i] = put_int8(k_panels + (size_t)(p / 16) * panel, i, p % 16, 16, head_dim, true);
                v[p][i] = put_int8(v_pairs, i, p, POSITIONS, width, false);
            } else if (bf16) {
                uint16_t k16 = slm_f32_to_bf16(k[p][i]), v16 = slm_f32_to_bf16(v[p][i]);
                memcpy(k_panels + (((p / 16 * head_dim / 2 + i / 2) * 16 + p % 16) * 2 + i % 2) * 2, &k16, 2);
                memcpy(v_pairs + ((p / 2 * width + i) * 2 + p % 2) * 2, &v16, 2);
            } else {
                memcpy(k_panels + ((p / 16 * head_dim + i) * 16 + p % 16) * 4, &k[p][i], 4);
                memcpy(v_pairs + (p * width + i) * 4, &v[p][i], 4);
            }
        }
    }
    for (int64_t i = 0; i < ROWS * width; i++) q[i] = random_factor(i / width % 2);
    const slm_kernels *both[2] = {&slm_kernels_scalar, tier};
    for (int t = 0; t < 2; t++)
        both[t]->attention_scores(q, width, ROWS, k_panels, type, head_dim, POSITIONS / 16, scores[t], POSITIONS);
    CHECK(same(scores[0], scores[1], sizeof scores[0]));
    for (int64_t rows = 1; rows <= ROWS; rows++) {
        for (int64_t n = 1, p = POSITIONS / 16 - 1; p >= 0; p--, n++) {
            memset(alone, 0, sizeof alone);
            tier->attention_scores(q, width, rows, k_panels + (size_t)p * panel, type, head_dim, n, alone, POSITIONS);
            for (int64_t r = 0; r < rows; r++)
                CHECK(same(alone + r * POSITIONS, scores[0] + r * POSITIONS + p * 16, (size_t)n * 64));
            for (int64_t i = rows * POSITIONS; i < ROWS * MOST_DIM; i++) CHECK(alone[i] == 0);
        }
    }
    double exact = 0;
    for (int64_t i = 0; i < head_dim; i++) exact += (double)q[2 * width + i] * k[37][i];
    CHECK(fabs(exact - scores[1][2 * POSITIONS + 37]) < 1e-4);
    int64_t valid = 51, padded = 64, n = 52;
    memset(out, 0, sizeof out);
    for (int t = 0; t < 2; t++) {
        for (int r = 0; r < ROWS; r++)
            both[t]->attention_softmax(scores[t] + r * POSITIONS, 0, valid, padded, bf16, &max[t], &sum[t]);
        both[t]->attention_softmax(scores[t], 0, valid, padded, bf16, &max[t],
                                   &sum[t]); /* once more: a distribution of other numbers */
        both[t]->attention_values(scores[t], POSITIONS, ROWS, v_pairs, type, n, width, out[t], width);
    }
    CHECK(same(scores[0], scores[1], sizeof scores[0]) && same(max, max + 1, 4) && same(sum, sum + 1, 4) &&
          same(out[0], out[1], sizeof out[0]));
    for (int64_t p = valid; p < padded; p++) CHECK(scores[1][POSITIONS + p] == 0);
    for (int64_t i = 0; i < head_dim; i++) {
        exact = 0;
        for (int64_t p = 0; p < n; p++) exact += (double)scores[1][2 * POSITIONS + p] * v[p][i];
        CHECK(fabs(exact - out[1][2 * width + i]) < 1e-4);
    }
    for (int64_t rows = 1; rows <= ROWS; rows++) {
        memset(alone, 0, sizeof alone);
        tier->attention_values(scores[0], POSITIONS, rows, v_pairs, type, n - 1, width, alone, width); /* ends within a pair */
        int64_t at = type == SLM_KV_INT8 ? 0 : bf16 ? n - 2 : n - 1; /* where the last position can be reached from */
        const uint8_t *last = v_pairs + at * width * (bf16 ? 2 : 4);
        float rest[ROWS * 64] = {0};
        for (int64_t r = 0; r < rows; r++) rest[r * 64 + n - 1 - at] = scores[0][r * POSITIONS + n - 1];
        tier->attention_values(rest, 64, rows, last, type, n - at, width, alone, width);
        CHECK(same(alone, out[0], (size_t)(rows * width) * sizeof *alone));
    }

    float merged[2][MOST_DIM], running_max[2], running_sum[2], fresh[MOST_DIM];
    for (int i = 0; i < MOST_DIM; i++) fresh[i] = random_float();
    for (int t = 0; t < 2; t++) {
        running_max[t] = -INFINITY, running_sum[t] = 0;
        memset(merged[t], 0, sizeof merged[t]);
        both[t]->attention_merge(&running_max[t], &running_sum[t], merged[t], -3.0f, 2.5f, fresh, MOST_DIM);
        CHECK(same(merged[t], fresh, sizeof fresh) && running_max[t] == -3.0f &&
              running_sum[t] == 2.5f); /* the first segment is taken as it is */
        both[t]->attention_merge(&running_max[t], &running_sum[t], merged[t], -1.0f, 1.5f, q, 128);
    }
    CHECK(same(merged[0], merged[1], sizeof fresh) && same(running_sum, running_sum + 1, 4) &&
          same(running_max, running_max + 1, 4));
    CHECK(fabs(running_sum[1] - (2.5 * exp(-2) + 1.5)) < 1e-6 && running_max[1] == -1.0f);
}

static void test_softmax_exact(const slm_kernels *tier) {
    float s[64], copy[64], max, sum;
    for (int i = 0; i < 64; i++) s[i] = copy[i] = random_float() * 40;
    tier->attention_softmax(s, 0, 50, 64, false, &max, &sum);
    double total = 0, top = -INFINITY;
    for (int i = 0; i < 50; i++) top = fmax(top, copy[i]);
    for (int i = 0; i < 50; i++) {
        double exact = exp(copy[i] - (float)top);
        total += exact;
        CHECK(fabs(s[i] - exact) <= 2e-7 * exact + 1e-37);
    }
    CHECK(max == (float)top && fabs(sum - total) < 1e-5 * total);
}

int main(int argc, char **argv) {
    const slm_kernels *tier;
    for (int i = 0; (tier = slm_kernels_tier(i)); i++) {
        if (!asked_for(tier->name, argc, argv)) continue;
        long before = checks_passed;
        test_quantize(tier);
        for (slm_type type = SLM_TYPE_Q8_0; type < SLM_TYPE_COUNT; type++) test_type(tier, type);
        slm_type floats[] = {SLM_TYPE_F32, SLM_TYPE_F16, SLM_TYPE_BF16};
        for (int64_t n = 1; n <= 9; n++) {
            for (int t = 0; t < 3; t++) test_float(tier, floats[t], false, 15 + n, 29 + n, n);
            for (int64_t wide = 0; wide < 2; wide++)
                test_float(tier, SLM_TYPE_BF16, true, 15 + n + wide * 61, 29 + n + wide * 200, n);
        }
        test_vectors(tier);
        const int64_t head_dims[] = {2, 20, 38, 56, 64, 74, 80, 96, 110, 128, 256, 320};
        for (size_t d = 0; d < sizeof head_dims / sizeof *head_dims; d++) {
            for (slm_kv_type type = SLM_KV_F32; type <= SLM_KV_INT8; type++) test_attention(tier, type, head_dims[d]);
        }
        test_softmax_exact(tier);
        printf("%s: %ld checks\n", tier->name, checks_passed - before);
    }
    return finish();
}
