/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/sequence.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/threads.h"
#include "generate/random.h"
#include "generate/stop.h"

/* A row that is limited to more than one in so many tokens runs whole and is masked: faster than so many rows one by one. */
enum { MANY_ALLOWED = 8 };

/* As many allowed tokens are listed. */
static int64_t most_few(const slm_rules *rules) {
    return slm_max64(rules->sampler.n / MANY_ALLOWED, 1);
}

static slm_status copy(void **out, const void *from, size_t count, size_t size, slm_error *error) {
    *out = slm_alloc_array(count, size);
    if (!*out) return slm_fail_memory(error);
    if (count) memcpy(*out, from, count * size);
    return SLM_OK;
}

/* May some tokens not come? */
static bool is_limited(const slm_generate_options *o) {
    return o->constraint || o->guided;
}

static slm_status check(const slm_generate_options *o, const slm_tokenizer *tokenizer, slm_error *error) {
    if (o->max_tokens < 0) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "max_tokens: expected a number >= 0, found %lld", (long long)o->max_tokens);
    }
    if (o->stop.count && !tokenizer)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "stop: a model without tokenizer has no text to stop at");
    if (o->constraint && o->constraint->tokenizer != tokenizer)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "constraint: expected one of the same tokenizer");
    if (o->guided && o->constraint) return slm_fail(error, SLM_BAD_ARGUMENT, -1, "guided: expected no constraint beside it");
    if (o->guided && !tokenizer)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "guided: a model without tokenizer has no text to guide");
    if (o->guided && slm_constraint_check(tokenizer, error)) return error->status;
    if (is_limited(o) && o->draft) return slm_fail(error, SLM_BAD_ARGUMENT, -1, "draft: expected none under a constraint");
    if (o->logprobs < 0) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "logprobs: expected a number >= 0, found %lld", (long long)o->logprobs);
    }
    for (size_t i = 0; i < o->stop.count; i++) {
        if (o->stop.offsets[i] >= o->stop.offsets[i + 1]) {
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "stop[%zu]: expected a string that is not empty", i);
        }
    }
    return SLM_OK;
}

static bool changes_logits(const slm_generate_options *o) {
    return slm_penalties_wanted(o) || o->processed;
}

/* Room for what is read of each row: all logits where they change or are asked for, and where the sampler cuts nothing off. */
static slm_status make_room(slm_rules *rules, int64_t n_rows, int64_t vocab_size, slm_error *error) {
    const slm_sampler *s = &rules->sampler;
    const slm_generate_options *o = &rules->options;
    bool greedy = s->temperature == 0, cut = greedy || (s->top_k && s->top_k < s->n);
    bool all = !cut || changes_logits(o) || o->logprobs, limited = is_limited(o);
    size_t room = all || !greedy ? (size_t)vocab_size : SLM_MAX_THREADS, bytes = sizeof(float), n;
    rules->all = all;
    if (!all || limited) bytes += sizeof(int32_t) + sizeof(float);
    rules->choices = slm_alloc_array((size_t)n_rows, sizeof *rules->choices);
    rules->room = slm_mul_size((size_t)n_rows, room, &n) ? slm_alloc_array(n, bytes) : NULL;
    bool copies = o->logprobs && changes_logits(o), rows = limited && o->processed;
    if (copies) rules->changed = slm_alloc_array((size_t)vocab_size, sizeof *rules->changed);
    if (rows) rules->row = slm_alloc_array((size_t)vocab_size, sizeof *rules->row);
    if (!rules->choices || !rules->room || (copies && !rules->changed) || (rows && !rules->row)) return slm_fail_memory(error);
    float *values = rules->room;
    if (all) rules->logits = values;
    for (int64_t i = 0; i < n_rows; i++) {
        slm_choice *c = &rules->choices[i];
        *c = (slm_choice){.n_rows = s->n, .top = all ? INT64_MAX : greedy ? 0 : s->top_k, .values = values + (size_t)i * room};
        if (bytes == sizeof(float)) continue;
        c->ids = (int32_t *)(void *)(values + n) + (size_t)i * room;
        c->leading = values + 2 * n + (size_t)i * room;
    }
    return SLM_OK;
}

