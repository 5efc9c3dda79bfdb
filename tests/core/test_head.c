/* SPDX-License-Identifier: Apache-2.0
 * test_head.c: choosing among logits where they are computed, against all logits computed and then looked through: every form of
 * output layer, screened or not, ties, scales and caps, limits, allowed ids, masks, any number of tokens and threads; and
 * drawing. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "base/threads.h"
#include "check.h"
#include "generate/logprob.h"
#include "generate/sampler.h"
#include "kernels/kernels.h"
#include "ops/head.h"

enum { MOST_ROWS = 2600, MOST_COLS = 2048, MOST_GROUPS = MOST_COLS / 16, MOST_TOKENS = 21 };

static slm_matrix w;
static float bias[MOST_ROWS + 16];
static float limits[MOST_ROWS / 16 + 2 + 2 * 4];
static long n_screened, n_left; /* panels in all, and those that were not run */

/* What all rows give, and what is chosen. */
typedef struct run {
    const slm_kernels *kernels;
    slm_input input;
    slm_head head;
    slm_choice *choices; /* NULL: all logits */
    float *logits;       /* [n_tokens, rows] */
    slm_linear_scratch scratch[4];
    atomic_bool finite;
} run;

static void body(void *arg, slm_team *team) {
    run *r = arg;
    slm_linears linears = {1, {{.dense = r->head.dense, .y = r->logits, .ldy = w.rows}}};
    slm_input input = r->input; /* every thread lowers the group by itself */
    int64_t begin, end;
    slm_team_range(team, input.n_tokens, &begin, &end);
    slm_linear_prepare(r->kernels, team, &input, &linears, begin, end);
    slm_team_barrier(team);
    if (r->choices) {
        if (!slm_head_choose(r->kernels, team, &input, &r->head, r->choices, &r->scratch[team->index])) r->finite = false;
        return;
    }
    slm_linear_run(r->kernels, team, &input, &linears, NULL, &r->scratch[team->index]);
    slm_team_barrier(team);
    slm_team_range(team, input.n_tokens * w.rows, &begin, &end);
    if (!slm_head_finish(r->kernels, &r->head, r->logits + begin, end - begin)) r->finite = false;
}

/* ---- random heads -------------------------------------------------------------------------------------------------------- */

static void describe(slm_type type, int64_t rows, int64_t cols, bool screened) {
    slm_error error;
    CHECK(slm_matrix_describe(&w, type, rows, cols, false, &error) == SLM_OK);
    if (screened) CHECK(slm_matrix_screen(&w));
}

