/* SPDX-License-Identifier: Apache-2.0
 * test_constraint.c: texts that a constraint or a guide keeps to, alone and in batches, against the definition: the logits of
 * what may come, and a draw from these. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "generate/constraint.h"
#include "generate/random.h"
#include "generate/sampler.h"
#include "slm.h"
#include "tiny_model.h"
#include "tiny_tokenizer.h"

/* The token that must come: all that may come are beginnings of it, and it is the longest of them. */
static int32_t longest_of_chain(slm_tokenizer *tokenizer, const slm_tokens *allowed) {
    slm_error error;
    int32_t longest = allowed->ids[0];
    char text[2][8] = {{0}};
    for (size_t i = 0; i < allowed->count; i++) {
        slm_text one = {0};
        CHECK(slm_tokenizer_decode(tokenizer, &allowed->ids[i], 1, false, NULL, &one, &error) == SLM_OK);
        memcpy(text[1], one.bytes, one.size);
        text[1][one.size] = 0;
        slm_text_free(&one);
        size_t n = strlen(text[0]), m = strlen(text[1]);
        if (memcmp(text[0], text[1], n < m ? n : m)) return -1;
        if (m > n) longest = allowed->ids[i], memcpy(text[0], text[1], sizeof text[0]);
    }
    return longest;
}

typedef struct guide {
    slm_constraint *constraint;
    slm_automaton *automaton;
    slm_tokenizer *tokenizer;
    uint64_t texts; /* a bit for each that was asked about */
} guide;

/* Allows what the constraint does: what must come alone. */
static int allow(void *user, const slm_event *event) {
    guide *g = user;
    slm_error error;
    slm_text text = {0};
    slm_tokens allowed = {0};
    if (event->kind != SLM_EVENT_ALLOWED) return 0;
    g->texts |= (uint64_t)1 << event->text;
    CHECK(event->n_allowed == VOCAB + 1);
    CHECK(slm_tokenizer_decode(g->tokenizer, event->tokens, event->n_tokens, false, NULL, &text, &error) == SLM_OK);
    CHECK(slm_constraint_follow(g->constraint, text.bytes, text.size, &allowed, &error) == SLM_OK);
    bool ends = slm_automaton_matches(g->automaton, text.bytes, text.size);
    uint32_t state = SLM_START;
    for (size_t i = 0; i < text.size; i++) state = slm_automaton_next(g->automaton, state, (uint8_t)text.bytes[i]);
    int32_t forced = slm_constraint_forced(g->constraint, state);
    for (size_t i = 0; i < allowed.count; i++) {
        if (forced < 0 || allowed.ids[i] == forced) event->allowed[allowed.ids[i] / 64] |= (uint64_t)1 << allowed.ids[i] % 64;
    }
    if (ends) event->allowed[VOCAB / 64] |= (uint64_t)1 << VOCAB % 64;
    slm_tokens_free(&allowed);
    slm_text_free(&text);
    return 0;
}

static bool same_text(const slm_chunk *a, const slm_chunk *b) {
    return a->n_tokens == b->n_tokens && a->finish == b->finish && !memcmp(a->tokens, b->tokens, a->n_tokens * sizeof *a->tokens);
}

