/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/linear.h"

#include <string.h>

#include "base/arith.h"
#include "blas.h"

enum {
    FEW_TOKENS = 16,     /* the most that take codes straight from the panels, read as one stream: beyond, a strip is as fast */
    POLL_PANELS = 64,    /* of one token between two looks at the clock */
    POLL_TOKENS = 4,     /* that are made ready between two */
    BF16_PANELS = 4,     /* that share a load of the activations */
    AHEAD_BYTES = 65536, /* asked for in a wait, at most */
    PIECE_BYTES = 98304, /* of a share, that another thread may take: some microseconds from memory */
    MOST_HELPED = 3,     /* other threads, by one: each look at a list is a way of a cache line from core to core */
    TILES_TOKENS = 48,   /* of a strip, between which a piece of the next panel is asked for */
    LOW_TOKENS = 16,     /* whose products with a are made between two looks: x stays in the first cache */
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

/* ---- what adapters add ----------------------------------------------------------------------------------------------------- */

static void scale_low(const slm_kernels *kernels, const slm_addend *addend, float *low) {
    kernels->scale(low, addend->scale, slm_round_up(addend->b.cols, 16));
}

/* a x of the tokens first .. last - 1. */
static void prepare_addends(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_addend *addends,
                            int64_t first, int64_t last) {
    for (int64_t t = first, end; addends && t < last && !slm_team_cancelled(team); t = end) {
        end = slm_min64(t + LOW_TOKENS, last);
        for (const slm_addend *addend = addends; addend; addend = addend->next) {
            float *low = input->low + t * input->low_ld + addend->at;
            const float *x = input->x + t * input->ldx;
            kernels->linear_float(&addend->a, 0, addend->a.n_panels, x, input->ldx, end - t, false, low, input->low_ld);
            for (int64_t i = 0; i < end - t; i++) scale_low(kernels, addend, low + i * input->low_ld);
        }
    }
}

void slm_addends_embed(const slm_kernels *kernels, const slm_addend *addends, int64_t row, float *low, float *x) {
    for (const slm_addend *addend = addends; addend; addend = addend->next) {
        int64_t rank = addend->b.cols;
        memset(low + rank, 0, (size_t)(slm_round_up(rank, 16) - rank) * sizeof *low);
        slm_matrix_row(&addend->a, row, low);
        scale_low(kernels, addend, low);
        kernels->linear_float(&addend->b, 0, addend->b.n_panels, low, 0, 1, true, x, 0);
    }
}

/* ---- the input ------------------------------------------------------------------------------------------------------------- */

/* Product i of linears, two of each: NULL where there is no gate. */
static const slm_dense *product_at(const slm_linears *linears, int i) {
    return i % 2 ? linears->at[i / 2].gate : linears->at[i / 2].dense;
}

static void choose_group(slm_input *input, const slm_matrix *w) {
    if (w->coding.group < input->codes.group) input->codes.group = w->coding.group;
}

bool slm_linear_takes_codes(slm_input *input, const slm_linears *linears) {
    for (int i = 0; i < 2 * linears->n; i++) {
        const slm_dense *dense = product_at(linears, i);
        if (!dense) continue;
        if (!takes_codes(input, &dense->w) || dense->addends) return false;
        choose_group(input, &dense->w);
    }
    return input->n_tokens > FEW_TOKENS;
}

void slm_linear_prepare(const slm_kernels *kernels, slm_team *team, slm_input *input, const slm_linears *linears, int64_t first,
                        int64_t last) {
    bool codes = false, rounded = false;
    for (int i = 0; i < 2 * linears->n; i++) {
        const slm_dense *dense = product_at(linears, i);
        if (!dense) continue;
        if (takes_codes(input, &dense->w)) {
            codes = true;
            choose_group(input, &dense->w);
        }
        rounded = rounded || takes_rounded(input, &dense->w);
        prepare_addends(kernels, team, input, dense->addends, first, last);
    }
    for (int64_t t = first, end; t < last && !slm_team_cancelled(team); t = end) {
        end = slm_min64(t + POLL_TOKENS, last);
        const float *x = input->x + t * input->ldx;
        if (codes) kernels->quantize(x, input->ldx, t, end, 0, input->k, &input->codes);
        for (int64_t i = t; rounded && i < end; i++)
            kernels->round_bf16(input->x + i * input->ldx, input->ldx, input->rounded + i * input->ldx);
    }
}

/* ---- rows of one matrix ---------------------------------------------------------------------------------------------------- */

/* The strips with all tokens; meanwhile what begins at `then`, if not NULL, comes from memory, where it is cold: nothing else
 * reads there now. */
static void multiply_strips(const slm_kernels *kernels, const slm_input *input, const slm_strip *strips, int n_strips,
                            const uint8_t *then, int64_t then_bytes, float *y, int64_t ldy) {
    for (int64_t t = 0, end; t < input->n_tokens; t = end) {
        end = slm_min64(t + TILES_TOKENS, input->n_tokens);
        for (int64_t at = then_bytes * t / input->n_tokens; then && at < then_bytes * end / input->n_tokens; at += 64)
            __builtin_prefetch(then + at, 0, 2);
        kernels->gemm(strips, n_strips, &input->codes, t, end, y + t * ldy, ldy);
    }
}

/* SLM_STRIPS panels or fewer. */
static void multiply_panels(const slm_kernels *kernels, const slm_input *input, const slm_matrix *w, int64_t first, int64_t last,
                            const uint8_t *then, float *y, int64_t ldy, const slm_linear_scratch *scratch) {
    if (!holds_codes(w)) {
        kernels->linear_float(w, first, last, input->x, input->ldx, input->n_tokens, false, y, ldy);
        return;
    }
    slm_strip strips[SLM_STRIPS];
    int group = takes_codes(input, w) ? input->codes.group : w->coding.group, n = (int)(last - first);
    for (int i = 0; i < n; i++) {
        int64_t at = i * w->cols;
        kernels->unpack(w, first + i, group, scratch->codes + 16 * at, scratch->d + at, scratch->m + at, &strips[i]);
    }
    if (takes_codes(input, w)) {
        multiply_strips(kernels, input, strips, n, then, n * (int64_t)w->panel_bytes, y, ldy);
    } else {
        for (int i = 0; i < n; i++) kernels->gemm_float(&strips[i], input->x, input->ldx, input->n_tokens, y + 16 * i, ldy);
    }
}

/* dense(x) of all tokens and the panels first .. last - 1, which y has room for; what lies beyond rows stays or becomes 0. then:
 * what is read after them, or NULL. */
static void run_dense(const slm_kernels *kernels, const slm_input *input, const slm_dense *dense, int64_t first, int64_t last,
                      const uint8_t *then, float *y, int64_t ldy, const slm_linear_scratch *scratch) {
    const slm_matrix *w = &dense->w;
    if (w->form == SLM_FORM_BLAS) {
        int64_t row = first * 16, n_rows = slm_min64(last * 16, w->rows) - row;
        slm_blas_linear((const float *)w->data + row * w->cols, n_rows, w->cols, input->x, input->ldx, input->n_tokens, y, ldy);
    } else if (takes_codes(input, w) && input->n_tokens <= FEW_TOKENS) {
        kernels->gemv(w, first, last, &input->codes, 0, input->n_tokens, then, y, ldy);
    } else if (takes_rounded(input, w)) {
        kernels->linear_bf16(w, first, last, input->rounded, input->ldx, input->n_tokens, y, ldy);
    } else {
        for (int64_t p = first, end; p < last; p = end) {
            end = slm_min64(p + SLM_STRIPS, last);
            const uint8_t *next = end < last ? slm_matrix_panel(w, end) : then;
            multiply_panels(kernels, input, w, p, end, next, y + (p - first) * 16, ldy, scratch);
        }
    }
    for (int64_t t = 0; dense->bias && t < input->n_tokens; t++)
        kernels->add(y + t * ldy, dense->bias + first * 16, (last - first) * 16);
    for (const slm_addend *addend = dense->addends; addend; addend = addend->next)
        kernels->linear_float(&addend->b, first, last, input->low + addend->at, input->low_ld, input->n_tokens, true, y, ldy);
}

void slm_linear_panels(const slm_kernels *kernels, const slm_input *input, const slm_dense *dense, int64_t first, int64_t last,
                       float *y, int64_t ldy, const slm_linear_scratch *scratch) {
    int64_t step = dense->w.form == SLM_FORM_BLAS ? SLM_BLAS_PANELS : last - first;
    for (int64_t p = first; p < last; p += step)
        run_dense(kernels, input, dense, p, slm_min64(p + step, last), NULL, y + (p - first) * 16, ldy, scratch);
}

/* ---- rows of a linear ------------------------------------------------------------------------------------------------------ */

static bool runs_blas(const slm_linear *linear) {
    return linear->dense->w.form == SLM_FORM_BLAS || (linear->gate && linear->gate->w.form == SLM_FORM_BLAS);
}

/* Panels that are run together, for their own sake or for that of the scratch. */
static int64_t most_panels(const slm_linear *linear, int64_t n_tokens) {
    if (runs_blas(linear)) return SLM_BLAS_PANELS;
    if (n_tokens <= FEW_TOKENS) return POLL_PANELS / n_tokens;
    return linear->dense->w.form == SLM_FORM_BF16 ? BF16_PANELS : SLM_STRIPS;
}

int64_t slm_linear_scratch_size(int64_t n_tokens) {
    return slm_max64(POLL_PANELS, n_tokens * (slm_blas_available() ? SLM_BLAS_PANELS : BF16_PANELS)) * 16;
}

/* The panels first .. last - 1, most_panels at most. They go where they belong; into scratch first where rows end inside a panel,
 * or are quantized. */
static void run_panels(const slm_kernels *kernels, const slm_input *input, const slm_linear *linear, int64_t first, int64_t last,
                       const uint8_t *then, const slm_linear_scratch *scratch) {
    int64_t n_tokens = input->n_tokens, width = (last - first) * 16;
    bool fits = last * 16 <= linear->ldy && !linear->codes, direct = fits && !linear->act;
    float *out = linear->y + first * 16, *y = direct ? out : scratch->y;
    const uint8_t *behind = linear->gate ? slm_matrix_panel(&linear->gate->w, first) : then;
    run_dense(kernels, input, linear->dense, first, last, behind, y, direct ? linear->ldy : width, scratch);
    if (linear->gate) run_dense(kernels, input, linear->gate, first, last, then, scratch->gate, width, scratch);
    if (linear->act) {
        const float *gate = linear->gate ? scratch->gate : y, *up = linear->gate ? y : NULL;
        kernels->activate(*linear->act, gate, up, n_tokens, width, fits ? out : y, fits ? linear->ldy : width);
    }
    if (linear->codes) kernels->quantize(y, width, 0, n_tokens, first * 16, width, linear->codes);
    if (fits || linear->codes) return;
    int64_t n_rows = slm_min64(last * 16, linear->dense->w.rows) - first * 16;
    for (int64_t t = 0; t < n_tokens; t++) memcpy(out + t * linear->ldy, y + t * width, (size_t)n_rows * sizeof *y);
}

/* ---- few tokens: shares ---------------------------------------------------------------------------------------------------- */

static int64_t panel_bytes(const slm_linear *linear) {
    return (int64_t)linear->dense->w.panel_bytes + (linear->gate ? (int64_t)linear->gate->w.panel_bytes : 0);
}

/* Panels that one thread runs together: the fewest that are whole units, whole panels and whole calls of BLIS. */
static int64_t unit_of(const slm_linear *linear) {
    int64_t least = runs_blas(linear) ? SLM_BLAS_PANELS : 1, power = linear->unit & -linear->unit; /* of two, that divides it */
    return linear->unit ? least * linear->unit / slm_min64(power, least * SLM_PANEL_ROWS) : least;
}

/* Panels of a linear that come before a cut, which lies so many bytes after its first one. */
static int64_t panels_before(const slm_linear *linear, int64_t cut) {
    int64_t unit = unit_of(linear), bytes = unit * panel_bytes(linear);
    return cut <= 0 ? 0 : slm_min64(slm_div_up(cut, bytes) * unit, linear->dense->w.n_panels);
}

/* The bytes of all linears, one after the other, are cut into even shares: a thread's panels of linear i, *first .. *last - 1. */
static void share_of(const slm_team *team, const slm_linears *linears, int i, int64_t *first, int64_t *last) {
    int64_t total = 0, before = 0, begin, end;
    for (int j = 0; j < linears->n; j++) {
        if (j == i) before = total;
        total += linears->at[j].dense->w.n_panels * panel_bytes(&linears->at[j]);
    }
    slm_team_range(team, total, &begin, &end);
    *first = panels_before(&linears->at[i], begin - before);
    *last = panels_before(&linears->at[i], end - before);
}

void slm_linear_share(const slm_team *team, const slm_linears *linears, int i, int64_t *first, int64_t *end) {
    int64_t rows = linears->at[i].dense->w.rows;
    share_of(team, linears, i, first, end);
    *first = slm_min64(*first * SLM_PANEL_ROWS, rows);
    *end = slm_min64(*end * SLM_PANEL_ROWS, rows);
}

/* The weights that a thread begins with in linears from i on: *bytes of them, or NULL. */
static const uint8_t *beginning(const slm_team *team, const slm_linears *linears, int i, int64_t *bytes) {
    for (int64_t first, last; linears && i < linears->n; i++) {
        share_of(team, linears, i, &first, &last);
        const slm_matrix *w = &linears->at[i].dense->w;
        *bytes = (last - first) * (int64_t)w->panel_bytes;
        if (first < last) return slm_matrix_panel(w, first);
    }
    return NULL;
}

/* The panels first .. last - 1, most_panels at most, and then what lies behind them or, where the share ends, `then`. */
static void run_piece(const slm_kernels *kernels, const slm_input *input, const slm_linear *linear, int64_t first, int64_t last,
                      int64_t share_last, const uint8_t *then, const slm_linear_scratch *scratch) {
    const uint8_t *behind = last < share_last ? slm_matrix_panel(&linear->dense->w, last) : then;
    run_panels(kernels, input, linear, first, last, behind, scratch);
}

/* This thread's share of each linear. */
static void run_own(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linears *linears,
                    const uint8_t *ahead, const slm_linear_scratch *scratch) {
    int64_t bytes, first, last, end;
    for (int i = 0; i < linears->n; i++) {
        const slm_linear *linear = &linears->at[i];
        const uint8_t *then = beginning(team, linears, i + 1, &bytes);
        share_of(team, linears, i, &first, &last);
        for (; first < last && !slm_team_cancelled(team); first = end) {
            end = slm_min64(first + most_panels(linear, input->n_tokens), last);
            run_piece(kernels, input, linear, first, end, last, then ? then : ahead, scratch);
        }
    }
}

/* This thread's share of a linear, and what is left of those of its next neighbours: a list a share, of pieces. */
static void run_own_and_left(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linears *linears,
                             const uint8_t *ahead, const slm_linear_scratch *scratch) {
    const slm_linear *linear = &linears->at[0];
    int64_t unit = unit_of(linear), fits = PIECE_BYTES / (unit * panel_bytes(linear)) * unit, first, last;
    int64_t piece = slm_min64(slm_max64(unit, fits), most_panels(linear, input->n_tokens));
    for (int i = 0; i < team->count && i <= MOST_HELPED; i++) {
        slm_team member = {.index = (team->index + i) % team->count, .count = team->count};
        share_of(&member, linears, 0, &first, &last);
        for (int64_t at; (at = first + piece * slm_team_take(team, member.index)) < last && !slm_team_cancelled(team);)
            run_piece(kernels, input, linear, at, slm_min64(at + piece, last), last, ahead, scratch);
    }
}

static void run_shares(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linears *linears,
                       const slm_linears *next, const slm_linear_scratch *scratch) {
    int64_t ahead_bytes = 0;
    const uint8_t *ahead = beginning(team, next, 0, &ahead_bytes);
    (linears->n == 1 ? run_own_and_left : run_own)(kernels, team, input, linears, ahead, scratch);
    team->ahead = ahead;
    team->ahead_end = ahead ? ahead + slm_min64(ahead_bytes, AHEAD_BYTES) : NULL;
}

/* ---- many tokens: panels to whoever is free -------------------------------------------------------------------------------- */

/* Where the taken item lies among n: threads work far apart, each in neighbours one after the other, for they may share a line of
 * what is written. Of the slm_round_up(n, count) items some are beyond n. */
static int64_t place_of(int64_t item, int64_t n, int count) {
    return item % count * slm_div_up(n, count) + item / count;
}

static void run_items(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linears *linears,
                      const slm_linear_scratch *scratch) {
    int64_t item = slm_team_take(team, 0), before = 0;
    for (int i = 0; i < linears->n; i++) {
        const slm_linear *linear = &linears->at[i];
        int64_t step = most_panels(linear, input->n_tokens), n_panels = linear->dense->w.n_panels;
        int64_t n_items = slm_div_up(n_panels, step);
        int64_t n_taken = slm_round_up(n_items, team->count);
        for (; item - before < n_taken && !slm_team_cancelled(team); item = slm_team_take(team, 0)) {
            int64_t first = place_of(item - before, n_items, team->count) * step, soon = first + step; /* likely to be its next */
            if (first >= n_panels) continue;
            const uint8_t *then = soon < n_panels      ? slm_matrix_panel(&linear->dense->w, soon)
                                  : i + 1 < linears->n ? slm_matrix_panel(&linears->at[i + 1].dense->w, 0)
                                                       : NULL;
            run_panels(kernels, input, linear, first, slm_min64(first + step, n_panels), then, scratch);
        }
        before += n_taken;
    }
}

void slm_linear_run(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linears *linears,
                    const slm_linears *next, const slm_linear_scratch *scratch) {
    if (input->n_tokens <= FEW_TOKENS) {
        run_shares(kernels, team, input, linears, next, scratch);
    } else {
        run_items(kernels, team, input, linears, scratch);
    }
}
