/* SPDX-License-Identifier: Apache-2.0 */
/* Role: take the guest's output quickly, keep the recent part, log it within bounds.
 * Not here: who reads it (foreground.c, server.c). */
#include "console.h"
#include "fail.h"
#include "runtime.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>

struct console {
    pthread_mutex_t ring_lock; /* guards ring, written, signalled */
    uint64_t written;
    bool signalled; /* the event is readable or about to be */
    int event_fd;

    int dir_fd; /* borrowed */
    int log_fd; /* -1 after an error: the log ends, the VM does not */
    uint64_t log_bytes;
    uint64_t log_pos;

    char ring[CONSOLE_BYTES];
};

int console_open(int dir_fd, struct console **ret, struct thaw_error *error)
{
    struct console *console = calloc(1, sizeof(*console));

    if (!console)
        return fail_errno(error, ENOMEM, "cannot make the console");
    pthread_mutex_init(&console->ring_lock, NULL);
    console->dir_fd = dir_fd;
    console->log_fd = -1;
    console->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (console->event_fd < 0) {
        int err = errno;

        console_close(console);
        return fail_errno(error, err, "cannot make the console's event descriptor");
    }
    console->log_fd =
        openat(dir_fd, RUNTIME_LOG, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (console->log_fd < 0) {
        int err = errno;

        console_close(console);
        return fail_errno(error, err, "cannot make the console log");
    }
    *ret = console;
    return 0;
}

void console_close(struct console *console)
{
    if (!console)
        return;
    cleanup_close(&console->event_fd);
    cleanup_close(&console->log_fd);
    pthread_mutex_destroy(&console->ring_lock);
    free(console);
}

static void ring_put(struct console *console, const char *bytes, size_t count)
{
    size_t at, first;

    if (count > CONSOLE_BYTES) {
        console->written += count - CONSOLE_BYTES;
        bytes += count - CONSOLE_BYTES;
        count = CONSOLE_BYTES;
    }
    at = console->written % CONSOLE_BYTES;
    first = MIN(count, CONSOLE_BYTES - at);
    memcpy(console->ring + at, bytes, first);
    memcpy(console->ring, bytes + first, count - first);
    console->written += count;
}

void console_write(void *data, const char *bytes, size_t count)
{
    struct console *console = data;
    bool signal;

    pthread_mutex_lock(&console->ring_lock);
    ring_put(console, bytes, count);
    signal = !console->signalled;
    console->signalled = true;
    pthread_mutex_unlock(&console->ring_lock);
    if (signal) {
        eventfd_write(console->event_fd, 1);
        /* The reader may have been put on this processor, behind a guest that does not sleep. */
        sched_yield();
    }
}

int console_event_fd(const struct console *console)
{
    return console->event_fd;
}

void console_rearm(struct console *console)
{
    eventfd_t value;

    eventfd_read(console->event_fd, &value);
    pthread_mutex_lock(&console->ring_lock);
    console->signalled = false;
    pthread_mutex_unlock(&console->ring_lock);
}

uint64_t console_end(struct console *console)
{
    uint64_t end;

    pthread_mutex_lock(&console->ring_lock);
    end = console->written;
    pthread_mutex_unlock(&console->ring_lock);
    return end;
}

size_t console_read(
    struct console *console, uint64_t *pos, char *buf, size_t count, uint64_t *ret_skipped)
{
    uint64_t oldest;
    size_t at, first;

    pthread_mutex_lock(&console->ring_lock);
    oldest = console->written > CONSOLE_BYTES ? console->written - CONSOLE_BYTES : 0;
    *ret_skipped = *pos < oldest ? oldest - *pos : 0;
    *pos = MAX(*pos, oldest);
    count = (size_t)MIN((uint64_t)count, console->written - *pos);
    at = *pos % CONSOLE_BYTES;
    first = MIN(count, CONSOLE_BYTES - at);
    memcpy(buf, console->ring + at, first);
    memcpy(buf + first, console->ring, count - first);
    pthread_mutex_unlock(&console->ring_lock);
    *pos += count;
    return count;
}

size_t console_skip_notice(uint64_t skipped, char buf[80])
{
    return (size_t)snprintf(
        buf, 80, "\r\n[thaw: %" PRIu64 " bytes of console output skipped]\r\n", skipped);
}

static void log_rotate(struct console *console)
{
    cleanup_close(&console->log_fd);
    console->log_bytes = 0;
    renameat(console->dir_fd, RUNTIME_LOG, console->dir_fd, RUNTIME_OLD_LOG);
    console->log_fd = openat(
        console->dir_fd, RUNTIME_LOG, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void log_put(struct console *console, const char *bytes, size_t count)
{
    if (console->log_fd >= 0 && console->log_bytes + count > CONSOLE_LOG_BYTES)
        log_rotate(console);
    while (count > 0 && console->log_fd >= 0) {
        ssize_t n = write(console->log_fd, bytes, count);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            cleanup_close(&console->log_fd);
            console->log_fd = -1;
            return;
        }
        console->log_bytes += (uint64_t)n;
        bytes += n;
        count -= (size_t)n;
    }
}

void console_flush_log(struct console *console)
{
    char buf[16384], notice[80];
    uint64_t skipped;
    size_t count;

    while ((count = console_read(console, &console->log_pos, buf, sizeof(buf), &skipped)) > 0) {
        if (skipped)
            log_put(console, notice, console_skip_notice(skipped, notice));
        log_put(console, buf, count);
    }
}
