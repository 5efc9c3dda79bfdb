/* SPDX-License-Identifier: Apache-2.0
 * generation.c: the token loop: forward, sample, stop, text. */
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/call.h"
#include "base/threads.h"
#include "generate/random.h"
#include "generate/sampler.h"
#include "generate/stop.h"
#include "model/session.h"

struct slm_generation {
    slm_session *session;
    slm_tokenizer *tokenizer;     /* NULL: no text */
    slm_generate_options options; /* its arrays are ours */
    slm_sampler sampler;
    slm_choice choice; /* among all tokens with a meaning; or room for all logits [vocab_size] */
    int32_t *input;    /* [n_input] tokens to run before the next one is drawn: the prompt, then the last token */
    int64_t n_input;
    slm_tokens tokens; /* generated; the first n_shown were in earlier chunks */
    size_t n_shown;
    slm_utf8_stream utf8;
    slm_text bytes; /* of the last token */
    slm_text text;  /* [0, shown) was in the last chunk, [shown, cut) may go out, the rest may still become a stop string */
    size_t shown, cut;
    slm_finish finish;
    slm_status broken; /* text was lost to this error: no going on */
    double prefill_seconds, decode_seconds;
};

static slm_status copy(void **out, const void *from, size_t count, size_t size, slm_error *error) {
    *out = slm_alloc_array(count, size);
    if (!*out) return slm_fail_memory(error);
    if (count) memcpy(*out, from, count * size);
    return SLM_OK;
}

static slm_status check(const slm_generate_options *o, const slm_tokenizer *tokenizer, slm_error *error) {
    if (o->max_tokens < 0) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "max_tokens: expected a number >= 0, found %lld", (long long)o->max_tokens);
    }
    if (o->stop.count && !tokenizer)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "stop: a model without tokenizer has no text to stop at");
    for (size_t i = 0; i < o->stop.count; i++) {
        if (o->stop.offsets[i] >= o->stop.offsets[i + 1]) {
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "stop[%zu]: expected a string that is not empty", i);
        }
    }
    return SLM_OK;
}

/* Room for what a sampler reads, or for all logits. */
static slm_status choice_create(slm_choice *choice, const slm_sampler *sampler, int64_t vocab_size, slm_error *error) {
    bool greedy = sampler->temperature == 0;
    size_t room = greedy ? SLM_MAX_THREADS : (size_t)vocab_size;
    *choice = (slm_choice){.n_rows = sampler->n, .top = greedy ? 0 : sampler->top_k ? sampler->top_k : INT64_MAX};
    choice->values = slm_alloc_array(room, sizeof *choice->values);
    choice->ids = slm_alloc_array(room, sizeof *choice->ids);
    choice->leading = slm_alloc_array(room, sizeof *choice->leading);
    return choice->values && choice->ids && choice->leading ? SLM_OK : slm_fail_memory(error);
}

slm_status slm_generation_create(slm_session *session, slm_tokenizer *tokenizer, const int32_t *prompt, int64_t n_prompt,
                                 const slm_generate_options *options, slm_generation **out, slm_error *error) {
    slm_status status = check(options, tokenizer, error);
    if (status) return status;
    if (n_prompt < 1) return slm_fail(error, SLM_BAD_ARGUMENT, -1, "prompt: expected at least one token");
    slm_model_stats stats;
    slm_model_describe(slm_session_model(session), &stats);
    slm_generation *g = slm_alloc_zero(1, sizeof *g);
    if (!g) return slm_fail_memory(error);
    g->session = session;
    g->tokenizer = tokenizer ? slm_tokenizer_retain(tokenizer) : NULL;
    g->options = *options;
    g->options.stop = (slm_strings){0};
    g->options.end_tokens = NULL;
    g->n_input = n_prompt;
    const slm_strings *stop = &options->stop;
    size_t stop_bytes = stop->count ? (size_t)stop->offsets[stop->count] : 0;
    status = copy((void **)&g->input, prompt, (size_t)n_prompt, sizeof *prompt, error);
    if (!status)
        status = copy((void **)&g->options.end_tokens, options->end_tokens, options->n_end_tokens, sizeof(int32_t), error);
    if (!status) status = copy((void **)&g->options.stop.bytes, stop->bytes, stop_bytes, 1, error);
    if (!status)
        status =
            copy((void **)&g->options.stop.offsets, stop->offsets, stop->count ? stop->count + 1 : 0, sizeof(uint64_t), error);
    g->options.stop.count = stop->count;
    /* Rows of the output layer past the tokenizer's vocabulary mean nothing and are never drawn. */
    int64_t n = tokenizer ? slm_min64(stats.vocab_size, slm_tokenizer_size(tokenizer)) : stats.vocab_size;
    if (!status) status = slm_sampler_create(&g->sampler, options->temperature, options->top_k, options->top_p, n, error);
    if (!status) status = choice_create(&g->choice, &g->sampler, stats.vocab_size, error);
    if (status) {
        slm_generation_release(g);
        return status;
    }
    *out = g;
    return SLM_OK;
}