/* Packs random rows; every third is the same as an earlier one, so that logits tie. bad: a row with a scale that is NaN. */
static void make_head(slm_type type, int64_t rows, int64_t cols, bool screened, int64_t bad) {
    describe(type, rows, cols, screened);
    size_t row_bytes = slm_matrix_row_bytes(&w), block = (size_t)slm_type_block_bytes(type);
    uint8_t *file = malloc(row_bytes * (size_t)rows);
    for (int64_t r = 0; r < rows; r++) {
        uint8_t *row = file + row_bytes * (size_t)r;
        if (r > 20 && r % 3 == 0) {
            memcpy(row, file + row_bytes * (random_u32() % (uint32_t)r), row_bytes);
            continue;
        }
        for (size_t i = 0; i < row_bytes; i += block) {
            for (size_t j = 0; j < block; j++) row[i + j] = (uint8_t)random_u32();
            float x = random_float();
            uint16_t bf16 = slm_f32_to_bf16(x), scale = 0x2000 | (random_u32() & 0x83ff); /* f16 near 2^-7 */
            if (type == SLM_TYPE_F32) memcpy(row + i, &x, 4);
            if (type == SLM_TYPE_BF16) memcpy(row + i, &bf16, 2);
            for (size_t j = 0; slm_type_block(type) > 1 && j + 1 < block; j += 2) { /* wherever its scales are: all small */
                bool whole = type != SLM_TYPE_Q8_0 && type != SLM_TYPE_Q4_0 && type != SLM_TYPE_Q5_0;
                if (j == 0 || whole) memcpy(row + i + j, &scale, 2), scale = 0x2000 | (random_u32() & 0x83ff);
            }
            if (type == SLM_TYPE_F16) scale |= 0x1000, memcpy(row + i, &scale, 2);
        }
    }
    if (bad >= 0) {
        const uint16_t nan = 0x7e00;
        memcpy(file + row_bytes * (size_t)bad, &nan, 2);
    }
    w.data = aligned_alloc(64, (slm_matrix_bytes(&w) + 63) / 64 * 64);
    slm_matrix_pack(&w, 0, w.n_panels, file, rows);
    free(file);
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The definition, from all logits of one token. */
static int64_t expect(const float *logits, const slm_choice *c, float *values, int32_t *ids) {
    static float sorted[MOST_ROWS];
    int64_t n = 0, n_all = 0;
    for (int64_t i = 0; i < (c->allowed ? c->n_allowed : c->n_rows); i++) {
        int32_t id = c->allowed ? c->allowed[i] : (int32_t)i;
        if (c->mask && !(c->mask[id / 64] >> id % 64 & 1)) continue;
        ids[n_all] = id;
        sorted[n_all++] = logits[id];
    }
    qsort(sorted, (size_t)n_all, sizeof *sorted, by_value);
    float least = sorted[slm_min64(slm_max64(c->top, 1), n_all) - 1];
    for (int64_t i = 0; i < n_all && (c->top || !n); i++) {
        if (!(logits[ids[i]] >= least)) continue;
        values[n] = logits[ids[i]];
        ids[n++] = ids[i];
    }
    return n;
}

static void compare(run *r, const slm_choice *expected, const char *what) {
    for (int64_t t = 0; t < r->input.n_tokens; t++) {
        const slm_choice *e = &expected[t], *f = &r->choices[t];
        bool same = e->count == f->count && !memcmp(e->values, f->values, (size_t)e->count * sizeof *e->values) &&
                    !memcmp(e->ids, f->ids, (size_t)e->count * sizeof *e->ids);
        if (!CHECK(same)) printf("  %s: token %lld, top %lld\n", what, (long long)t, (long long)e->top);
    }
}

static slm_choice new_choice(int64_t n_rows, int64_t top) {
    size_t n = MOST_ROWS;
    return (slm_choice){.n_rows = n_rows,
                        .top = top,
                        .values = malloc(n * sizeof(float)),
                        .ids = malloc(n * sizeof(int32_t)),
                        .leading = malloc(n * sizeof(float))};
}

static void free_choice(slm_choice *c) {
    free(c->values), free(c->ids), free(c->leading);
}

static run new_run(const slm_kernels *kernels, int64_t cols, slm_precision precision) {
    static _Alignas(64) float x[MOST_TOKENS * MOST_COLS], rounded[MOST_TOKENS * MOST_COLS],
        scaled_sums[MOST_TOKENS * MOST_GROUPS];
    static _Alignas(64) int8_t codes[MOST_TOKENS * MOST_COLS];
    static int32_t sums[MOST_TOKENS * MOST_GROUPS];
    static float scales[MOST_TOKENS * MOST_GROUPS], logits[MOST_TOKENS * MOST_ROWS];
    static _Alignas(64) uint8_t unpacked[4][SLM_STRIPS * 16 * MOST_COLS];
    static float d[4][SLM_STRIPS * MOST_COLS], m[4][SLM_STRIPS * MOST_COLS], y[4][MOST_TOKENS * 64];
    run r = {.kernels = kernels,
             .input = {.k = cols,
                       .ldx = cols,
                       .precision = precision,
                       .x = x,
                       .rounded = rounded,
                       .codes = {.k = cols,
                                 .group = SLM_GROUP,
                                 .codes = codes,
                                 .sums = sums,
                                 .scales = scales,
                                 .scaled_sums = scaled_sums}},
             .logits = logits};
    for (int i = 0; i < 4; i++) r.scratch[i] = (slm_linear_scratch){.codes = unpacked[i], .d = d[i], .m = m[i], .y = y[i]};
    return r;
}

static void forget(slm_choice *c) {
    memset(c->values, 0x7f, MOST_ROWS * sizeof *c->values);
    memset(c->ids, 0x7f, MOST_ROWS * sizeof *c->ids);
    memset(c->leading, 0x7f, MOST_ROWS * sizeof *c->leading);
    for (int64_t i = 0; i < w.n_panels; i++) limits[i] = NAN;
    limits[w.n_panels] = 0;
}

/* After a choice of one token from a screened head: each panel has a limit that its logits do not exceed. */
static void check_limits(const run *r, const slm_choice *c) {
    bool holds = true;
    float least = c->values[0];
    for (int64_t i = 1; i < c->count; i++) least = fminf(least, c->values[i]);
    for (int64_t row = 0; row < c->n_rows; row++) {
        holds = holds && limits[row / 16] >= r->logits[row];
        n_screened += row % 16 == 0;
        n_left += row % 16 == 0 && limits[row / 16] < least;
    }
    CHECK(holds);
}

static void test_type(const slm_kernels *kernels, slm_type type, int64_t rows, int64_t cols, slm_precision precision,
                      bool screened) {
    static int32_t allowed[MOST_ROWS];
    static uint64_t masks[3][MOST_ROWS / 64 + 1]; /* nearly all rows, half of them, and one alone */
    make_head(type, rows, cols, screened, -1);
    run r = new_run(kernels, cols, precision);
    for (int64_t i = 0; i < MOST_TOKENS * cols; i++) r.input.x[i] = random_float();
    for (int64_t i = 0; i < rows; i++) bias[i] = i % 3 ? 0 : 1e-3f * (float)(random_u32() % 3);
    const int64_t tops[] = {0, 1, 2, 40, rows - 1, rows, rows + 5}, token_counts[] = {1, 1, 2, MOST_TOKENS};
    slm_choice expected[MOST_TOKENS], found[MOST_TOKENS];
    for (int t = 0; t < MOST_TOKENS; t++) expected[t] = new_choice(rows, 0), found[t] = new_choice(rows, 0);
    for (int i = 0; i < 14; i++) {
        r.input.n_tokens = token_counts[i % 4];
        slm_dense dense = {.w = w, .bias = i % 3 ? bias : NULL};
        r.head = (slm_head){.dense = &dense, .scale = i % 5 == 1 ? 0.25f : 0, .cap = i % 5 == 2 ? 0.5f : 0};
        if (screened) r.head.limits = limits;
        r.choices = NULL;
        r.finite = true;
        slm_threads_run(1 + i % 4, NULL, body, &r);
        int64_t n_allowed = 0;
        for (int64_t j = 0; j < rows; j++)
            if (i % 7 == 3 ? random_u32() % 30 == 0 : j % 2 == 0) allowed[n_allowed++] = (int32_t)j;
        memset(masks, 0, sizeof masks);
        for (int64_t j = 0, alone = random_u32() % (rows - 9 > 0 ? rows - 9 : rows); j < rows; j++) {
            bool in[] = {random_u32() % 20 || j == alone, random_u32() % 2 || j == alone, j == alone};
            for (int m = 0; m < 3; m++) masks[m][j / 64] |= (uint64_t)in[m] << j % 64;
        }
        for (int64_t t = 0; t < r.input.n_tokens; t++) {
            expected[t].top = tops[(i + t) % 7];
            expected[t].n_rows = i % 2 || rows < 20 ? rows : rows - 7 - t % 3;
            bool some = i % 7 >= 3 && i % 7 <= 4 && t % 4 != 1 && n_allowed;
            while (n_allowed && allowed[n_allowed - 1] >= expected[t].n_rows) n_allowed--;
            expected[t].allowed = some ? allowed : NULL;
            expected[t].n_allowed = some ? n_allowed : 0;
            expected[t].mask = some || (i + t) % 4 == 3 ? NULL : masks[(i + t) % 4];
            expected[t].count = expect(r.logits + t * rows, &expected[t], expected[t].values, expected[t].ids);
        }
        r.choices = found;
        for (int threads = 1; threads <= 4; threads++) {
            for (int64_t t = 0; t < r.input.n_tokens; t++) {
                slm_choice *f = &found[t];
                *f = (slm_choice){.n_rows = expected[t].n_rows,
                                  .top = expected[t].top,
                                  .allowed = expected[t].allowed,
                                  .n_allowed = expected[t].n_allowed,
                                  .mask = expected[t].mask,
                                  .values = f->values,
                                  .ids = f->ids,
                                  .leading = f->leading};
                forget(f);
            }
            slm_threads_run(threads, NULL, body, &r);
            CHECK(r.finite);
            compare(&r, expected, slm_type_name(type));
            bool looked = screened && r.input.n_tokens == 1 && !found[0].allowed && found[0].top <= SLM_MOST_SCREENED &&
                          !dense.bias && precision == SLM_PRECISION_DEFAULT;
            CHECK(looked == !isnan(limits[0]));
            if (looked) check_limits(&r, &found[0]);
        }
    }
    for (int t = 0; t < MOST_TOKENS; t++) free_choice(&expected[t]), free_choice(&found[t]);
    free(w.data);

    /* A row that is not finite is found wherever it is, unless it cannot be chosen. */
    if (slm_type_block(type) == 32 && type != SLM_TYPE_IQ4_NL) {
        slm_dense dense = {0};
        r.head = (slm_head){.dense = &dense, .limits = screened ? limits : NULL};
        for (int64_t bad = 0; bad < rows; bad += 1 + rows / 5) {
            make_head(type, rows, cols, screened, bad);
            dense.w = w;
            slm_choice one = new_choice(rows, bad % 2 ? 0 : 3);
            int32_t other = (int32_t)((bad + 1) % rows);
            r.choices = &one;
            r.input.n_tokens = 1;
            for (int i = 0; i < 3; i++) {
                if (i == 1) one.allowed = &other, one.n_allowed = 1;
                if (i == 2) one.allowed = NULL, one.n_rows = slm_max64(bad, 1);
                r.finite = true;
                slm_threads_run(1 + (int)(bad % 4), NULL, body, &r);
                bool takes_part = i == 0 || (i == 2 && bad == 0);
                CHECK(r.finite == !takes_part && (one.count == 0) == takes_part);
            }
            free_choice(&one);
            free(w.data);
        }
    }
}

/* ---- hard ones to screen ----------------------------------------------------------------------------------------------------
 */

/* Rows of Q8_0 for x, many of which have the largest coarse logit there is: high bits as the signs of x have them. Their low bits
 * are random, or as near to a multiple of x as they can be: of an x of -1, 0 and 1, a multiple, so that limits are as tight as
 * rounding lets them be; scales are zero, minus zero, negative, huge, or one and the same. Others are random or all zeros, some
 * the same as an earlier one. tight, of such an x: the least multiple whose limit is tight, and scales of all mantissas, so that
 * what rounding adds up to counts most. */
static void make_hard_head(const float *x, int64_t rows, int64_t cols, bool tight) {
    describe(SLM_TYPE_Q8_0, rows, cols, true);
    size_t row_bytes = slm_matrix_row_bytes(&w);
    uint8_t *file = malloc(row_bytes * (size_t)rows);
    const uint16_t some[] = {0x2000, 0x2000, 0x2000, 0x2000, 0x1fff, 0x2001, 0xa000, 0x0000, 0x8000, 0x0001, 0x7bff};
    bool huge = random_u32() % 4 == 0;
    for (int64_t r = 0; r < rows; r++) {
        uint8_t *row = file + row_bytes * (size_t)r;
        uint32_t kind = random_u32() % 8;
        if (r && kind == 0) {
            memcpy(row, file + row_bytes * (random_u32() % (uint32_t)r), row_bytes);
            continue;
        }
        uint16_t scale = some[random_u32() % (huge && r % 50 == 0 ? 11 : 10)];
        float slope = (float)(int)(random_u32() % 17) - 8;
        if (tight) scale = 0x2000 | (random_u32() & 0x3ff), slope = 2;
        for (int64_t i = 0; i < cols; i++) {
            int low = kind < 5 || tight ? (int)lrintf(fminf(fmaxf(slope * x[i], -8), 7)) + 8 : (int)(random_u32() % 16);
            int code = (x[i] < 0 ? 0 : 240) + low;
            if (kind == 6) code = (int)(random_u32() % 256);
            if (kind == 7) code = 128;
            row[i / 32 * 34 + 2 + i % 32] = (uint8_t)(code - 128);
            memcpy(row + i / 32 * 34, &scale, 2);
        }
    }
    w.data = aligned_alloc(64, (slm_matrix_bytes(&w) + 63) / 64 * 64);
    slm_matrix_pack(&w, 0, w.n_panels, file, rows);
    free(file);
}

static void test_hard(const slm_kernels *kernels) {
    const float sizes[] = {1, 0.37f, 1.9f, 1e-20f, 1e-37f, 0, 1e30f, 1e36f};
    slm_choice expected = new_choice(0, 0), found = new_choice(0, 0);
    int finite = 0;
    for (int i = 0; i < 240; i++) {
        /* What rounding adds up to grows with the number of groups, faster than what is left between limits and products. */
        bool wide = i % 9 == 8, whole = wide || i / 8 % 2;
        int64_t rows = 1 + random_u32() % (wide ? 300 : 900), cols = 32 * (1 + random_u32() % 8);
        if (wide) cols = i % 2 ? 896 : 2048;
        run r = new_run(kernels, cols, SLM_PRECISION_DEFAULT);
        r.input.n_tokens = 1;
        for (int64_t j = 0; j < cols; j++) {
            r.input.x[j] = whole ? (float)(j % 2) : j % 5 || i % 2 ? random_float() : 0;
            if (random_u32() % 2) r.input.x[j] = -r.input.x[j];
        }
        make_hard_head(r.input.x, rows, cols, wide);
        for (int64_t j = 0; j < cols; j++) r.input.x[j] *= sizes[i % 8];
        slm_dense dense = {.w = w};
        r.head = (slm_head){.dense = &dense, .scale = i % 3 == 1 ? 3.7f : 0, .cap = i % 5 == 2 ? 0.01f : 0, .limits = limits};
        r.finite = true;
        slm_threads_run(2, NULL, body, &r);
        expected.n_rows = rows - (rows > 20 ? random_u32() % 20 : 0);
        expected.top = i / 8 % (SLM_MOST_SCREENED + 1);
        bool all_finite = kernels->all_finite(r.logits, expected.n_rows);
        expected.count = all_finite ? expect(r.logits, &expected, expected.values, expected.ids) : 0;
        finite += all_finite;
        r.choices = &found;
        for (int threads = 1; threads <= 4; threads++) {
            found.n_rows = expected.n_rows;
            found.top = expected.top;
            forget(&found);
            r.finite = true;
            slm_threads_run(threads, NULL, body, &r);
            CHECK(r.finite == all_finite);
            compare(&r, &expected, "hard");
            if (all_finite) check_limits(&r, &found);
        }
        free(w.data);
    }
    CHECK(finite > 120 && finite < 240);
    free_choice(&expected), free_choice(&found);
}

/* Where all rows are alike nothing is left out: after two such steps there are sixteen of rest, then one more is tried. */
static void test_rest(const slm_kernels *kernels) {
    slm_choice expected = new_choice(0, 0), found = new_choice(0, 0);
    run r = new_run(kernels, 64, SLM_PRECISION_DEFAULT);
    r.input.n_tokens = 1;
    for (int64_t j = 0; j < 64; j++) r.input.x[j] = random_float();
    for (int alike = 0; alike <= 1; alike++) {
        make_head(SLM_TYPE_Q8_0, 900, 64, true, -1);
        slm_dense dense = {.w = w};
        for (int64_t p = 1; alike && p < w.n_panels; p++) {
            memcpy(w.data + (size_t)p * w.panel_bytes, w.data, w.panel_bytes);
            memcpy((uint8_t *)slm_matrix_low(&w, p), slm_matrix_low(&w, 0), 64 * 16 / 2);
            memcpy((uint8_t *)slm_matrix_residues(&w, p), slm_matrix_residues(&w, 0), 64 / 32 * 16);
        }
        r.head = (slm_head){.dense = &dense, .limits = limits};
        r.choices = NULL;
        slm_threads_run(2, NULL, body, &r);
        expected.n_rows = found.n_rows = 896;
        expected.count = expect(r.logits, &expected, expected.values, expected.ids);
        r.choices = &found;
        forget(&found);
        for (int step = 0; step < 40; step++) {
            for (int64_t i = 0; i < w.n_panels; i++) limits[i] = NAN;
            slm_threads_run(1 + step % 4, NULL, body, &r);
            compare(&r, &expected, "rest");
            CHECK(!isnan(limits[0]) == (!alike || step < 2 || step == 18 || step == 35));
        }
        free(w.data);
    }
    free_choice(&expected), free_choice(&found);
}

/* ---- drawing ------------------------------------------------------------------------------------------------------------- */

/* What top_k keeps gives the same token as all logits do. */
static void test_draw(void) {
    static float logits[MOST_ROWS];
    slm_error error;
    for (int i = 0; i < 400; i++) {
        int64_t n = 1 + random_u32() % 300;
        int32_t top_k = 1 + (int32_t)(random_u32() % (uint32_t)n);
        for (int64_t j = 0; j < n; j++) logits[j] = i % 2 ? random_float() * 5 : (float)(random_u32() % 8);
        slm_choice c = new_choice(n, top_k);
        c.count = expect(logits, &c, c.values, c.ids);
        slm_sampler sampler;
        slm_generate_options options = {.temperature = i % 3 ? 0.8f : 0, .top_k = top_k, .top_p = i % 5 ? 0.9f : 1};
        options.min_p = i % 7 ? 0 : 0.1f;
        options.typical_p = i % 11 ? 1 : 0.7f;
        CHECK(slm_sampler_create(&sampler, slm_kernels_tier(0), &options, n, &error) == SLM_OK);
        double uniform = random_u32() * 0x1p-32;
        int64_t from_all = slm_sampler_draw(&sampler, logits, n, uniform);
        CHECK(c.ids[slm_sampler_draw(&sampler, c.values, c.count, uniform)] == from_all);
        slm_sampler_release(&sampler);
        free_choice(&c);
    }
}

/* Logits of which whole runs are -infinity, as a mask leaves them: the sum is that of the others, and only these are listed. */
static void test_masked_row(const slm_kernels *kernels) {
    enum { N = 6500, FIRST = 2100, LAST = 4000 };
    static float logits[N];
    double sum = 0;
    for (int i = 0; i < N; i++) {
        logits[i] = i < FIRST || i >= LAST || i % 700 == 0 ? -INFINITY : random_float() * 4;
        sum += exp((double)logits[i]);
    }
    slm_row row = slm_row_reduce(kernels, logits, N);
    CHECK(fabs(row.most + row.total - log(sum)) < 1e-5 && logits[row.best] == row.most);
    slm_logprob top[5];
    slm_row_likeliest(&row, logits, NULL, FIRST + 3, 5, top);
    CHECK(top[1].id > FIRST && isfinite(top[1].logprob) && top[2].id == -1 && top[4].id == -1);
}

int main(int argc, char **argv) {
    slm_error error;
    CHECK(slm_init(getenv("SLM_ISA"), &error) == SLM_OK);
    const slm_kernels *kernels = slm_kernels_active();
    for (slm_type type = SLM_TYPE_F32; type < SLM_TYPE_COUNT; type++) {
        if (!asked_for(slm_type_name(type), argc, argv)) continue;
        const int64_t row_counts[] = {5, 70, 333, MOST_ROWS};
        for (int i = 0; i < 4; i++) {
            test_type(kernels, type, row_counts[i], slm_type_block(type) == 256 ? 256 : 64,
                      i == 2 ? SLM_PRECISION_HIGH : SLM_PRECISION_DEFAULT, false);
            if (type == SLM_TYPE_Q8_0)
                test_type(kernels, type, row_counts[i], 256, i == 2 ? SLM_PRECISION_HIGH : SLM_PRECISION_DEFAULT, true);
        }
        if (type == SLM_TYPE_Q8_0) CHECK(n_left > n_screened / 2);
    }
    test_hard(kernels);
    test_rest(kernels);
    test_draw();
    test_masked_row(kernels);
    return finish();
}
