/* SPDX-License-Identifier: Apache-2.0
 * call.h: the caller's wish to stop, asked for often and raised at most every 5 ms. */
#ifndef SLM_BASE_CALL_H
#define SLM_BASE_CALL_H

#include "slm.h"

typedef struct slm_clock {
    const slm_call *call; /* NULL: nobody to ask */
    double next;          /* seconds; when to ask again */
    bool cancelled;       /* the caller said stop: stays true */
} slm_clock;

double slm_seconds(void); /* monotonic */

void slm_clock_start(slm_clock *clock, const slm_call *call); /* call may be NULL */
/* True when the caller asked to cancel. Calling thread only. */
bool slm_clock_tick(slm_clock *clock);
/* The same, but reports progress without waiting for the 5 ms when done == total. */
bool slm_clock_progress(slm_clock *clock, uint64_t done, uint64_t total);
/* Tells at once how many texts are finished. */
bool slm_clock_ended(slm_clock *clock, uint64_t done, uint64_t total);
/* Has logits [n_logits] of what follows these tokens changed at once; true: cancelled. */
bool slm_clock_logits(slm_clock *clock, const int32_t *tokens, size_t n_tokens, float *logits, size_t n_logits);
/* Has rows [n_rows, hidden_size], ld apart, that a tap is for changed at once; true: cancelled. */
bool slm_clock_activation(slm_clock *clock, size_t tap, float *rows, int64_t n_rows, int64_t hidden_size, int64_t ld,
                          int64_t first_position);
/* Asks at once which of n_allowed - 1 tokens may follow these, and whether they may be all; true: cancelled. */
bool slm_clock_allowed(slm_clock *clock, uint64_t text, const int32_t *tokens, size_t n_tokens, uint64_t *allowed,
                       size_t n_allowed);

#endif
