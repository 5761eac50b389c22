/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The working set that is recorded of this process's VM: from the start until the guest has printed
 * a text, or for some time, at most until the VM ends. One thread calls these functions; storing it
 * is another's, since the VM's owner answers meanwhile.
 */
#ifndef TOOLS_RECORDING_H
#define TOOLS_RECORDING_H

#include "console.h"
#include "loop.h"
#include <pthread.h>
#include <thaw/image.h>

#define RECORDING_TEXT_MAX 200 /* characters */
#define RECORDING_SECONDS  10  /* unless it is said */
#define RECORDING_TIME_MAX 3600

/* Embedded in the owner, who sets the first group; stays in place. */
struct recording {
    struct loop *loop;
    void (*stored)(void *data); /* or it could not be; not called by recording_fini */
    void *data;
    thaw_vm *vm;
    struct console *console;
    const char *until; /* this text; NULL: `seconds` */
    unsigned seconds;

    bool active; /* until it is stored */
    bool wanted;
    bool storing; /* by `thread`, which has `result` and `problem` then */
    pthread_t thread;
    struct loop_source source;
    struct thaw_recording result;
    struct thaw_error problem; /* why it could not be stored; or its code is 0 */
    int64_t deadline_ms;       /* 0: the VM has not run yet */
    uint64_t console_pos;
    char tail[RECORDING_TEXT_MAX]; /* of the output, in which the text may begin */
    size_t tail_count;
};

/* From now on. The VM was restored with THAW_RESTORE_RECORD. */
void recording_begin(struct recording *recording);

/* Looks whether it is time, and then begins to store it. `running`: the VM runs. Returns in how
 * many milliseconds to look again at the latest, -1: whenever there is output. */
int recording_turn(struct recording *recording, bool running);

/* Begins to store it now, if that is not done yet. */
void recording_end(struct recording *recording);

/* False while it is being stored. */
bool recording_is_stored(const struct recording *recording);

/* Waits until it is stored, if that has begun. */
void recording_fini(struct recording *recording);

/* Null if none was wanted. NULL if memory is short. */
json_t *recording_describe(const struct recording *recording);

#endif
