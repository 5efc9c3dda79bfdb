/* SPDX-License-Identifier: Apache-2.0
 * support.c: errors, calls and plain arguments of the boundary. */
#include "python/python.h"

#include <unistd.h>

#include "base/alloc.h"
#include "base/call.h"

slm_py_state *slm_py_state_of(PyTypeObject *defining_class) {
    return PyType_GetModuleState(defining_class);
}

/* ---- errors ------------------------------------------------------------------------------------------------------------ */

static PyObject *raise_class(PyObject *class, const slm_error *error) {
    PyObject *exception = PyObject_CallFunction(class, "s", error->message);
    if (!exception) return NULL;
    PyObject *index = error->index >= 0 ? PyLong_FromLongLong(error->index) : NULL;
    if (error->index < 0 || (index && PyObject_SetAttrString(exception, "index", index) == 0)) PyErr_SetObject(class, exception);
    Py_XDECREF(index);
    Py_DECREF(exception);
    return NULL;
}

static PyObject *raise_os_error(const slm_error *error) {
    PyObject *arguments = Py_BuildValue("(is)", error->os_error, error->message);
    if (arguments) PyErr_SetObject(PyExc_OSError, arguments); /* becomes the subclass for this errno */
    Py_XDECREF(arguments);
    return NULL;
}

PyObject *slm_py_raise(const slm_py_state *state, const slm_error *error) {
    if (PyErr_Occurred()) return NULL;
    switch (error->status) {
    case SLM_NO_MEMORY: return PyErr_NoMemory();
    case SLM_BAD_ARGUMENT: PyErr_SetString(PyExc_ValueError, error->message); return NULL;
    case SLM_BAD_DATA: return raise_class(state->FormatError, error);
    case SLM_IO_ERROR: return raise_os_error(error);
    case SLM_CONTEXT_FULL: return raise_class(state->ContextLengthError, error);
    case SLM_NOT_A_NUMBER: return raise_class(state->NumericsError, error);
    case SLM_TOO_LARGE: return raise_class(state->LimitError, error);
    case SLM_UNSUPPORTED: return raise_class(state->UnsupportedError, error);
    case SLM_CANCELLED:
        PyErr_SetString(PyExc_RuntimeError, "the call was cancelled: its process forked inside a callback");
        return NULL;
    case SLM_OK:
    case SLM_INTERNAL: break;
    }
    return raise_class(state->InternalError, error);
}

/* ---- calls ---------------------------------------------------------------------------------------------------------------- */

/* Taking the GIL may wait for a busy Python thread's whole time slice, so not at every event. */
static const double LOOK_SECONDS = 0.02;

/* As PEP 479: who drives a coroutine or an iterator over the call would take these for its end. */
static void refuse_stop_iteration(void) {
    if (!PyErr_ExceptionMatches(PyExc_StopIteration) && !PyErr_ExceptionMatches(PyExc_StopAsyncIteration)) return;
    PyObject *type, *cause, *traceback;
    PyErr_Fetch(&type, &cause, &traceback);
    PyErr_NormalizeException(&type, &cause, &traceback);
    if (traceback) PyException_SetTraceback(cause, traceback);
    PyObject *error =
        PyObject_CallFunction(PyExc_RuntimeError, "s", "a function that was given to the call raised StopIteration");
    if (error) {
        Py_INCREF(cause);
        PyException_SetCause(error, cause); /* takes the reference */
        PyErr_SetObject(PyExc_RuntimeError, error);
    }
    Py_XDECREF(error);
    Py_XDECREF(type);
    Py_XDECREF(cause);
    Py_XDECREF(traceback);
}

