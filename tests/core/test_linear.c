/* SPDX-License-Identifier: Apache-2.0
 * test_linear.c: linears that run together, with an activation behind them, or quantized where they are made, give the bits of
 * the ops that they replace, each run by itself: on every tier of this machine, few tokens and many, by any number of threads. */
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "base/threads.h"
#include "check.h"
#include "kernels/kernels.h"
#include "ops/linear.h"
#include "random_rows.h"

enum { K = 256, MOST_ROWS = 256, MOST_TOKENS = 40, MOST_THREADS = 2, GROUPS = MOST_ROWS / 16 };

typedef struct run {
    const slm_kernels *kernels;
    slm_input input;
    slm_linears linears;
} run;

static void body(void *arg, slm_team *team) {
    static _Alignas(64) uint8_t codes[MOST_THREADS][SLM_STRIPS * 16 * K];
    static _Alignas(64) float d[MOST_THREADS][SLM_STRIPS * K], m[MOST_THREADS][SLM_STRIPS * K];
    static _Alignas(64) float y[MOST_THREADS][MOST_TOKENS * 64], gate[MOST_THREADS][MOST_TOKENS * 64];
    const run *r = arg;
    int i = team->index;
    slm_linear_scratch scratch = {.codes = codes[i], .d = d[i], .m = m[i], .y = y[i], .gate = gate[i]};
    slm_input input = r->input; /* every thread lowers the group by itself */
    int64_t begin, end;
    slm_team_range(team, input.n_tokens, &begin, &end);
    slm_linear_prepare(r->kernels, team, &input, &r->linears, begin, end);
    slm_team_barrier(team);
    slm_linear_run(r->kernels, team, &input, &r->linears, NULL, &scratch);
}

static slm_dense random_dense(slm_type type, int64_t rows, bool biased) {
    static uint8_t file_rows[MOST_ROWS * K * 4];
    slm_dense dense = {0};
    slm_error error;
    CHECK(slm_matrix_describe(&dense.w, type, rows, K, false, &error) == SLM_OK);
    dense.w.data = aligned_alloc(64, (slm_matrix_bytes(&dense.w) + 63) / 64 * 64);
    random_rows(&dense.w, false, file_rows);
    slm_matrix_pack(&dense.w, 0, dense.w.n_panels, file_rows, rows);
    if (!biased) return dense;
    float *bias = calloc((size_t)slm_round_up(rows, 16), sizeof *bias);
    for (int64_t i = 0; i < rows; i++) bias[i] = random_float();
    dense.bias = bias;
    return dense;
}

static void free_dense(slm_dense *dense) {
    free(dense->w.data);
    free((float *)dense->bias);
}

/* Random tokens; group: of their codes, the least that a linear of them needs. */
static slm_input random_input(int64_t n_tokens, int group) {
    static _Alignas(64) float x[MOST_TOKENS * K], rounded[MOST_TOKENS * K];
    static _Alignas(64) int8_t codes[MOST_TOKENS * K];
    static int32_t sums[MOST_TOKENS * GROUPS];
    static float scales[MOST_TOKENS * GROUPS], scaled_sums[MOST_TOKENS * GROUPS];
    for (int64_t i = 0; i < n_tokens * K; i++) x[i] = random_float();
    slm_codes room = {K, group, codes, sums, scales, scaled_sums};
    return (slm_input){.n_tokens = n_tokens, .k = K, .ldx = K, .x = x, .rounded = rounded, .codes = room};
}

static int least_group(const slm_dense *dense, int n) {
    int group = SLM_GROUP;
    for (int i = 0; i < n; i++)
        if (dense[i].w.form == SLM_FORM_CODES && dense[i].w.coding.group < group) group = dense[i].w.coding.group;
    return group;
}

static void run_alone(const slm_kernels *kernels, const slm_input *input, const slm_dense *dense, float *y, int64_t ldy) {
    run r = {kernels, *input, {1, {{.dense = dense, .y = y, .ldy = ldy}}}};
    slm_threads_run(1, NULL, body, &r);
}

/* ---- linears of one input ------------------------------------------------------------------------------------------------- */

static void test_together(const slm_kernels *kernels, const slm_type types[3], int64_t n_tokens) {
    static float expected[3][MOST_TOKENS * 96], found[3][MOST_TOKENS * 96];
    const int64_t rows[] = {88, 40, 48}, lds[] = {88, 48, 48}; /* rows end inside a panel, with room behind them and without */
    slm_dense dense[3];
    for (int i = 0; i < 3; i++) dense[i] = random_dense(types[i], rows[i], i == 0);
    run r = {kernels, random_input(n_tokens, SLM_GROUP), {.n = 3}};
    slm_input input = r.input;
    input.codes.group = least_group(dense, 3);
    for (int i = 0; i < 3; i++) {
        memset(expected[i], 0, sizeof expected[i]);
        run_alone(kernels, &input, &dense[i], expected[i], lds[i]);
        r.linears.at[i] = (slm_linear){.dense = &dense[i], .y = found[i], .ldy = lds[i]};
    }
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        memset(found, 0, sizeof found);
        slm_threads_run(threads, NULL, body, &r);
        CHECK(!memcmp(expected, found, sizeof found));
    }
    for (int i = 0; i < 3; i++) free_dense(&dense[i]);
}

