/* SPDX-License-Identifier: Apache-2.0
 * sequence.h: one text in the making: its tokens, what of them has run, the text that may be shown, and where it ends. */
#ifndef SLM_GENERATE_SEQUENCE_H
#define SLM_GENERATE_SEQUENCE_H

#include "generate/constraint.h"
#include "generate/logprob.h"
#include "generate/lookup.h"
#include "generate/penalties.h"
#include "generate/sampler.h"
#include "model/session.h"

/* What all sequences of a call have in common. */
typedef struct slm_rules {
    slm_tokenizer *tokenizer;     /* NULL: no text */
    slm_generate_options options; /* its arrays are ours */
    slm_penalties penalties;
    slm_sampler sampler;
    const slm_kernels *kernels;
    int64_t context, vocab_size;
    slm_choice *choices; /* of each row of a step: what the sampler reads of its logits */
    float *logits;       /* [n_rows, vocab_size] where it reads all of them; else NULL */
    bool all;            /* the next step gives all logits, and no choices */
    void *room;          /* of the choices */
    float *changed;      /* [vocab_size] a row that changes and is also needed as it was */
    float *row;          /* [vocab_size] what is allowed in a row of all, to be processed */
    int64_t n_words;     /* of what is allowed of a row: a bit for each of it, each token of the vocabulary, and the end */
} slm_rules;

/* Checks and copies into rules, which stay where they are. n_rows: outputs of a step, at most. On failure there is nothing to
 * release. */
slm_status slm_rules_create(slm_rules *rules, const slm_model *model, slm_tokenizer *tokenizer,
                            const slm_generate_options *options, int64_t n_rows, slm_error *error);
void slm_rules_release(slm_rules *rules); /* zeroed is fine */

typedef struct slm_sequence { /* zeroed is empty */
    int32_t *ids;             /* [n_ids] the prompt, from n_prompt on what was generated; then n_drafts guesses */
    int64_t n_prompt, n_ids, n_drafts, capacity;
    int64_t n_run; /* the session has run ids[0 .. n_run - 1], and perhaps others before them: */
    int64_t n_before;
    uint64_t sample;       /* index under the seed */
    uint64_t index;        /* in its batch */
    slm_logprob *logprobs; /* [n_ids - n_prompt][1 + options.logprobs] if asked for */
    slm_lookup lookup;
    slm_utf8_stream utf8;
    slm_text bytes; /* of the last token */
    slm_text text;  /* [0, shown) was in the last chunk, [shown, cut) may go out, the rest may still become a stop string */
    size_t shown, cut;
    int64_t n_shown; /* generated tokens that were in earlier chunks */
    slm_finish finish;
    slm_status broken; /* text was lost to this error: no going on */
    uint32_t state;    /* of the constraint's automaton */
    uint64_t *allowed; /* [n_words] bits of the tokens that may come next, those that end the text among them; NULL: all */
    int32_t *few; /* [n_few] behind them, the same, ascending, where they are few; n_few is larger than what it holds where they
                     are many */
    int64_t n_few;
} slm_sequence;

/* ids: [n_prompt] the prompt, of which the first n_held stand at the end of what the session holds, `length` positions. */
slm_status slm_sequence_init(slm_sequence *sequence, const int32_t *ids, int64_t n_prompt, int64_t n_held, int64_t length,
                             uint64_t sample, slm_error *error);
void slm_sequence_release(slm_sequence *sequence);

/* Makes room for what the next step may yield, with up to most_drafts guesses of it. */
slm_status slm_sequence_prepare(slm_sequence *sequence, const slm_rules *rules, int64_t most_drafts, slm_error *error);
/* Of a limited text: adds the tokens that must come now, which may be the end, or finds out which may come. Cancelled: a later
 * call asks again. */
slm_status slm_sequence_constrain(slm_sequence *sequence, const slm_rules *rules, slm_clock *clock, slm_error *error);
/* Of a limited text, before a step of which this is a row: limits it to them. Row 0 goes first. */
void slm_sequence_limit(const slm_sequence *sequence, slm_rules *rules, int64_t row);
/* What its session is to run then: all tokens that have not run yet, and the drafts. */
slm_part slm_sequence_part(const slm_sequence *sequence, slm_session *session);
/* Takes the outputs of that part, rows first_row .. first_row + n_drafts: draws a token, and from the row of each draft that
 * turns out to be what was drawn one more; or finds the end. Takes the drafts back that did not turn out so. On failure what was
 * drawn stays, and unless text is lost a later step can go on. */
slm_status slm_sequence_accept(slm_sequence *sequence, slm_rules *rules, slm_session *session, int64_t first_row,
                               slm_clock *clock, slm_error *error);

/* What has come since the last chunk, without its timings. Valid until the next step. */
void slm_sequence_chunk(slm_sequence *sequence, const slm_rules *rules, slm_chunk *chunk);
/* Is there something to show? */
bool slm_sequence_has_chunk(const slm_sequence *sequence, const slm_rules *rules);

#endif