static int on_event(void *user, const slm_event *event) {
    slm_py_call *call = user;
    bool progress = call->progress && event->kind == call->progress_kind;
    bool logits = event->kind == SLM_EVENT_LOGITS && call->processors, edit = event->kind == SLM_EVENT_ACTIVATION;
    bool allowed = event->kind == SLM_EVENT_ALLOWED && call->guide;
    if (!progress && !logits && !edit && !allowed && slm_seconds() < call->next_look) return 0;
    PyEval_RestoreThread(call->thread);
    int stop = PyErr_CheckSignals();
    if (!stop && call->interrupt) {
        PyObject *result = PyObject_CallNoArgs(call->interrupt);
        stop = !result;
        Py_XDECREF(result);
    }
    if (!stop && logits) stop = slm_py_process_logits(call->processors, event);
    if (!stop && edit) stop = slm_py_edit(call, event);
    if (!stop && allowed) stop = slm_py_ask_guide(call->guide, event);
    if (!stop && progress) {
        PyObject *result =
            PyObject_CallFunction(call->progress, "KK", (unsigned long long)event->done, (unsigned long long)event->total);
        stop = !result;
        Py_XDECREF(result);
    }
    if (stop) refuse_stop_iteration();
    call->thread = PyEval_SaveThread();
    call->next_look = slm_seconds() + LOOK_SECONDS;
    return stop;
}

/* Asked again after a fork, which makes the forking thread the main one. */
static bool on_main_thread(slm_py_state *state) {
    if (state->process != (long)getpid()) {
        PyObject *threading = PyImport_ImportModule("threading");
        PyObject *main = threading ? PyObject_CallMethod(threading, "main_thread", NULL) : NULL;
        PyObject *ident = main ? PyObject_GetAttrString(main, "ident") : NULL;
        if (ident) state->main_thread = PyLong_AsUnsignedLong(ident);
        Py_XDECREF(ident);
        Py_XDECREF(main);
        Py_XDECREF(threading);
        if (PyErr_Occurred()) {
            PyErr_Clear(); /* then look for signals everywhere: that is only slower */
            return true;
        }
        state->process = (long)getpid();
    }
    return PyThread_get_thread_ident() == state->main_thread;
}

void slm_py_call_begin(slm_py_call *call, slm_py_state *state) {
    call->interrupt = PyObject_CallMethod(state->interrupt, "get", NULL);
    if (!call->interrupt) PyErr_Clear(); /* no memory to look it up: the call cannot be interrupted */
    if (call->interrupt == Py_None) Py_CLEAR(call->interrupt);
    bool looks = call->progress || call->processors || call->taps || call->guide || call->interrupt || on_main_thread(state);
    call->call.event = looks ? on_event : NULL;
    call->call.user = call;
    call->next_look = 0;
    call->thread = PyEval_SaveThread();
}

bool slm_py_call_end(slm_py_call *call) {
    PyEval_RestoreThread(call->thread);
    Py_CLEAR(call->interrupt);
    return !PyErr_Occurred();
}

/* ---- arguments ------------------------------------------------------------------------------------------------------------ */

bool slm_py_bool(PyObject *object, const char *name, bool *out) {
    if (!PyBool_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: expected a bool, found %R", name, (PyObject *)Py_TYPE(object));
        return false;
    }
    *out = object == Py_True;
    return true;
}

bool slm_py_int(PyObject *object, const char *name, int64_t least, int64_t most, int64_t *out) {
    PyObject *number = PyBool_Check(object) ? NULL : PyNumber_Index(object);
    if (!number) {
        if (PyBool_Check(object) || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError, "%s: expected an integer, found %R", name, (PyObject *)Py_TYPE(object));
        }
        return false;
    }
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (overflow || value < least || value > most) {
        PyErr_Format(PyExc_ValueError, "%s: expected %lld to %lld, found %R", name, (long long)least, (long long)most, object);
        return false;
    }
    *out = value;
    return true;
}

bool slm_py_uint64(PyObject *object, const char *name, uint64_t *out) {
    PyObject *number = PyBool_Check(object) ? NULL : PyNumber_Index(object);
    if (!number) {
        PyErr_Format(PyExc_TypeError, "%s: expected an integer, found %R", name, (PyObject *)Py_TYPE(object));
        return false;
    }
    *out = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    if (PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "%s: expected 0 to 2**64 - 1, found %R", name, object);
    return !PyErr_Occurred();
}

bool slm_py_float(PyObject *object, const char *name, double *out) {
    *out = PyBool_Check(object) ? -1 : PyFloat_AsDouble(object);
    if (PyBool_Check(object) || PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError, "%s: expected a number, found %R", name, (PyObject *)Py_TYPE(object));
        return false;
    }
    return true;
}

void slm_py_free(void *block) {
    slm_free(block);
}
