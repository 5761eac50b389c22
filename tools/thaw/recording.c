/* SPDX-License-Identifier: Apache-2.0 */
/* Role: when the recording of a working set ends, and what became of it.
 * Not here: what is recorded; that is the library's. */
#include "recording.h"
#include "fail.h"
#include "vm_json.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

void recording_begin(struct recording *recording)
{
    recording->active = recording->wanted = true;
}

/* The only function of a thread of its own: it takes as long as a disk takes. */
static void *store(void *data)
{
    struct recording *recording = data;

    pthread_setname_np(pthread_self(), "thaw/recording");
    thaw_vm_record_end(recording->vm, &recording->result, &recording->problem);
    eventfd_write(recording->source.fd, 1);
    return NULL;
}

static void release(struct recording *recording)
{
    pthread_join(recording->thread, NULL);
    recording->storing = recording->active = false;
    loop_unwatch(recording->loop, &recording->source);
    cleanup_close(&recording->source.fd);
}

static void tell_problem(const struct recording *recording)
{
    if (recording->problem.code)
        fprintf(stderr, "thaw: %s\n", recording->problem.message);
}

static void store_ready(void *data, uint32_t events)
{
    struct recording *recording = data;

    (void)events;
    release(recording);
    tell_problem(recording);
    recording->stored(recording->data);
}

/* Watched before it is started: what has ended must be heard of. */
static int start_store(struct recording *recording, struct thaw_error *error)
{
    int rc;

    recording->source = (struct loop_source){
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = store_ready, .data = recording};
    rc = recording->source.fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = loop_watch(recording->loop, &recording->source, EPOLLIN);
    if (rc == 0)
        rc = -pthread_create(&recording->thread, NULL, store, recording);
    if (rc == 0)
        return 0;
    loop_unwatch(recording->loop, &recording->source);
    cleanup_close(&recording->source.fd);
    return fail_errno(error, -rc, "cannot store the working set");
}

void recording_end(struct recording *recording)
{
    if (!recording->active || recording->storing)
        return;
    recording->result = (struct thaw_recording){.size = sizeof(recording->result)};
    recording->storing = start_store(recording, &recording->problem) == 0;
    if (recording->storing)
        return;
    recording->active = false;
    tell_problem(recording);
}

bool recording_is_stored(const struct recording *recording)
{
    return !recording->storing;
}

void recording_fini(struct recording *recording)
{
    if (recording->storing)
        release(recording);
}

/* True if the text is in the tail and what follows it; the new tail is what is too short to hold
 * it. */
static bool find_text(struct recording *recording, const char *bytes, size_t count)
{
    char both[RECORDING_TEXT_MAX + 4096];
    size_t wanted = strlen(recording->until);
    size_t total = recording->tail_count + count;
    size_t kept;

    memcpy(both, recording->tail, recording->tail_count);
    memcpy(both + recording->tail_count, bytes, count);
    if (memmem(both, total, recording->until, wanted))
        return true;
    kept = MIN(total, wanted - 1);
    memcpy(recording->tail, both + total - kept, kept);
    recording->tail_count = kept;
    return false;
}

static bool was_printed(struct recording *recording)
{
    char bytes[4096];
    uint64_t skipped;
    size_t count;

    while ((count = console_read(
                recording->console, &recording->console_pos, bytes, sizeof(bytes), &skipped)) > 0) {
        if (skipped)
            recording->tail_count = 0;
        if (find_text(recording, bytes, count))
            return true;
    }
    return false;
}

int recording_turn(struct recording *recording, bool running)
{
    int64_t left = 0;

    if (!recording->active || recording->storing)
        return -1;
    if (recording->until) {
        if (was_printed(recording))
            recording_end(recording);
        return -1;
    }
    if (!recording->deadline_ms && running)
        recording->deadline_ms = now_ms() + (int64_t)recording->seconds * 1000;
    if (!recording->deadline_ms)
        return -1;
    left = recording->deadline_ms - now_ms();
    if (left > 0)
        return (int)left;
    recording_end(recording);
    return -1;
}

json_t *recording_describe(const struct recording *recording)
{
    if (!recording->wanted)
        return json_null();
    if (recording->active) /* the rest is the thread's, if there is one */
        return json_pack("{s:b, s:i, s:i, s:n}", "recording", 1, "pages", 0, "bytes", 0, "error");
    return json_pack("{s:b, s:I, s:I, s:o}", "recording", 0, "pages",
        (json_int_t)recording->result.pages, "bytes", (json_int_t)recording->result.bytes, "error",
        recording->problem.code ? vm_json_text(recording->problem.message) : json_null());
}
