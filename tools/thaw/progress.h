/* SPDX-License-Identifier: Apache-2.0 */
/* A progress bar on stderr, if that is a terminal; else nothing. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include "util.h"

struct progress {
    const char *title; /* what is being done */
    bool drawn;
};

/* Draws the bar anew. total_bytes 0: not known. */
void progress_draw(
    struct progress *progress, const char *phase, uint64_t done_bytes, uint64_t total_bytes);

/* Takes the bar away. */
void progress_clear(struct progress *progress);

/* The line without the terminal's codes, of at most `width` columns: for tests, too. */
void progress_format(const char *title, const char *phase, uint64_t done_bytes,
    uint64_t total_bytes, size_t width, char *ret, size_t ret_bytes);

#endif