slm_status slm_rules_create(slm_rules *rules, const slm_model *model, slm_tokenizer *tokenizer,
                            const slm_generate_options *options, int64_t n_rows, slm_error *error) {
    slm_status status = check(options, tokenizer, error);
    if (status) return status;
    slm_model_stats stats;
    slm_model_describe(model, &stats);
    *rules =
        (slm_rules){.options = *options, .kernels = model->kernels, .context = stats.context, .vocab_size = stats.vocab_size};
    slm_generate_options *o = &rules->options;
    const slm_strings *stop = &options->stop;
    o->stop = (slm_strings){.count = stop->count};
    o->end_tokens = o->bias_ids = NULL;
    o->bias = NULL;
    if (o->constraint) slm_constraint_retain(o->constraint);
    status = copy((void **)&o->end_tokens, options->end_tokens, options->n_end_tokens, sizeof(int32_t), error);
    if (!status) status = copy((void **)&o->bias_ids, options->bias_ids, o->n_bias, sizeof(int32_t), error);
    if (!status) status = copy((void **)&o->bias, options->bias, o->n_bias, sizeof(float), error);
    if (!status) {
        status = copy((void **)&o->stop.bytes, stop->bytes, stop->count ? (size_t)stop->offsets[stop->count] : 0, 1, error);
    }
    if (!status) {
        size_t n = stop->count ? stop->count + 1 : 0;
        status = copy((void **)&o->stop.offsets, stop->offsets, n, sizeof(uint64_t), error);
    }
    /* Rows of the output layer past the tokenizer's vocabulary mean nothing and are never drawn. */
    int64_t n = tokenizer ? slm_min64(stats.vocab_size, slm_tokenizer_size(tokenizer)) : stats.vocab_size;
    if (!status) status = slm_penalties_create(&rules->penalties, o, stats.vocab_size, error);
    if (!status) status = slm_sampler_create(&rules->sampler, rules->kernels, o, n, error);
    if (!status) status = make_room(rules, n_rows, stats.vocab_size, error);
    if (tokenizer) rules->n_words = slm_max64(stats.vocab_size, slm_tokenizer_size(tokenizer)) / 64 + 1;
    if (status) {
        slm_rules_release(rules);
        return status;
    }
    rules->tokenizer = tokenizer ? slm_tokenizer_retain(tokenizer) : NULL;
    return SLM_OK;
}

void slm_rules_release(slm_rules *rules) {
    slm_penalties_release(&rules->penalties);
    slm_sampler_release(&rules->sampler);
    slm_free(rules->choices);
    slm_free(rules->room);
    slm_free(rules->changed);
    slm_free(rules->row);
    slm_free((void *)(uintptr_t)rules->options.end_tokens);
    slm_free((void *)(uintptr_t)rules->options.bias_ids);
    slm_free((void *)(uintptr_t)rules->options.bias);
    slm_free((void *)(uintptr_t)rules->options.stop.bytes);
    slm_free((void *)(uintptr_t)rules->options.stop.offsets);
    slm_constraint_release(rules->options.constraint);
    slm_tokenizer_release(rules->tokenizer);
    *rules = (slm_rules){0};
}

slm_status slm_sequence_init(slm_sequence *s, const int32_t *ids, int64_t n_prompt, int64_t n_held, int64_t length,
                             uint64_t sample, slm_error *error) {
    if (n_held < 0 || n_held > length || n_held >= n_prompt) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "prompt: expected at least one token behind those that are held");
    }
    *s = (slm_sequence){.n_prompt = n_prompt, .n_ids = n_prompt, .capacity = n_prompt, .n_run = n_held, .state = SLM_START};
    s->n_before = length - n_held;
    s->sample = sample;
    return copy((void **)&s->ids, ids, (size_t)n_prompt, sizeof *ids, error);
}

void slm_sequence_release(slm_sequence *s) {
    slm_free(s->ids);
    slm_free(s->allowed);
    slm_free(s->logprobs);
    slm_text_free(&s->bytes);
    slm_text_free(&s->text);
    *s = (slm_sequence){0};
}

