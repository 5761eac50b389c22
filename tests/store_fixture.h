/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the store: temporary stores, small snapshots in them, and whether one is whole. */
#ifndef TESTS_STORE_FIXTURE_H
#define TESTS_STORE_FIXTURE_H

#include "store.h"

#define FIXTURE_PACK "0123456789abcdef0123456789abcdef"
#define FIXTURE_DATA "what is in vmstate"

/* A directory that the test removes with fixture_remove. Aborts on failure, as all of these. */
void fixture_directory(const char *parent, char ret[64]);
void fixture_remove(const char *path);

struct thaw_store *fixture_open(const char *path);

/* A complete manifest with every member set, which lists the files that fixture_fill writes. */
void fixture_manifest(struct manifest *m);
/* A new file. 0 or -errno. */
int fixture_write_at(int dirfd, const char *name, const char *text);
/* Writes vmstate and one pack. */
int fixture_fill(struct store_creation *creation);
/* begin, fill, commit. 0 or the first error; aborts the creation then. */
int fixture_create(struct thaw_store *store, const char *name, struct thaw_error *error);
/* 0 if the snapshot is READY and its files are as fixture_fill wrote them. */
int fixture_check(struct thaw_store *store, const char *ref);

void fixture_write(const char *directory, const char *path, const char *text);
bool fixture_exists(const char *directory, const char *path);
unsigned fixture_count(const char *directory, const char *path); /* entries of a directory */

#endif