/* The definition: the logits of what may come, and a draw from these. A guide that allows the same gives the same. */
static void test_constraint(slm_model *model) {
    slm_error error;
    slm_session *session = NULL, *other = NULL;
    slm_generation *generation = NULL;
    slm_constraint *constraint = NULL;
    slm_tokenizer *tokenizer = letters_tokenizer(&error);
    CHECK(tokenizer && make_constraint(tokenizer, &constraint, &error) == SLM_OK);
    slm_automaton *automaton = NULL;
    CHECK(slm_automaton_create(expressions, sizeof expressions / sizeof *expressions, NULL, &automaton, &error) == SLM_OK);
    const int32_t end = VOCAB - 1;
    int64_t n_forced = 0, n_drawn = 0, n_cases = 0;
    for (int i = 0; i < 12; i++) { /* greedy, top-k, top-p alone, nothing cut */
        slm_chunk chunk;
        slm_generate_options options = {.max_tokens = i < 8 ? 40 : 5,
                                        .top_p = i % 4 == 2 ? 0.8f : 1,
                                        .end_tokens = &end,
                                        .n_end_tokens = 1,
                                        .seed = (uint64_t)i};
        options.constraint = constraint;
        options.temperature = i % 4 ? 2 : 0;
        options.top_k = i % 4 == 1 ? 7 : 0;
        int events = 0;
        slm_call stop = {.event = always_stop, .user = &events}, call = {.threads = 1 + i % 2};
        CHECK(slm_session_create(model, &session, &error) == SLM_OK && slm_session_create(model, &other, &error) == SLM_OK);
        CHECK(slm_generation_create(session, tokenizer, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
        CHECK(slm_generation_next(generation, true, &stop, &chunk, &error) == SLM_CANCELLED);
        CHECK(slm_generation_next(generation, true, &call, &chunk, &error) == SLM_OK && chunk.finish != SLM_FINISH_NONE);
        bool matches = slm_automaton_matches(automaton, chunk.text, chunk.text_size);
        CHECK(chunk.finish == SLM_FINISH_STOP ? matches : chunk.n_tokens == (size_t)options.max_tokens);
        slm_sampler sampler;
        CHECK(slm_sampler_create(&sampler, slm_kernels_active(), &options, VOCAB, &error) == SLM_OK);
        size_t at = 0;
        for (size_t n = 0; n < chunk.n_tokens; n++) {
            float logits[VOCAB], some[VOCAB];
            slm_tokens allowed = {0};
            slm_text text = {0};
            CHECK(slm_constraint_follow(constraint, chunk.text, at, &allowed, &error) == SLM_OK && allowed.count);
            if (slm_automaton_matches(automaton, chunk.text, at)) allowed.ids[allowed.count++] = end; /* the last id of all */
            CHECK(
                !slm_session_forward(other, n ? &chunk.tokens[n - 1] : prompt, n ? 1 : 9, SLM_LOGITS_LAST, logits, NULL, &error));
            for (size_t j = 0; j < allowed.count; j++) some[j] = logits[allowed.ids[j]];
            int64_t best = slm_sampler_draw(&sampler, some, (int64_t)allowed.count, slm_random(options.seed, 0, n));
            bool forced = longest_of_chain(tokenizer, &allowed) == chunk.tokens[n];
            CHECK(forced || chunk.tokens[n] == allowed.ids[best]);
            n_forced += forced;
            n_drawn += !forced;
            CHECK(slm_tokenizer_decode(tokenizer, &chunk.tokens[n], 1, false, NULL, &text, &error) == SLM_OK);
            at += text.size;
            slm_text_free(&text);
            slm_tokens_free(&allowed);
        }
        CHECK(at == chunk.text_size);
        CHECK(slm_session_length(session) + 2 - (matches ? 1 : 0) >= 9 + (int64_t)chunk.n_tokens); /* but for the last */

        /* In a batch, the same. */
        slm_batch *batch = NULL;
        const slm_prompt prompts[] = {{prompt, 50}, {prompt, 9}, {prompt + 1, 49}};
        slm_chunk found;
        CHECK(slm_batch_create(model, tokenizer, prompts, 3, &options, &batch, &error) == SLM_OK);
        CHECK(slm_batch_run(batch, &call, &error) == SLM_OK);
        slm_batch_chunk(batch, 1, &found);
        CHECK(same_text(&found, &chunk));
        slm_batch_release(batch);

        /* Guided, alone and in a batch. */
        guide g = {.constraint = constraint, .automaton = automaton, .tokenizer = tokenizer};
        slm_call guided = {.event = allow, .user = &g};
        slm_generation *alone = NULL;
        options.constraint = NULL;
        options.guided = true;
        CHECK(slm_session_rewind(other, 0, &error) == SLM_OK);
        CHECK(slm_generation_create(other, tokenizer, prompt, 9, 0, &options, &alone, &error) == SLM_OK);
        CHECK(slm_generation_next(alone, true, &stop, &found, &error) == SLM_CANCELLED);
        CHECK(slm_generation_next(alone, true, &guided, &found, &error) == SLM_OK && same_text(&found, &chunk) && g.texts == 1);
        slm_generation_release(alone);
        CHECK(slm_batch_create(model, tokenizer, prompts, 3, &options, &batch, &error) == SLM_OK);
        CHECK(slm_batch_run(batch, &stop, &error) == SLM_CANCELLED);
        CHECK(slm_batch_run(batch, &guided, &error) == SLM_OK);
        slm_batch_chunk(batch, 1, &found);
        CHECK(same_text(&found, &chunk) && g.texts == 7);
        slm_batch_release(batch);
        slm_sampler_release(&sampler);
        slm_generation_release(generation);
        slm_session_release(session);
        slm_session_release(other);
        n_cases += chunk.finish == SLM_FINISH_STOP;
    }
    CHECK(n_forced > 2 && n_drawn > 20 && n_cases > 2 && n_cases < 12);
    slm_generate_options options = {.max_tokens = 1, .top_p = 1, .constraint = constraint, .draft = SLM_DRAFT_LOOKUP};
    CHECK(slm_session_create(model, &session, &error) == SLM_OK);
    CHECK(slm_generation_create(session, tokenizer, prompt, 9, 0, &options, &generation, &error) == SLM_BAD_ARGUMENT);
    options.draft = SLM_DRAFT_NONE;
    CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_BAD_ARGUMENT);
    options.guided = true;
    CHECK(slm_generation_create(session, tokenizer, prompt, 9, 0, &options, &generation, &error) == SLM_BAD_ARGUMENT);
    options.constraint = NULL;
    CHECK(slm_generation_create(session, NULL, prompt, 9, 0, &options, &generation, &error) == SLM_BAD_ARGUMENT);
    CHECK(slm_generation_create(session, tokenizer, prompt, 9, 0, &options, &generation, &error) == SLM_OK);
    slm_chunk chunk; /* nobody to ask */
    CHECK(slm_generation_next(generation, true, NULL, &chunk, &error) == SLM_UNSUPPORTED);
    slm_generation_release(generation);
    slm_session_release(session);
    slm_automaton_release(automaton);
    slm_constraint_release(constraint);
    slm_tokenizer_release(tokenizer);
}

static void test_type(files *f, slm_type type) {
    slm_model *model = NULL;
    slm_error error;
    (void)type;
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &model, &error) == SLM_OK);
    test_constraint(model);
    slm_model_release(model);
}

int main(int argc, char **argv) {
    slm_error error;
    CHECK(slm_init(getenv("SLM_ISA"), &error) == SLM_OK);
    each_type(argc, argv, test_type);
    return finish();
}
