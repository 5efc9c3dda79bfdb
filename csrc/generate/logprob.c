/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/logprob.h"

#include <math.h>
#include <string.h>

#include "base/arith.h"

enum { BLOCK = 2048 /* logits whose exponentials are summed in f32 */ };

slm_row slm_row_reduce(const slm_kernels *kernels, const float *logits, int64_t n) {
    _Alignas(64) float block[BLOCK];
    slm_row r = {.most = -INFINITY};
    int64_t at = 0;
    double total = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t count = slm_min64(BLOCK, n - i);
        float most, sum;
        memcpy(block, logits + i, (size_t)count * sizeof *block);
        kernels->attention_softmax(block, 0, count, slm_round_up(count, 16), false, &most, &sum);
        if (most == -INFINITY) continue;
        if (most > r.most) {
            total = total * exp((double)r.most - most) + sum;
            r.most = most;
            at = i;
        } else {
            total += sum * exp((double)most - r.most);
        }
    }
    while (logits[at] != r.most) at++;
    r.best = (int32_t)at;
    r.total = log(total);
    return r;
}

void slm_row_likeliest(const slm_row *row, const float *logits, const int32_t *ids, int64_t n, int64_t k, slm_logprob *out) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (logits[i] == -INFINITY || (count == k && !(logits[i] > out[k - 1].logprob))) continue;
        int64_t at = count < k ? count++ : k - 1;
        for (; at && logits[i] > out[at - 1].logprob; at--) out[at] = out[at - 1];
        out[at] = (slm_logprob){.id = ids ? ids[i] : (int32_t)i, .logprob = logits[i]};
    }
    for (int64_t i = 0; i < count; i++) out[i].logprob = (float)(out[i].logprob - row->most - row->total);
    for (int64_t i = count; i < k; i++) out[i] = (slm_logprob){.id = -1};
}