void slm_generation_release(slm_generation *g) {
    if (!g) return;
    slm_sampler_release(&g->sampler);
    slm_free(g->choice.values);
    slm_free(g->choice.ids);
    slm_free(g->choice.leading);
    slm_free(g->input);
    slm_free((void *)(uintptr_t)g->options.end_tokens);
    slm_free((void *)(uintptr_t)g->options.stop.bytes);
    slm_free((void *)(uintptr_t)g->options.stop.offsets);
    slm_tokens_free(&g->tokens);
    slm_text_free(&g->bytes);
    slm_text_free(&g->text);
    slm_tokenizer_release(g->tokenizer);
    slm_free(g);
}

static bool ends_text(const slm_generation *g, int32_t token) {
    for (size_t i = 0; i < g->options.n_end_tokens && !g->options.ignore_eos; i++) {
        if (g->options.end_tokens[i] == token) return true;
    }
    return false;
}

/* The token's text joins g->text; g->cut says how much of it may be shown. */
static slm_status add_text(slm_generation *g, const int32_t *tokens, size_t n_tokens, bool last, slm_error *error) {
    if (!g->tokenizer) return SLM_OK;
    g->bytes.size = 0;
    slm_status status = slm_tokenizer_decode(g->tokenizer, tokens, n_tokens, true, &g->bytes, error);
    if (!status) status = slm_utf8_push(&g->utf8, g->bytes.bytes, g->bytes.size, last, &g->text, error);
    if (status || !g->text.size) return status;
    size_t safe;
    if (slm_stop_find(&g->options.stop, g->text.bytes + g->cut, g->text.size - g->cut, &safe)) {
        g->finish = SLM_FINISH_STOP;
    } else if (last) {
        safe = g->text.size - g->cut;
    }
    g->cut += safe;
    return SLM_OK;
}

static slm_status reserve_token(slm_generation *g, slm_error *error) {
    if (g->tokens.count < g->tokens.capacity) return SLM_OK;
    size_t capacity = g->tokens.capacity ? 2 * g->tokens.capacity : 64;
    int32_t *ids = slm_realloc_array(g->tokens.ids, capacity, sizeof *ids);
    if (!ids) return slm_fail_memory(error);
    g->tokens.ids = ids;
    g->tokens.capacity = capacity;
    return SLM_OK;
}

/* Asks which tokens may come next: *choice becomes one among them. */
static slm_status ask_allowed(const slm_generation *g, slm_clock *clock, slm_choice *choice, slm_error *error) {
    slm_allowed allowed = {0};
    if (slm_clock_allowed(clock, g->tokens.ids, g->tokens.count, &allowed)) return slm_fail_cancelled(error);
    if (!allowed.ids) return SLM_OK;
    if (allowed.count < 1) return slm_fail(error, SLM_BAD_ARGUMENT, -1, "allowed tokens: expected at least one");
    for (int64_t i = 0; i < allowed.count; i++) {
        int64_t least = i ? (int64_t)allowed.ids[i - 1] + 1 : 0;
        if (allowed.ids[i] < least || allowed.ids[i] >= choice->n_rows) {
            return slm_fail(error, SLM_BAD_ARGUMENT, i, "allowed tokens: expected ids in ascending order below %lld, found %d",
                            (long long)choice->n_rows, (int)allowed.ids[i]);
        }
    }
    choice->allowed = allowed.ids;
    choice->n_allowed = allowed.count;
    return SLM_OK;
}

