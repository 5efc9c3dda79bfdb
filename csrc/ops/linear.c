/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/linear.h"

#include <string.h>

#include "base/arith.h"
#include "blas.h"

enum {
    BLAS_ROWS = 128,  /* rows of one BLIS call: fixed, so that the work of a thread does not change a bit */
    POLL_PANELS = 64, /* panels between two looks at the clock in decode */
};

static bool holds_codes(const slm_matrix *w) {
    return w->form == SLM_FORM_CODES;
}

static bool takes_codes(const slm_input *input, const slm_matrix *w) {
    return holds_codes(w) && input->precision == SLM_PRECISION_DEFAULT;
}

static bool takes_rounded(const slm_input *input, const slm_matrix *w) {
    return w->form == SLM_FORM_BF16 && input->precision == SLM_PRECISION_DEFAULT;
}

void slm_linear_prepare(const slm_kernels *kernels, slm_team *team, slm_input *input, const slm_linear *linears, int n_linears) {
    bool codes = false, rounded = false;
    for (int i = 0; i < n_linears; i++) {
        const slm_matrix *w = linears[i].w;
        codes = codes || takes_codes(input, w);
        rounded = rounded || takes_rounded(input, w);
        if (takes_codes(input, w) && w->coding.group < input->codes.group) input->codes.group = w->coding.group;
    }
    int64_t begin, end;
    slm_team_range(team, input->n_tokens, &begin, &end);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        const float *x = input->x + t * input->ldx;
        if (codes) kernels->quantize(x, t, &input->codes);
        if (rounded) kernels->round_bf16(x, input->ldx, input->rounded + t * input->ldx);
    }
}

/* One panel and all tokens. */
static void multiply(const slm_kernels *kernels, const slm_input *input, const slm_matrix *w, int64_t panel, float *y,
                     int64_t ldy, const slm_linear_scratch *scratch) {
    if (holds_codes(w)) {
        slm_strip strip;
        int group = takes_codes(input, w) ? input->codes.group : w->coding.group;
        kernels->unpack(w, panel, group, scratch->codes, scratch->d, scratch->m, &strip);
        if (takes_codes(input, w)) {
            kernels->gemm(&strip, &input->codes, 0, input->n_tokens, y, ldy);
        } else {
            kernels->gemm_float(&strip, input->x, input->ldx, input->n_tokens, y, ldy);
        }
    } else {
        const float *x = takes_rounded(input, w) ? input->rounded : input->x;
        kernels->linear_float(w, panel, x, input->ldx, input->n_tokens, y, ldy);
    }
}

/* ---- one column: fixed shares of the panels ----------------------------------------------------------------------- */

static void run_panels(const slm_kernels *kernels, const slm_input *input, const slm_linear *linear, int64_t first, int64_t last,
                       float *y, const slm_linear_scratch *scratch) {
    const slm_matrix *w = linear->w;
    if (takes_codes(input, w)) {
        kernels->gemv(w, first, last, &input->codes, 0, y);
    } else {
        for (int64_t p = first; p < last; p++) multiply(kernels, input, w, p, y + (p - first) * 16, 16, scratch);
    }
    if (linear->bias) kernels->add(y, linear->bias + first * 16, (last - first) * 16);
}

static void run_column(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linear *linear,
                       const slm_linear_scratch *scratch) {
    const slm_matrix *w = linear->w;
    int64_t begin, end, whole = linear->ldy >= w->n_panels * 16 ? w->n_panels : w->rows / 16;
    slm_team_range(team, w->n_panels, &begin, &end);
    for (int64_t p = begin; p < end; p += POLL_PANELS) {
        if (slm_team_cancelled(team)) return;
        int64_t last = slm_min64(p + POLL_PANELS, end);
        run_panels(kernels, input, linear, p, slm_min64(last, whole), linear->y + p * 16, scratch);
        if (last > whole) { /* y ends inside the last panel */
            float tail[16];
            run_panels(kernels, input, linear, whole, last, tail, scratch);
            memcpy(linear->y + whole * 16, tail, (size_t)(w->rows - whole * 16) * sizeof *tail);
        }
    }
}

/* ---- many columns: panels to whoever is free --------------------------------------------------------------------------- */

static void run_panel(const slm_kernels *kernels, const slm_input *input, const slm_linear *linear, int64_t panel, float *y,
                      int64_t ldy, const slm_linear_scratch *scratch) {
    multiply(kernels, input, linear->w, panel, y, ldy, scratch);
    for (int64_t t = 0; linear->bias && t < input->n_tokens; t++) kernels->add(y + t * ldy, linear->bias + panel * 16, 16);
}

static int64_t item_count(const slm_matrix *w) {
    return w->form == SLM_FORM_BLAS ? slm_div_up(w->rows, BLAS_ROWS) : w->n_panels;
}

static void run_item(const slm_kernels *kernels, const slm_input *input, const slm_linear *linear, int64_t item,
                     const slm_linear_scratch *scratch) {
    const slm_matrix *w = linear->w;
    if (w->form == SLM_FORM_BLAS) {
        int64_t row = item * BLAS_ROWS, n_rows = slm_min64(BLAS_ROWS, w->rows - row);
        slm_blas_linear((const float *)w->data + row * w->cols, n_rows, w->cols, input->x, input->ldx, input->n_tokens,
                        linear->y + row, linear->ldy);
        for (int64_t t = 0; linear->bias && t < input->n_tokens; t++) {
            for (int64_t r = 0; r < n_rows; r++) linear->y[t * linear->ldy + row + r] += linear->bias[row + r];
        }
    } else if (item * 16 + 16 <= linear->ldy) {
        run_panel(kernels, input, linear, item, linear->y + item * 16, linear->ldy, scratch);
    } else {
        run_panel(kernels, input, linear, item, scratch->tail, 16, scratch);
        for (int64_t t = 0; t < input->n_tokens; t++) {
            memcpy(linear->y + t * linear->ldy + item * 16, scratch->tail + t * 16,
                   (size_t)(w->rows - item * 16) * sizeof(float));
        }
    }
}

void slm_linear_run(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linear *linears, int n_linears,
                    const slm_linear_scratch *scratch) {
    int64_t n_items = 0;
    for (int i = 0; i < n_linears; i++) {
        if (input->n_tokens == 1 && linears[i].w->form != SLM_FORM_BLAS) {
            run_column(kernels, team, input, &linears[i], scratch);
        } else {
            n_items += item_count(linears[i].w);
        }
    }
    if (!n_items) return;
    for (int64_t item; (item = slm_team_take(team)) < n_items && !slm_team_cancelled(team);) {
        for (int i = 0; i < n_linears; i++) {
            if (input->n_tokens == 1 && linears[i].w->form != SLM_FORM_BLAS) continue;
            int64_t count = item_count(linears[i].w);
            if (item < count) {
                run_item(kernels, input, &linears[i], item, scratch);
                break;
            }
            item -= count;
        }
    }
}