/* Positions that are there for tokens behind the last one. */
static int64_t room(const slm_sequence *s, const slm_rules *rules) {
    return rules->context - s->n_before - s->n_ids;
}

/* Is there no token to come behind the last one? */
static bool is_full(const slm_sequence *s, const slm_rules *rules) {
    int64_t n = s->n_ids - s->n_prompt;
    return n >= rules->options.max_tokens || (n && room(s, rules) < 0);
}

/* Makes room for a token and drafts behind it. */
static slm_status reserve(slm_sequence *s, const slm_rules *rules, slm_error *error) {
    if (s->n_ids + 1 + SLM_DRAFT_MOST <= s->capacity) return SLM_OK;
    int64_t capacity = slm_max64(2 * s->capacity, 64);
    int32_t *ids = slm_realloc_array(s->ids, (size_t)capacity, sizeof *ids);
    if (!ids) return slm_fail_memory(error);
    s->ids = ids;
    if (rules->options.logprobs) {
        size_t n;
        bool fits = slm_mul_size((size_t)(capacity - s->n_prompt), (size_t)rules->options.logprobs + 1, &n);
        slm_logprob *logprobs = fits ? slm_realloc_array(s->logprobs, n, sizeof *logprobs) : NULL;
        if (!logprobs) return slm_fail_memory(error);
        s->logprobs = logprobs;
    }
    s->capacity = capacity;
    return SLM_OK;
}

slm_status slm_sequence_prepare(slm_sequence *s, const slm_rules *rules, int64_t most_drafts, slm_error *error) {
    s->n_drafts = 0;
    slm_status status = reserve(s, rules, error);
    if (status) return status;
    if (rules->options.draft == SLM_DRAFT_LOOKUP && s->n_ids - s->n_run == 1) { /* the prompt runs without */
        int64_t wanted = rules->options.max_tokens - (s->n_ids - s->n_prompt) - 1;
        int64_t most = slm_min64(slm_min64(most_drafts, SLM_DRAFT_MOST), slm_min64(wanted, room(s, rules)));
        s->n_drafts = slm_lookup_draft(&s->lookup, s->ids, s->n_ids, most);
    }
    return SLM_OK;
}

slm_part slm_sequence_part(const slm_sequence *s, slm_session *session) {
    return (slm_part){.session = session,
                      .tokens = s->ids + s->n_run,
                      .n_tokens = s->n_ids - s->n_run + s->n_drafts,
                      .n_outputs = 1 + s->n_drafts,
                      .n_drafts = s->n_drafts};
}

static bool ends_text(const slm_generate_options *o, int32_t token) {
    for (size_t i = 0; i < o->n_end_tokens && !o->ignore_eos; i++) {
        if (o->end_tokens[i] == token) return true;
    }
    return false;
}

/* The tokens' text joins s->text; s->cut says how much of it may be shown. */
static slm_status add_text(slm_sequence *s, const slm_rules *rules, const int32_t *tokens, size_t n_tokens, bool last,
                           slm_error *error) {
    if (!rules->tokenizer) return SLM_OK;
    s->bytes.size = 0;
    slm_status status = slm_tokenizer_decode(rules->tokenizer, tokens, n_tokens, true, NULL, &s->bytes, error);
    if (!status) status = slm_utf8_push(&s->utf8, s->bytes.bytes, s->bytes.size, last, &s->text, error);
    if (status || !s->text.size) return status;
    size_t safe;
    if (slm_stop_find(&rules->options.stop, s->text.bytes + s->cut, s->text.size - s->cut, &safe)) {
        s->finish = SLM_FINISH_STOP;
    } else if (last) {
        safe = s->text.size - s->cut;
    }
    s->cut += safe;
    return SLM_OK;
}

/* The text ends here: shows what was held back. */
static slm_status end_text(slm_sequence *s, const slm_rules *rules, slm_finish finish, slm_error *error) {
    s->finish = finish;
    return add_text(s, rules, NULL, 0, true, error);
}

