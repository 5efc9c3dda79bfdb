/* SPDX-License-Identifier: Apache-2.0
 * test_adapters.c: models with adapters over the weights of another: they keep all promises, sum, fail once with every
 * allocation, and refuse what is wrong. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "check.h"
#include "model_promises.h"
#include "slm.h"
#include "tiny_model.h"

enum { RANK = 5, LORAS = 9 * LAYERS };

/* Addends of all targets, of three types; rows of one b lie in two places, and one a is stored as columns. */
static int64_t write_loras(files *f, slm_lora *loras, slm_tensor *below) {
    const int64_t rows[] = {VOCAB, VOCAB, HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, HIDDEN, INNER,
                            INNER, HIDDEN};
    const int64_t cols[] = {HIDDEN, HIDDEN, HIDDEN, HIDDEN, HIDDEN, HEADS * HEAD_DIM, HIDDEN, HIDDEN, INNER};
    const slm_type types[] = {SLM_TYPE_F32, SLM_TYPE_F16, SLM_TYPE_BF16};
    int64_t n = 0;
    for (int target = 0; target < SLM_TARGETS; target++) {
        bool embeds = target == SLM_TARGET_EMBED_TOKENS;
        for (int layer = 0; layer < (target < SLM_TARGET_Q_PROJ ? 1 : LAYERS); layer++, n++) {
            int64_t rank = RANK + 14 * layer;
            slm_type type = types[n % 3];
            loras[n] = (slm_lora){.target = target, .layer = layer, .scale = 0.5f};
            loras[n].a = write_tensor(f, type, rank, embeds ? rows[target] : cols[target]);
            loras[n].b = write_tensor(f, type, embeds ? cols[target] : rows[target], rank);
        }
    }
    loras[0].a = (slm_tensor){loras[0].a.type, f->fd, loras[0].a.offset, VOCAB, RANK, VOCAB, NULL};
    slm_tensor *b = &loras[2].b;
    *below = *b;
    below->rows = 3;
    below->offset += (uint64_t)((b->rows - 3) * b->cols * slm_type_block_bytes(b->type));
    b->rows -= 3;
    b->below = below;
    return n;
}

static void test_adapters(files *f) {
    static float expected[PROMPT * VOCAB], found[PROMPT * VOCAB];
    static slm_lora loras[LORAS];
    slm_tensor below;
    slm_error error;
    int64_t n = write_loras(f, loras, &below), before = slm_alloc_outstanding();
    slm_model *base = NULL, *adapted = NULL, *twice = NULL;
    slm_model_stats stats[2];
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &base, &error) == SLM_OK);
    CHECK(run(base, PROMPT, 1, PROMPT, expected));
    CHECK(slm_model_adapt(base, loras, n, NULL, &adapted, &error) == SLM_OK);
    test_bits(adapted);
    test_parts(adapted);
    test_generation(adapted);
    CHECK(run(adapted, PROMPT, 1, PROMPT, found) && memcmp(expected, found, sizeof found));
    slm_model_describe(base, &stats[0]);
    slm_model_describe(adapted, &stats[1]);
    CHECK(stats[1].weight_bytes > stats[0].weight_bytes && stats[1].token_bytes > stats[0].token_bytes);

    /* What two adapters add is summed; those of no scale add nothing at all. */
    for (int64_t i = 0; i < n; i++) loras[i].scale = 0;
    CHECK(slm_model_adapt(adapted, loras, n, NULL, &twice, &error) == SLM_OK && run(twice, 99, 2, PROMPT, expected));
    CHECK(!memcmp(expected, found, sizeof found));
    slm_model_release(twice);
    for (int64_t i = 0; i < n; i++) loras[i].scale = -0.5f;
    CHECK(slm_model_adapt(adapted, loras, n, NULL, &twice, &error) == SLM_OK);
    test_bits(twice);
    slm_model_release(base);
    slm_model_release(adapted);
    CHECK(run(twice, PROMPT, 2, PROMPT, found) && memcmp(expected, found, sizeof found)); /* it holds their weights */
    slm_model_release(twice);
    CHECK(slm_alloc_outstanding() == before);

    /* Every allocation fails once, a call is cancelled, and what is wrong is refused. */
    CHECK(slm_model_load(&f->config, &f->weights, &plain, NULL, &base, &error) == SLM_OK);
    int64_t held = slm_alloc_outstanding();
    slm_status status = SLM_NO_MEMORY;
    adapted = NULL;
    for (int64_t k = 0; status == SLM_NO_MEMORY && k < 1000; k++) {
        slm_alloc_fail_at(k, false);
        status = slm_model_adapt(base, loras, n, NULL, &adapted, &error);
        slm_alloc_fail_at(-1, false);
        CHECK(status == SLM_OK ? k > 5 : status == SLM_NO_MEMORY && !adapted && slm_alloc_outstanding() == held);
    }
    CHECK(status == SLM_OK);
    slm_model_release(adapted);
    adapted = NULL;
    int events = 0;
    slm_call stop = {.event = always_stop, .user = &events};
    CHECK(slm_model_adapt(base, loras, n, &stop, &adapted, &error) == SLM_CANCELLED && events);
    CHECK(slm_model_adapt(base, loras, 0, NULL, &adapted, &error) == SLM_BAD_ARGUMENT);
    slm_lora wrong[] = {loras[2], loras[2], loras[2], loras[2], loras[2], loras[2],
                        loras[0], loras[1], loras[3], loras[3], loras[3]};
    wrong[0].layer = LAYERS;
    wrong[1].layer = -1;
    wrong[2].target = (slm_target)SLM_TARGETS;
    wrong[3].scale = INFINITY;
    wrong[4].a.cols--;
    wrong[5].b.below = NULL;
    wrong[6].a.rows--;
    wrong[7].layer = 1;
    wrong[8].a.rows++;
    wrong[9].a.type = SLM_TYPE_Q8_0;
    wrong[10].a.rows = 0;
    for (int i = 0; i < 11; i++) {
        slm_status expect = i == 9 ? SLM_UNSUPPORTED : SLM_BAD_ARGUMENT;
        CHECK(slm_model_adapt(base, &wrong[i], 1, NULL, &adapted, &error) == expect && !adapted);
    }
    float nan = NAN;
    slm_lora *last = &loras[n - 1];
    last->b = write_tensor(f, SLM_TYPE_F32, HIDDEN, last->b.cols);
    CHECK(pwrite(f->fd, &nan, sizeof nan, (off_t)(last->b.offset + 4)) == sizeof nan);
    CHECK(slm_model_adapt(base, loras, n, NULL, &adapted, &error) == SLM_BAD_DATA && !adapted && error.index == LAYERS - 1);
    CHECK(strstr(error.message, "lora_b of down_proj of layer 2"));
    slm_model_release(base);
    CHECK(slm_alloc_outstanding() == before);
}

static void test_type(files *f, slm_type type) {
    if (type == SLM_TYPE_Q4_0 || type == SLM_TYPE_BF16) test_adapters(f);
}

int main(int argc, char **argv) {
    slm_error error;
    CHECK(slm_init(getenv("SLM_ISA"), &error) == SLM_OK);
    each_type(argc, argv, test_type);
    return finish();
}
