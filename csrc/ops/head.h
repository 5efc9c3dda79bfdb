/* SPDX-License-Identifier: Apache-2.0
 * head.h: the output layer for choosing a token: the logits that decide, found where they are computed. Each thread keeps the
 * largest of its own rows, so logits of the whole vocabulary are neither written nor read again. */
#ifndef SLM_OPS_HEAD_H
#define SLM_OPS_HEAD_H

#include "ops/linear.h"

/* The most logits that are looked for without reading all of a screened matrix: for 16 of 262,144, a third of the panels are left
 * over, and no time is won. */
enum { SLM_MOST_SCREENED = 8 };

typedef struct slm_head {
    const slm_dense *dense;
    float scale, cap; /* 0: none; logit = soft cap(scale * dense(x)) */
    float *limits;    /* [slm_head_limits] of all threads, kept from step to step, where dense's matrix is screened; else NULL */
} slm_head;

/* Among which logits of one position, and how many of them: the same for any number of threads. */
typedef struct slm_choice {
    int64_t n_rows;         /* ids below it take part */
    const int32_t *allowed; /* [n_allowed] the few of them that are computed, ascending; NULL: all */
    int64_t n_allowed;
    const uint64_t *mask; /* beside no list: bits of slm_head_mask; NULL: nothing is masked */
    /* Keeps so many of the largest and all equal to the last of these; 0: the largest alone, ties to the lowest id. */
    int64_t top;
    float *values;  /* [n] what is kept; n: SLM_MAX_THREADS where top is 0, else n_rows, or n_allowed where that is less */
    int32_t *ids;   /* [n] theirs, ascending */
    float *leading; /* [n] scratch */
    int64_t count;  /* kept: 0 where a logit is NaN or infinite */
} slm_choice;

/* Of n >= 1 ascending ids, how many from the first one on follow each other without a gap: 64 are looked at at once. */
static inline int64_t slm_run_length(const int32_t *ids, int64_t n) {
    int64_t length = 1;
    while (length + 64 <= n && ids[length + 63] - ids[0] == length + 63) length += 64;
    while (length < n && ids[length] - ids[0] == length) length++;
    return length;
}

/* Room for limits with a screened matrix of so many panels: zeros before the first step. */
int64_t slm_head_limits(int64_t n_panels, int threads);

/* Finishes choices[t] of token t for each token of an input that is prepared for w: the bits of slm_linear_run in the rows that
 * take part; other rows are not computed, nor checked. All threads of the team call it, and may not read the choices before a
 * barrier. False: one that this thread finished has a logit that is NaN or infinite. */
bool slm_head_choose(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_head *head,
                     slm_choice *choices, const slm_linear_scratch *scratch);

/* The logits of rows first .. first + n - 1 whose bit is not set in the mask become -infinity; first: a multiple of 16. */
void slm_head_mask(const uint64_t *mask, int64_t first, float *logits, int64_t n);

/* The same logits in place: y[i] of n in any place of rows. False: one of them is NaN or infinite. */
bool slm_head_finish(const slm_kernels *kernels, const slm_head *head, float *y, int64_t n);

#endif
