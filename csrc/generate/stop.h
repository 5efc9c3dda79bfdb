/* SPDX-License-Identifier: Apache-2.0
 * stop.h: stop strings over text that arrives in pieces: never shown, not even in part. */
#ifndef SLM_GENERATE_STOP_H
#define SLM_GENERATE_STOP_H

#include "slm.h"

/* text: what is not shown yet. True: a stop string begins at *show (the first such place), show nothing from there on. False: the
 * first *show bytes are safe, the rest could still become one. */
bool slm_stop_find(const slm_strings *stops, const char *text, size_t size, size_t *show);

#endif