/* Runs the input and draws a token from what follows it. */
static slm_status draw(slm_generation *g, const slm_call *call, slm_clock *clock, int32_t *token, slm_error *error) {
    const slm_generate_options *o = &g->options;
    slm_choice choice = g->choice;
    slm_status status = o->constrained && o->max_tokens ? ask_allowed(g, clock, &choice, error) : SLM_OK;
    bool forced = choice.n_allowed == 1, all = choice.top >= choice.n_rows && !choice.allowed;
    if (!status) {
        status = slm_session_run(g->session, g->input, g->n_input, forced ? SLM_NO_OUTPUT : SLM_LOGITS_LAST, choice.values,
                                 all ? NULL : &choice, call, clock, error);
    }
    if (status) return status;
    if (forced) {
        *token = choice.allowed[0];
        return SLM_OK;
    }
    int64_t n = all ? choice.n_rows : choice.count;
    int64_t i = slm_sampler_draw(&g->sampler, choice.values, n, slm_random(o->seed, o->sample, g->tokens.count));
    *token = all ? (int32_t)i : choice.ids[i];
    return SLM_OK;
}

/* Draws one token, or finds the end. */
static slm_status advance(slm_generation *g, const slm_call *call, slm_clock *clock, slm_error *error) {
    slm_model_stats stats;
    slm_model_describe(slm_session_model(g->session), &stats);
    const slm_generate_options *o = &g->options;
    int32_t token = 0;
    slm_status status = reserve_token(g, error);
    if (!status) status = draw(g, call, clock, &token, error);
    if (status) return status;
    g->n_input = 0;
    if (!o->max_tokens) {
        g->finish = SLM_FINISH_LENGTH;
        return SLM_OK;
    }
    if (ends_text(g, token)) {
        g->finish = SLM_FINISH_STOP;
        return g->broken = add_text(g, NULL, 0, true, error);
    }
    g->tokens.ids[g->tokens.count++] = token;
    g->input[0] = token;
    g->n_input = 1;
    bool last = (int64_t)g->tokens.count >= o->max_tokens || slm_session_length(g->session) >= stats.context;
    if (last) g->finish = SLM_FINISH_LENGTH;
    return g->broken = add_text(g, &token, 1, last, error);
}

static bool something_to_show(const slm_generation *g) {
    return g->tokenizer ? g->cut > g->shown : g->tokens.count > g->n_shown;
}

slm_status slm_generation_next(slm_generation *g, bool whole, const slm_call *call, slm_chunk *chunk, slm_error *error) {
    if (g->broken) return slm_fail(error, g->broken, -1, "an earlier failure lost text of this generation");
    slm_clock clock;
    slm_clock_start(&clock, call);
    if (g->shown) {
        memmove(g->text.bytes, g->text.bytes + g->shown, g->text.size - g->shown);
        g->text.size -= g->shown;
        g->cut -= g->shown;
        g->shown = 0;
    }
    slm_status status = SLM_OK;
    double start = slm_seconds();
    while (!status && g->finish == SLM_FINISH_NONE && (whole || !something_to_show(g))) {
        bool prefill = g->tokens.count == 0;
        status = slm_clock_tick(&clock) ? slm_fail_cancelled(error) : advance(g, call, &clock, error);
        double now = slm_seconds();
        *(prefill ? &g->prefill_seconds : &g->decode_seconds) += now - start;
        start = now;
    }
    if (status) return status;
    *chunk = (slm_chunk){.text = g->text.bytes,
                         .text_size = g->cut,
                         .tokens = g->tokens.ids + g->n_shown,
                         .n_tokens = g->tokens.count - g->n_shown,
                         .finish = g->finish,
                         .prefill_seconds = g->prefill_seconds,
                         .decode_seconds = g->decode_seconds};
    g->n_shown = g->tokens.count;
    g->shown = g->cut;
    return SLM_OK;
}
