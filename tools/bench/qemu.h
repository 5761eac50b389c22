/* SPDX-License-Identifier: Apache-2.0 */
/* The peer: QEMU's microvm, saved to a file and started from it. */
#ifndef BENCH_QEMU_H
#define BENCH_QEMU_H

#include "recipe.h"

/* Runs a guest in QEMU until it has printed its first line, and saves it to *ret_path. */
int qemu_save(const struct bench *bench, const struct recipe *recipe, char *ret_path, size_t bytes,
    struct thaw_error *error);

#define QEMU_ARGS_MAX 40

/* The command that goes on from the file, which is to be open as scratch_spawn opens one. Strings
 * are borrowed from recipe. */
struct qemu_command {
    const char *argv[QEMU_ARGS_MAX];
    char mem[32];
};

void qemu_restore_command(const struct recipe *recipe, struct qemu_command *ret);

#endif