/* The token joins the text, or ends it. */
static slm_status add_token(slm_sequence *s, const slm_rules *rules, int32_t token, slm_error *error) {
    const slm_generate_options *o = &rules->options;
    if (ends_text(o, token)) return end_text(s, rules, SLM_FINISH_STOP, error);
    s->ids[s->n_ids++] = token;
    if (!o->guided && is_full(s, rules)) s->finish = SLM_FINISH_LENGTH; /* a guided text may have come to its end */
    if (o->constraint) {
        s->state = slm_constraint_advance(o->constraint, s->state, token);
        if (o->constraint->automaton->forced[s->state] == SLM_ENDS) s->finish = SLM_FINISH_STOP;
    }
    return add_text(s, rules, &token, 1, s->finish, error);
}

/* ---- constraints --------------------------------------------------------------------------------------------------------- */

static void set_bit(uint64_t *bits, int32_t id, bool on) {
    uint64_t bit = (uint64_t)1 << id % 64;
    bits[id / 64] = on ? bits[id / 64] | bit : bits[id / 64] & ~bit;
}

/* Clears all bits from n on; is there one before? */
static bool cut_bits(uint64_t *bits, int64_t n_words, int64_t n) {
    bool any = false;
    bits[n / 64] &= ((uint64_t)1 << n % 64) - 1;
    memset(bits + n / 64 + 1, 0, (size_t)(n_words - n / 64 - 1) * sizeof *bits);
    for (int64_t i = 0; i <= n / 64 && !any; i++) any = bits[i];
    return any;
}

/* Asks which tokens may come, and whether the text may end. */
static slm_status ask(slm_sequence *s, const slm_rules *rules, bool *ends, slm_clock *clock, slm_error *error) {
    int64_t size = slm_tokenizer_size(rules->tokenizer);
    const int32_t *text = s->ids + s->n_prompt;
    if (slm_clock_allowed(clock, s->index, text, (size_t)(s->n_ids - s->n_prompt), s->allowed, (size_t)size + 1))
        return slm_fail_cancelled(error);
    *ends = s->allowed[size / 64] >> size % 64 & 1;
    return SLM_OK;
}

/* Finds the token that must come, else -1 and which tokens may come; *ends: may the text end? Tokens that end a text are no text,
 * whatever their bytes. */
static slm_status find_allowed(slm_sequence *s, const slm_rules *rules, int32_t *forced, bool *ends, slm_clock *clock,
                               slm_error *error) {
    const slm_generate_options *o = &rules->options;
    int64_t n_rows = rules->sampler.n;
    if (o->constraint) {
        *ends = o->constraint->automaton->accepts[s->state];
        *forced = slm_constraint_forced(o->constraint, s->state);
        if (0 <= *forced && *forced < n_rows && !ends_text(o, *forced)) return SLM_OK;
    }
    *forced = -1;
    if (!s->allowed) {
        s->allowed = slm_alloc_array((size_t)(rules->n_words + most_few(rules) / 2 + 1), sizeof *s->allowed);
        if (!s->allowed) return slm_fail_memory(error);
        s->few = (int32_t *)(void *)(s->allowed + rules->n_words);
    }
    memset(s->allowed, 0, (size_t)rules->n_words * sizeof *s->allowed);
    slm_status status =
        o->constraint ? slm_constraint_allowed(o->constraint, s->state, s->allowed, error) : ask(s, rules, ends, clock, error);
    if (status) return status;
    bool goes_on = cut_bits(s->allowed, rules->n_words, n_rows); /* else no need to choose between several ends */
    for (size_t i = 0; i < o->n_end_tokens && !o->ignore_eos && goes_on; i++) {
        int32_t end = o->end_tokens[i];
        if (0 <= end && end < n_rows) set_bit(s->allowed, end, *ends);
    }
    s->n_few = slm_list_bits(s->allowed, rules->n_words, most_few(rules), s->few);
    if (s->n_few == 1) *forced = s->few[0];
    return SLM_OK;
}

