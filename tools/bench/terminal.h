/* SPDX-License-Identifier: Apache-2.0 */
/* What a person sees: progress while it runs, tables when it is done. */
#ifndef BENCH_TERMINAL_H
#define BENCH_TERMINAL_H

#include "bench.h"

/* One line on stderr, rewritten in place; nothing where stderr is no terminal. */
void terminal_progress(const char *row, const char *mode, unsigned done, unsigned total);
void terminal_progress_end(void);

/* All series of a row but its phases, which are better looked at as a picture. */
void terminal_print_row(const struct results *results, const char *row);
void terminal_print_targets(const struct results *results);

/* A value with its unit, for people: "1.25 ms", "380 MB/s". */
void terminal_format(double value, const char *unit, char *ret, size_t bytes);

#endif
