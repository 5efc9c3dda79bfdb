/* SPDX-License-Identifier: Apache-2.0 */
#include "base/call.h"

#include <time.h>

static const double INTERVAL = 0.005;

double slm_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void slm_clock_start(slm_clock *clock, const slm_call *call) {
    clock->call = call && call->event ? call : NULL;
    clock->next = clock->call ? slm_seconds() + INTERVAL : 0;
    clock->cancelled = false;
}

static bool raise(slm_clock *clock, slm_event event, bool now) {
    if (!clock->call || clock->cancelled) return clock->cancelled;
    if (!now && slm_seconds() < clock->next) return false;
    if (clock->call->event(clock->call->user, &event)) clock->cancelled = true;
    clock->next = slm_seconds() + INTERVAL;
    return clock->cancelled;
}

bool slm_clock_tick(slm_clock *clock) {
    return raise(clock, (slm_event){.kind = SLM_EVENT_INTERRUPT}, false);
}

bool slm_clock_progress(slm_clock *clock, uint64_t done, uint64_t total) {
    return raise(clock, (slm_event){.kind = SLM_EVENT_PROGRESS, .done = done, .total = total}, done == total);
}

bool slm_clock_ended(slm_clock *clock, uint64_t done, uint64_t total) {
    return raise(clock, (slm_event){.kind = SLM_EVENT_ENDED, .done = done, .total = total}, true);
}

bool slm_clock_logits(slm_clock *clock, const int32_t *tokens, size_t n_tokens, float *logits, size_t n_logits) {
    slm_event event = {.kind = SLM_EVENT_LOGITS, .tokens = tokens, .n_tokens = n_tokens, .logits = logits, .n_logits = n_logits};
    return raise(clock, event, true);
}

bool slm_clock_activation(slm_clock *clock, size_t tap, float *rows, int64_t n_rows, int64_t hidden_size, int64_t ld,
                          int64_t first_position) {
    slm_event event = {.kind = SLM_EVENT_ACTIVATION,
                       .tap = tap,
                       .rows = rows,
                       .n_rows = n_rows,
                       .hidden_size = hidden_size,
                       .ld = ld,
                       .first_position = first_position};
    return raise(clock, event, true);
}

bool slm_clock_allowed(slm_clock *clock, uint64_t text, const int32_t *tokens, size_t n_tokens, uint64_t *allowed,
                       size_t n_allowed) {
    slm_event event = {.kind = SLM_EVENT_ALLOWED,
                       .tokens = tokens,
                       .n_tokens = n_tokens,
                       .text = text,
                       .allowed = allowed,
                       .n_allowed = n_allowed};
    return raise(clock, event, true);
}