/* ---- an activation, and quantizing ---------------------------------------------------------------------------------------- */

typedef struct quantized {
    int8_t codes[MOST_TOKENS * MOST_ROWS];
    int32_t sums[MOST_TOKENS * GROUPS];
    float scales[MOST_TOKENS * GROUPS], scaled_sums[MOST_TOKENS * GROUPS];
} quantized;

static slm_codes codes_in(quantized *q, int64_t k, int group) {
    memset(q, 0, sizeof *q);
    return (slm_codes){k, group, q->codes, q->sums, q->scales, q->scaled_sums};
}

static void test_activation(const slm_kernels *kernels, slm_type type, int64_t rows, int64_t n_tokens, bool gated) {
    static _Alignas(64) float up[MOST_TOKENS * MOST_ROWS], gate[MOST_TOKENS * MOST_ROWS], found[MOST_TOKENS * MOST_ROWS];
    static quantized whole, in_parts;
    slm_activation act = gated ? SLM_ACTIVATION_SILU : SLM_ACTIVATION_GELU_TANH;
    slm_dense dense[] = {random_dense(type, rows, !gated), random_dense(type, rows, false)};
    slm_linear fused = {.dense = &dense[0], .gate = gated ? &dense[1] : NULL, .act = &act, .y = found, .ldy = rows};
    run r = {kernels, random_input(n_tokens, SLM_GROUP), {1, {fused}}};
    int64_t width = slm_round_up(rows, 16);
    run_alone(kernels, &r.input, &dense[0], up, width);
    if (gated) run_alone(kernels, &r.input, &dense[1], gate, width);
    kernels->activate(act, gated ? gate : up, gated ? up : NULL, n_tokens, width, up, width);
    for (int threads = 1; threads <= MOST_THREADS; threads++) {
        memset(found, 0, sizeof found);
        slm_threads_run(threads, NULL, body, &r);
        bool same = true;
        for (int64_t t = 0; t < n_tokens; t++) same = same && !memcmp(up + t * width, found + t * rows, (size_t)rows * 4);
        CHECK(same);
    }

    /* What reads it next, rows wide. */
    slm_dense next = {0};
    slm_error error;
    if (slm_matrix_describe(&next.w, type, 16, rows, false, &error) == SLM_OK) {
        slm_linears linears = {1, {{.dense = &next}}};
        slm_input inner = {.n_tokens = n_tokens, .k = rows, .ldx = width, .codes = codes_in(&whole, rows, SLM_GROUP)};
        bool takes_codes = slm_linear_takes_codes(&inner, &linears);
        CHECK(takes_codes == (next.w.form == SLM_FORM_CODES && n_tokens > 16));
        if (takes_codes) {
            CHECK(inner.codes.group == least_group(&next, 1));
            kernels->quantize(up, width, 0, n_tokens, 0, rows, &inner.codes);
            for (int threads = 1; threads <= MOST_THREADS; threads++) {
                slm_codes codes = codes_in(&in_parts, rows, inner.codes.group);
                r.linears.at[0].codes = &codes;
                slm_threads_run(threads, NULL, body, &r);
                CHECK(!memcmp(&whole, &in_parts, sizeof whole));
            }
        }
    }
    free_dense(&dense[0]);
    free_dense(&dense[1]);
}

int main(int argc, char **argv) {
    /* Without and with minimums, in groups of 32 and of 16, scales in one level and in two; floats. */
    const slm_type types[] = {SLM_TYPE_Q8_0, SLM_TYPE_Q4_1, SLM_TYPE_Q4_K, SLM_TYPE_Q2_K,
                              SLM_TYPE_Q6_K, SLM_TYPE_F16,  SLM_TYPE_BF16};
    const slm_type mixed[] = {SLM_TYPE_Q4_K, SLM_TYPE_Q6_K, SLM_TYPE_IQ4_XS};
    const int64_t token_counts[] = {1, 3, 40};
    const slm_kernels *tier;
    CHECK(slm_linear_scratch_size(MOST_TOKENS) <= MOST_TOKENS * 64);
    for (int i = 0; (tier = slm_kernels_tier(i)); i++) {
        if (!asked_for(tier->name, argc, argv)) continue;
        long before = checks_passed;
        for (int n = 0; n < 3; n++) {
            test_together(tier, mixed, token_counts[n]);
            for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
                const slm_type same[] = {types[t], types[t], types[t]};
                test_together(tier, same, token_counts[n]);
                for (int gated = 0; gated < 2; gated++) {
                    test_activation(tier, types[t], MOST_ROWS, token_counts[n], gated);
                    test_activation(tier, types[t], 40, token_counts[n], gated);
                }
            }
        }
        printf("%s: %ld checks\n", tier->name, checks_passed - before);
    }
    return finish();
}