/* What must come has probability 1. */
static void note_forced(slm_sequence *s, const slm_rules *rules, int32_t token) {
    int64_t n = rules->options.logprobs;
    slm_logprob *out = n ? s->logprobs + (s->n_ids - s->n_prompt) * (1 + n) : NULL;
    for (int64_t i = 0; n && i <= n; i++) out[i] = (slm_logprob){.id = i < 2 ? token : -1};
}

slm_status slm_sequence_constrain(slm_sequence *s, const slm_rules *rules, slm_clock *clock, slm_error *error) {
    const slm_generate_options *o = &rules->options;
    slm_status status = SLM_OK;
    if (!is_limited(o) || !o->max_tokens) return SLM_OK;
    while (!status && s->finish == SLM_FINISH_NONE) {
        int32_t token;
        bool ends = false;
        status = reserve(s, rules, error); /* for the token below, or the one that is drawn */
        if (!status) status = find_allowed(s, rules, &token, &ends, clock, error);
        if (status) return status;
        bool only_ends = ends && token < 0 && !s->n_few;
        if (only_ends || is_full(s, rules))
            return s->broken = end_text(s, rules, only_ends ? SLM_FINISH_STOP : SLM_FINISH_LENGTH, error);
        if (token < 0 && s->n_few) return SLM_OK;
        if (token < 0) {
            return slm_fail(error, SLM_UNSUPPORTED, -1,
                            "constraint: the vocabulary has no token for what must follow %lld tokens",
                            (long long)(s->n_ids - s->n_prompt));
        }
        note_forced(s, rules, token);
        status = s->broken = add_token(s, rules, token, error);
    }
    return status;
}

void slm_sequence_limit(const slm_sequence *s, slm_rules *rules, int64_t row) {
    if (!is_limited(&rules->options)) return;
    slm_choice *choice = &rules->choices[row];
    bool many = s->n_few > most_few(rules);
    choice->allowed = many ? NULL : s->few;
    choice->n_allowed = many ? 0 : s->n_few;
    choice->mask = many ? s->allowed : NULL;
    rules->all = (row && rules->all) || (many && choice->top == INT64_MAX);
}

/* ---- what a step gives ---------------------------------------------------------------------------------------------------- */

/* What a row offers. */
static slm_candidates candidates_of(const slm_rules *rules, slm_choice *c) {
    if (!rules->all) return (slm_candidates){.logits = c->values, .ids = c->ids, .n = c->count};
    if (c->mask) slm_head_mask(c->mask, 0, c->values, rules->vocab_size);
    if (!c->allowed) return (slm_candidates){.logits = c->values, .n = c->n_rows};
    for (int64_t i = 0, n; i < c->n_allowed; i += n) {
        n = slm_run_length(c->allowed + i, c->n_allowed - i);
        memmove(c->values + i, c->values + c->allowed[i], (size_t)n * sizeof *c->values);
    }
    return (slm_candidates){.logits = c->values, .ids = c->allowed, .n = c->n_allowed};
}

static slm_status check_changed(const slm_candidates *c, slm_error *error) {
    for (int64_t i = 0; i < c->n; i++) {
        if (c->logits[i] < INFINITY) continue;
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "the logit of token %d has become %g: expected a finite number or -inf",
                        c->ids ? (int)c->ids[i] : (int)i, (double)c->logits[i]);
    }
    return SLM_OK;
}

/* What is raised sees all tokens; among candidates that are not all, the others are -infinity. */
static bool process(const slm_sequence *s, slm_rules *rules, const slm_candidates *c, slm_clock *clock) {
    float *row = c->ids ? rules->row : c->logits;
    for (int64_t i = 0; c->ids && i < rules->vocab_size; i++) row[i] = -INFINITY;
    for (int64_t i = 0; c->ids && i < c->n; i++) row[c->ids[i]] = c->logits[i];
    bool cancelled = slm_clock_logits(clock, s->ids, (size_t)s->n_ids, row, (size_t)rules->vocab_size);
    for (int64_t i = 0; c->ids && i < c->n; i++) c->logits[i] = row[c->ids[i]];
    return cancelled;
}

