/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The snapshot that is being taken of this process's VM: at most one at a time. Who asked for it
 * follows a stream of JSON lines, and cancels it by going away. docs/api.md describes the lines.
 */
#ifndef TOOLS_CAPTURE_H
#define TOOLS_CAPTURE_H

#include "loop.h"
#include "server.h"
#include <thaw/snapshot.h>

struct follower;

/* Embedded in the owner, who sets the first four; stays in place. */
struct capture {
    struct loop *loop;
    thaw_vm *vm;
    void (*changed)(void *data); /* streams have something new */
    void *data;

    thaw_store *store;
    thaw_job *job; /* NULL: none is being taken */
    bool kill;     /* the VM ends with it */
    bool holds;    /* the VM stands still until all of its memory is stored */
    struct loop_source source;
    struct follower *follower; /* NULL: nobody listens any more */
};

/* Starts to take a snapshot into the store at an absolute path, which is made if there is none.
 * *ret follows it. -EBUSY: one is being taken already. */
int capture_begin(struct capture *capture, const char *store_path,
    const struct thaw_snapshot_options *options, struct server_stream *ret,
    struct thaw_error *error);

bool capture_is_running(const struct capture *capture);

/* True while one is being taken for which the VM may stand still for long: what changes its state
 * in the library would wait for that. */
bool capture_holds_vm(const struct capture *capture);

/* Asks it to end early. Does nothing if there is none. */
void capture_cancel(struct capture *capture);

/* Cancels it, and waits until it has ended. */
void capture_fini(struct capture *capture);

#endif
