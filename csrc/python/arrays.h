/* SPDX-License-Identifier: Apache-2.0
 * arrays.h: for module.c alone; what others need of arrays stands in python.h. */
#ifndef SLM_PYTHON_ARRAYS_H
#define SLM_PYTHON_ARRAYS_H

#include "python/python.h"

/* Before any array is made; -1 with an exception. */
int slm_py_import_numpy(void);

#endif
