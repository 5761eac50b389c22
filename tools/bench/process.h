/* SPDX-License-Identifier: Apache-2.0 */
/* Programs that restore a VM and let it run, as row `process` starts them. */
#ifndef BENCH_PROCESS_H
#define BENCH_PROCESS_H

/* The shortest program that embeds the library: restores a snapshot and writes the guest's console
 * to its standard output. This program runs as that one when its first argument is PROCESS_EMBED;
 * the others are store, snapshot and "eager" or "lazy". Runs until it is killed. */
#define PROCESS_EMBED "embed"
int process_embed(char **args);

/* The same by hand: a new VM, its memory a view of an uncompressed file. The others are that file
 * and the one beside it with the state. */
#define PROCESS_RAWFILE "rawfile"
int process_rawfile(char **args);

#endif
