/* SPDX-License-Identifier: Apache-2.0
 * python.h: what the files of the extension module share. One file per Python type; the limited API of 3.11. */
#ifndef SLM_PYTHON_PYTHON_H
#define SLM_PYTHON_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "slm.h"

/* Signal handlers get to run so often while tokens are read or made. */
enum { SLM_PY_TOKENS_PER_LOOK = 1 << 14 };

/* ---- module state: every object the module keeps -------------------------------------------------------------------- */

typedef struct slm_py_state {
    PyObject *FormatError, *UnsupportedError, *LimitError, *ContextLengthError, *NumericsError, *ClosedError, *BusyError,
        *InternalError;
    PyObject *interrupt; /* a ContextVar: None, or a function; see slm_py_call_begin */
    PyTypeObject *Model, *Session, *Generation, *Tokenizer, *TokenIterator, *Automaton, *Constraint;
    unsigned long main_thread; /* the only one that runs signal handlers */
    long process;              /* for which that is true: a fork makes another thread the main one */
} slm_py_state;

/* Of the class that defines a method (METH_METHOD), or of any of our types: none can be subclassed. */
slm_py_state *slm_py_state_of(PyTypeObject *defining_class);

/* False where the environment says SLM_SCREENING=0. */
bool slm_py_screening(void);

/* Each makes its types and functions and adds them to the module; -1 with an exception set. */
int slm_py_add_model(PyObject *module, slm_py_state *state);
int slm_py_add_session(PyObject *module, slm_py_state *state);
int slm_py_add_generation(PyObject *module, slm_py_state *state);
int slm_py_add_tokenizer(PyObject *module, slm_py_state *state);
int slm_py_add_constraint(PyObject *module, slm_py_state *state);
int slm_py_add_token_lists(PyObject *module, slm_py_state *state);

/* ---- errors -------------------------------------------------------------------------------------------------------------- */

/* Sets the exception for error and returns NULL. A cancelled call has its exception (from the signal handler) set already. */
PyObject *slm_py_raise(const slm_py_state *state, const slm_error *error);

/* ---- calls into the core ----------------------------------------------------------------------------------------------------
 */

typedef struct slm_py_call {
    slm_call call;      /* pass its address to the core; set threads and prefill_chunk before or after begin */
    PyObject *progress; /* borrowed; called with (done, total) of events of the next kind; may be NULL */
    slm_event_kind progress_kind;
    PyObject *processors; /* borrowed; a tuple, each called with (tokens, logits); may be NULL */
    PyObject *taps;       /* borrowed; what slm_py_read_taps has read; may be NULL */
    PyObject *guide;      /* borrowed; called with (text, tokens), gives the bits of what may follow; may be NULL */
    PyObject *interrupt;  /* from begin to end; may be NULL */
    PyThreadState *thread;
    double next_look; /* when to run signal handlers again */
} slm_py_call;

/* Releases the GIL. The core's events take it for a moment: on the main thread to run signal handlers, and to call what the
 * context variable `interrupt` holds, whose exception ends the call. */
void slm_py_call_begin(slm_py_call *call, slm_py_state *state);
/* Takes the GIL back. False: an exception is set. */
bool slm_py_call_end(slm_py_call *call);

/* Puts taps into a call, as _core.pyi has them; NULL: none. n_tokens: of a call that fills arrays, n_keys: positions that its
 * last token sees; n_tokens < 0: only functions. False with an exception. Either way slm_py_free_taps. */
bool slm_py_read_taps(PyObject *taps, const slm_model *model, int64_t n_tokens, int64_t n_keys, slm_py_call *call);
void slm_py_free_taps(slm_py_call *call);
/* Has the function of the event's tap change its rows. -1 with an exception. */
int slm_py_edit(const slm_py_call *call, const slm_event *event);

/* ---- arguments ------------------------------------------------------------------------------------------------------------ */

bool slm_py_bool(PyObject *object, const char *name, bool *out);
/* A Python or NumPy integer, no bool, least .. most. False with TypeError or ValueError naming it. */
bool slm_py_int(PyObject *object, const char *name, int64_t least, int64_t most, int64_t *out);
/* The same for 0 .. 2^64 - 1. */
bool slm_py_uint64(PyObject *object, const char *name, uint64_t *out);
bool slm_py_float(PyObject *object, const char *name, double *out);
/* A flat sequence or integer array of token ids, each in int32: a block to be freed with slm_py_free. NULL with an exception. */
int32_t *slm_py_tokens(PyObject *object, const char *name, int64_t *count);
/* A (bytes, uint64 offsets) pair as strings; *keep holds what they borrow from. False with an exception. */
bool slm_py_strings(PyObject *object, const char *name, slm_strings *strings, PyObject **keep);
void slm_py_free(void *block);

/* [rows, cols] f32, zeroed: a new array and its data. NULL with an exception. rows < 0: one dimension. */
PyObject *slm_py_new_array_f32(int64_t rows, int64_t cols, float **data);
/* A one-dimensional f32 array's data, borrowed from the new reference *keep. NULL with an exception. */
const float *slm_py_floats(PyObject *object, const char *name, int64_t *count, PyObject **keep);
/* A two-dimensional f32 array's data [*rows, cols], borrowed from the new reference *keep. NULL with an exception. */
const float *slm_py_rows(PyObject *object, const char *name, int64_t cols, int64_t *rows, PyObject **keep);
bool slm_py_is_array(PyObject *object);
/* The data of a contiguous, writable f32 array of so many elements; NULL with an exception. */
float *slm_py_array_to_fill(PyObject *array, const char *name, int64_t n);
/* Calls function(rows, positions) with the event's; rows become what it returns or, where that is None, makes of them. -1 with an
 * exception. */
int slm_py_edit_rows(PyObject *function, const char *name, const slm_event *event);
/* Calls each of a tuple with arrays of the event's tokens and logits, of which the latter may change in place. -1 with an
 * exception. */
int slm_py_process_logits(PyObject *processors, const slm_event *event);
/* Calls the guide with the event's text and its tokens. -1 with an exception. */
int slm_py_ask_guide(PyObject *guide, const slm_event *event);
/* A new uint64 array. */
PyObject *slm_py_new_array_u64(int64_t count, uint64_t **data);

/* The core's object inside a Python one; NULL with TypeError or ClosedError. Borrowed. */
slm_tokenizer *slm_py_tokenizer(const slm_py_state *state, PyObject *object);
slm_constraint *slm_py_constraint(const slm_py_state *state, PyObject *object); /* the same, without ClosedError */

#endif
