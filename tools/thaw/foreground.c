/* SPDX-License-Identifier: Apache-2.0 */
/* Role: guest output to stdout, stdin to the guest, never waiting for either.
 * Not here: terminal modes (terminal.c) and attaching to another process's VM (cmd_console.c). */
#include "foreground.h"
#include "fail.h"
#include "terminal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#define INPUT_RETRY_MS 10 /* the serial port's buffer says nothing when it has room again */

struct foreground {
    struct owner *owner;
    struct loop_source input_source;
    struct terminal_escape escape;
    bool terminal;      /* stdin is one, and in raw mode */
    bool input_is_file; /* a regular file: always readable, not for epoll */
    bool input_open;
    char input[2 * 1024];
    size_t input_at, input_count;

    bool output_open;
    struct loop_source output_source;
    uint64_t output_pos;
    char output[80 + 4096];
    size_t output_at, output_count;
};

static void stop(struct foreground *foreground)
{
    owner_set_state(foreground->owner, THAW_VM_STOPPED, NULL);
}

/* Offers pending input to the guest. True when all of it is taken. */
static bool send_input(struct foreground *foreground)
{
    size_t count = foreground->input_count - foreground->input_at;
    int taken;

    if (count == 0)
        return true;
    taken = owner_input(foreground->owner, foreground->input + foreground->input_at, count, NULL);
    if (taken > 0)
        foreground->input_at += (size_t)taken;
    return foreground->input_at == foreground->input_count;
}

static void end_input(struct foreground *foreground)
{
    loop_unwatch(owner_loop(foreground->owner), &foreground->input_source);
    foreground->input_open = false;
}

static void read_input(struct foreground *foreground)
{
    char bytes[sizeof(foreground->input) / 2], command = 0;
    ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        end_input(foreground);
        if (foreground->terminal) /* the terminal is gone */
            stop(foreground);
        return;
    }
    foreground->input_at = 0;
    if (foreground->terminal) {
        foreground->input_count = terminal_filter(
            &foreground->escape, "x", bytes, (size_t)n, foreground->input, &command);
    } else {
        foreground->input_count = (size_t)n;
        for (ssize_t i = 0; i < n; i++)
            foreground->input[i] = bytes[i];
    }
    if (command)
        stop(foreground);
}

static void input_ready(void *data, uint32_t events)
{
    (void)events;
    read_input(data);
}

/* Returns in how many milliseconds to try again, -1: when stdin is readable. */
static int move_input(struct foreground *foreground)
{
    struct loop *loop = owner_loop(foreground->owner);

    if (!send_input(foreground)) {
        loop_unwatch(loop, &foreground->input_source);
        return INPUT_RETRY_MS;
    }
    if (!foreground->input_open)
        return -1;
    if (foreground->input_is_file) {
        read_input(foreground);
        return 0;
    }
    loop_watch(loop, &foreground->input_source, EPOLLIN);
    return -1;
}

/* Takes the next part of the guest's output. False: there is none. */
static bool next_output(struct foreground *foreground)
{
    char *bytes = foreground->output + 80;
    uint64_t skipped;
    size_t notice, count = console_read(owner_console(foreground->owner), &foreground->output_pos,
                       bytes, sizeof(foreground->output) - 80, &skipped);

    foreground->output_at = 80;
    foreground->output_count = 80 + count;
    if (skipped) {
        char text[80];

        notice = console_skip_notice(skipped, text);
        foreground->output_at = 80 - notice;
        for (size_t i = 0; i < notice; i++)
            foreground->output[80 - notice + i] = text[i];
    }
    return count > 0;
}

static bool can_write(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};

    return poll(&poll_fd, 1, 0) == 1;
}

/* Writes what stdout takes without waiting. True when all output is delivered. */
static bool move_output(struct foreground *foreground)
{
    int fd = foreground->output_source.fd;

    while (foreground->output_open) {
        size_t count = foreground->output_count - foreground->output_at;
        ssize_t n;

        if (count == 0) {
            if (!next_output(foreground))
                break;
            continue;
        }
        if (!can_write(fd))
            return false;
        n = write(fd, foreground->output + foreground->output_at, count);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        if (n < 0) { /* nobody reads: like any command in a pipe, end */
            foreground->output_open = false;
            stop(foreground);
            break;
        }
        foreground->output_at += (size_t)n;
    }
    return true;
}

static void output_ready(void *data, uint32_t events)
{
    struct foreground *foreground = data;

    (void)events;
    loop_unwatch(owner_loop(foreground->owner), &foreground->output_source);
}

int foreground_turn(void *data, bool last)
{
    struct foreground *foreground = data;
    bool delivered = move_output(foreground);
    struct loop *loop = owner_loop(foreground->owner);

    if (delivered)
        loop_unwatch(loop, &foreground->output_source);
    else
        loop_watch(loop, &foreground->output_source, EPOLLOUT);
    if (last) {
        end_input(foreground);
        return delivered ? 0 : -1;
    }
    return move_input(foreground);
}

/* Terminals and pipes may be shared with other processes, which must not find them non-blocking:
 * so a description of our own is opened where that is possible. */
static int own_output(void)
{
    struct stat st;
    int fd;

    if (fstat(STDOUT_FILENO, &st) != 0 || (!S_ISFIFO(st.st_mode) && !isatty(STDOUT_FILENO)))
        return STDOUT_FILENO;
    fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? STDOUT_FILENO : fd;
}

int foreground_open(
    struct owner *owner, bool output, struct foreground **ret, struct thaw_error *error)
{
    struct foreground *foreground = calloc(1, sizeof(*foreground));
    bool background = isatty(STDIN_FILENO) && !terminal_is_ours();

    if (!foreground)
        return fail_errno(error, ENOMEM, "cannot attach the console");
    foreground->owner = owner;
    foreground->escape.interrupts = true;
    foreground->output_open = output;
    foreground->output_source =
        (struct loop_source){.fd = own_output(), .ready = output_ready, .data = foreground};
    foreground->input_source =
        (struct loop_source){.fd = STDIN_FILENO, .ready = input_ready, .data = foreground};
    foreground->input_open = !background;
    if (terminal_is_ours()) {
        int rc = terminal_raw(error);

        if (rc < 0) {
            foreground_close(foreground);
            return rc;
        }
        foreground->terminal = true;
    }
    if (foreground->input_open) {
        int rc = loop_watch(owner_loop(owner), &foreground->input_source, EPOLLIN);

        foreground->input_is_file = rc == -EPERM;
    }
    *ret = foreground;
    return 0;
}

void foreground_close(struct foreground *foreground)
{
    if (!foreground)
        return;
    terminal_restore();
    loop_unwatch(owner_loop(foreground->owner), &foreground->input_source);
    loop_unwatch(owner_loop(foreground->owner), &foreground->output_source);
    if (foreground->output_source.fd != STDOUT_FILENO)
        close(foreground->output_source.fd);
    free(foreground);
}