/* The token behind the last one, from one row. */
static slm_status draw_token(slm_sequence *s, slm_rules *rules, slm_choice *choice, int32_t *token, slm_clock *clock,
                             slm_error *error) {
    const slm_generate_options *o = &rules->options;
    slm_candidates c = candidates_of(rules, choice), own = c;
    if (changes_logits(o)) {
        if (o->logprobs) {
            c.logits = rules->changed;
            memcpy(c.logits, own.logits, (size_t)(c.ids ? c.n : rules->vocab_size) * sizeof *c.logits);
        }
        slm_penalties_apply(&rules->penalties, s->ids, s->n_ids, &c);
        if (o->processed && process(s, rules, &c, clock)) return slm_fail_cancelled(error);
        slm_status status = check_changed(&c, error);
        if (status) return status;
    }
    int64_t index = s->n_ids - s->n_prompt;
    int64_t i = slm_sampler_draw(&rules->sampler, c.logits, c.n, slm_random(o->seed, s->sample, (uint64_t)index));
    if (i < 0) return slm_fail(error, SLM_BAD_ARGUMENT, -1, "no token is left to draw: all of them are banned");
    *token = c.ids ? c.ids[i] : (int32_t)i;
    if (o->logprobs) {
        slm_logprob *out = s->logprobs + index * (1 + o->logprobs);
        slm_row row = slm_row_reduce(rules->kernels, own.logits, own.ids ? own.n : rules->vocab_size);
        out[0] = (slm_logprob){.id = *token, .logprob = (float)(own.logits[i] - row.most - row.total)};
        slm_row_likeliest(&row, own.logits, own.ids, own.n, o->logprobs, out + 1);
    }
    return SLM_OK;
}

slm_status slm_sequence_accept(slm_sequence *s, slm_rules *rules, slm_session *session, int64_t first_row, slm_clock *clock,
                               slm_error *error) {
    int64_t n_drafts = s->n_drafts, n_accepted = 0;
    slm_status status = SLM_OK, drawn = SLM_OK;
    s->n_drafts = 0;
    if (!rules->options.max_tokens) s->finish = SLM_FINISH_LENGTH;
    for (bool right = true; right && s->finish == SLM_FINISH_NONE;) {
        int64_t at = s->n_ids;
        int32_t token = -1, draft = n_accepted < n_drafts ? s->ids[at] : -1;
        drawn = draw_token(s, rules, &rules->choices[first_row + n_accepted], &token, clock, error);
        s->n_run = drawn ? at - 1 : at; /* the next try needs logits again */
        if (!drawn) status = s->broken = add_token(s, rules, token, error);
        if (drawn || status) break;
        right = s->n_ids > at && s->ids[at] == draft;
        n_accepted += right;
    }
    if (!drawn) slm_lookup_learn(&s->lookup, n_drafts, n_accepted, s->ids[s->n_ids - 1]);
    if (!status && (n_drafts || drawn)) status = slm_session_rewind(session, s->n_before + s->n_run, error);
    return drawn ? drawn : status;
}

void slm_sequence_chunk(slm_sequence *s, const slm_rules *rules, slm_chunk *chunk) {
    int64_t n_logprobs = rules->options.logprobs;
    *chunk = (slm_chunk){.text = s->text.size ? s->text.bytes + s->shown : NULL,
                         .text_size = s->cut - s->shown,
                         .tokens = s->ids + s->n_prompt + s->n_shown,
                         .n_tokens = (size_t)(s->n_ids - s->n_prompt - s->n_shown),
                         .logprobs = n_logprobs && s->logprobs ? s->logprobs + s->n_shown * (1 + n_logprobs) : NULL,
                         .finish = s->finish,
                         .n_drafted = s->lookup.n_drafted,
                         .n_accepted = s->lookup.n_accepted};
    s->n_shown = s->n_ids - s->n_prompt;
    s->shown = s->cut;
}

bool slm_sequence_has_chunk(const slm_sequence *s, const slm_rules *rules) {
    return rules->tokenizer ? s->cut > s->shown : s->n_ids - s->n_prompt > s->n_shown;
}
