/* SPDX-License-Identifier: Apache-2.0
 * plan.h: what a model will hold and where, before anything is read: all checks of what the caller describes, all sizes. */
#ifndef SLM_MODEL_PLAN_H
#define SLM_MODEL_PLAN_H

#include "model/model.h"

typedef struct slm_planned {
    const slm_tensor *tensor;
    const char *name;
    int layer;            /* -1: none */
    slm_matrix *matrix;   /* where it goes, or */
    const float **vector; /* in f32, each row padded to 16 with zeros */
    float added;          /* to each element of a vector */
    bool screened;        /* if it can be */
    bool checked;         /* NaN or infinity is refused; of floats */
    slm_type type;        /* that it is packed as */
    slm_matrix shape;     /* of the packed matrix; a vector is read as one row, or a row of each head */
    size_t at;            /* in the arena */
    int64_t n_items;      /* pieces that threads take */
    int64_t panels_per_item;
} slm_planned;

typedef struct slm_plan {
    slm_model *model; /* complete but for the arena: matrices have no data, vectors are NULL */
    slm_type quantize;
    bool screening; /* of the output layer */
    slm_planned *tensors;
    int64_t n_tensors, n_items;
    uint64_t file_bytes;             /* of all tensors */
    size_t rows_bytes, blocks_bytes; /* of the largest item: in the file, and encoded */
    int64_t widest;                  /* columns of what is encoded or checked */
} slm_plan;

/* Borrows weights. On failure the plan is empty. */
slm_status slm_plan_create(const slm_config *config, const slm_weights *weights, const slm_load_options *options, slm_plan *plan,
                           slm_error *error);
void slm_plan_release(slm_plan *plan); /* and its model, if it is still there */

/* Checks a tensor of rows x cols, gives it a place in the arena and adds it to plan->tensors, which has room. blas: BLIS may
 * run it. */
slm_status slm_plan_tensor(slm_plan *plan, const slm_planned *request, int64_t rows, int64_t cols, bool blas, slm_error *error);
/* Reads and packs all tensors into the model's arena. */
slm_status slm_plan_load(const slm_plan *plan, const slm_call *call, slm_error *error);

/* Of a row in the file. */
size_t slm_planned_row_bytes(const slm_planned *p);
/* Floats of a row of a vector in the arena. */
int64_t slm_planned_stride(const slm_planned *p);
/* Whether rows are floats that become blocks. */
bool slm_planned_is_encoded(const slm_planned *p);

#endif
