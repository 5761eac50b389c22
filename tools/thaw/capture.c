/* SPDX-License-Identifier: Apache-2.0 */
/* Role: run a snapshot job beside the VM, and report it to the one who asked.
 * Not here: HTTP (server.c), and what a request may say (api.c). */
#include "capture.h"
#include "api.h"
#include "fail.h"
#include "snapshot_json.h"
#include "storage.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* The stream's side. Outlives the job where the client is slow. */
struct follower {
    struct capture *capture; /* NULL: the job has ended */
    bool changed;            /* there is progress that was not told yet */
    char *last_line;         /* of the job that has ended; NULL: told */
};

/* The JSON and a newline. Returns its length, 0 if it does not fit or memory is short. */
static size_t put_line(json_t *json, char buf[SERVER_PART_BYTES])
{
    size_t count = json ? json_dumpb(json, buf, SERVER_PART_BYTES - 1, JSON_COMPACT) : 0;

    json_decref(json);
    if (count == 0 || count >= SERVER_PART_BYTES)
        return 0;
    buf[count] = '\n';
    return count + 1;
}

static ssize_t next_line(struct server_stream *stream, char buf[SERVER_PART_BYTES], bool last)
{
    struct follower *follower = stream->data;
    struct thaw_job_progress now = {.size = sizeof(now)};

    (void)last; /* the owner waits for the end of the job */
    if (!follower->capture) {
        size_t count = follower->last_line ? strlen(follower->last_line) : 0;

        if (count == 0)
            return -1;
        memcpy(buf, follower->last_line, count);
        free(take_ptr(follower->last_line));
        return (ssize_t)count;
    }
    if (!follower->changed)
        return 0;
    follower->changed = false;
    thaw_job_poll(follower->capture->job, &now);
    return (ssize_t)put_line(
        json_pack("{s:s, s:s, s:I, s:I}", "state", "running", "phase", now.phase ? now.phase : "",
            "done_bytes", (json_int_t)now.done_bytes, "total_bytes", (json_int_t)now.total_bytes),
        buf);
}

static void stream_gone(void *data)
{
    struct follower *follower = data;

    if (follower->capture) {
        follower->capture->follower = NULL;
        capture_cancel(follower->capture);
    }
    free(follower->last_line);
    free(follower);
}

static json_t *describe_end(struct capture *capture)
{
    struct thaw_snapshot_result result = {.size = sizeof(result)};
    struct thaw_error error = {0};
    int rc = thaw_job_wait(capture->job, 0, &error);

    if (rc == 0)
        rc = thaw_job_get_snapshot(capture->job, &result);
    if (rc == 0)
        return json_pack("{s:s, s:o}", "state", "done", "snapshot",
            snapshot_json_result(capture->store, &result));
    if (!error.message[0])
        fail_set(&error, rc, "%s", thaw_strerror(rc));
    return json_pack("{s:s, s:o}", "state", "failed", "error", api_error_json(&error));
}

static void release(struct capture *capture)
{
    loop_unwatch(capture->loop, &capture->source);
    thaw_job_free(take_ptr(capture->job));
    thaw_store_close(take_ptr(capture->store));
}

static void end(struct capture *capture)
{
    struct follower *follower = take_ptr(capture->follower);
    char line[SERVER_PART_BYTES];

    if (follower) {
        size_t count = put_line(describe_end(capture), line);

        follower->last_line = count > 0 ? strndup(line, count) : NULL;
        follower->capture = NULL;
    }
    release(capture);
}

static void job_ready(void *data, uint32_t events)
{
    struct capture *capture = data;
    struct thaw_job_progress now = {.size = sizeof(now)};
    eventfd_t value;

    (void)events;
    eventfd_read(capture->source.fd, &value);
    thaw_job_poll(capture->job, &now);
    if (now.state != THAW_JOB_RUNNING)
        end(capture);
    else if (capture->follower)
        capture->follower->changed = true;
    capture->changed(capture->data);
}

static int start_job(struct capture *capture, const char *store_path,
    const struct thaw_snapshot_options *options, struct thaw_error *error)
{
    int rc = storage_open_path(store_path, true, &capture->store, error);

    if (rc == 0)
        rc = thaw_vm_snapshot(capture->vm, capture->store, options, &capture->job, error);
    if (rc < 0)
        return rc;
    capture->source = (struct loop_source){
        .fd = thaw_job_event_fd(capture->job), .ready = job_ready, .data = capture};
    rc = loop_watch(capture->loop, &capture->source, EPOLLIN);
    return rc < 0 ? fail_errno(error, -rc, "cannot watch a descriptor") : 0;
}

int capture_begin(struct capture *capture, const char *store_path,
    const struct thaw_snapshot_options *options, struct server_stream *ret,
    struct thaw_error *error)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    struct follower *follower;
    int rc;

    if (capture->job)
        return fail_set(error, -EBUSY, "a snapshot of the VM is being taken already");
    follower = calloc(1, sizeof(*follower));
    if (!follower)
        return fail_errno(error, ENOMEM, "cannot take a snapshot");
    thaw_vm_get_info(capture->vm, &info);
    rc = start_job(capture, store_path, options, error);
    if (rc < 0) {
        free(follower);
        release(capture);
        return rc;
    }
    *follower = (struct follower){.capture = capture, .changed = true};
    capture->follower = follower;
    capture->kill = options->flags & THAW_SNAPSHOT_KILL;
    capture->holds = info.state != THAW_VM_RUNNING || options->flags & THAW_SNAPSHOT_STOP_AND_COPY;
    *ret = (struct server_stream){.next = next_line, .gone = stream_gone, .data = follower};
    return 0;
}

bool capture_is_running(const struct capture *capture)
{
    return capture->job != NULL;
}

bool capture_holds_vm(const struct capture *capture)
{
    struct thaw_job_progress now = {.size = sizeof(now)};

    if (!capture->job || !capture->holds)
        return false;
    thaw_job_poll(capture->job, &now);
    return now.state == THAW_JOB_RUNNING &&
           (strcmp(now.phase, "starting") == 0 || strcmp(now.phase, "memory") == 0);
}

void capture_cancel(struct capture *capture)
{
    if (capture->job)
        thaw_job_cancel(capture->job);
}

void capture_fini(struct capture *capture)
{
    if (capture->job)
        release(capture);
}
