/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw console`: the console of a VM that runs in another process.
 * Not here: the console of `thaw run` itself (foreground.c). */
#include "client.h"
#include "commands.h"
#include "control.h"
#include "fail.h"
#include "signals.h"
#include "terminal.h"
#include "text.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#define OUTPUT_PART_BYTES 4096u /* a pipe that is writable takes as much without waiting */
#define INPUT_RETRY_MS    10
#define INPUT_ANSWER_MS   10000

enum {
    OPTION_TAIL = 1
};

static const struct cli_option options[] = {
    {OPTION_TAIL, "tail", "BYTES", "begin with at most so much recent output (default: all kept)"},
    {0},
};

struct session {
    const struct runtime_entry *entry;
    int stream_fd, input_fd, signal_fd;
    struct client_stream *stream;
    struct terminal_escape escape;
    bool terminal, input_open, detach;
    char input[2 * 1024];
    size_t input_at, input_count;
};

/* Waits for a slow stdout, but not beyond a signal: signals are blocked and would not end a write.
 */
static int write_output(void *data, const char *bytes, size_t count)
{
    const struct session *session = data;

    while (count > 0) {
        struct pollfd fds[] = {
            {.fd = STDOUT_FILENO, .events = POLLOUT},
            {.fd = session ? session->signal_fd : -1, .events = POLLIN},
        };
        ssize_t n;

        if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
            return -errno;
        if (fds[1].revents)
            return -EINTR;
        n = write(STDOUT_FILENO, bytes, MIN(count, OUTPUT_PART_BYTES));
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            return -errno;
        } else if (n > 0) {
            bytes += n;
            count -= (size_t)n;
        }
    }
    return 0;
}

/* The log of a VM that has ended: the older file, then the newer one. */
static int print_log(const struct runtime_entry *entry, uint64_t tail)
{
    static const char *const names[] = {RUNTIME_OLD_LOG, RUNTIME_LOG};
    _cleanup_close_ int dir_fd =
        open(entry->dir_path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fds[ARRAY_SIZE(names)];
    uint64_t bytes[ARRAY_SIZE(names)], later = 0;

    for (size_t i = ARRAY_SIZE(names); i-- > 0;) {
        off_t end;

        fds[i] = openat(dir_fd, names[i], O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        end = fds[i] < 0 ? 0 : lseek(fds[i], 0, SEEK_END);
        bytes[i] = end > 0 ? (uint64_t)end : 0;
        if (fds[i] >= 0)
            lseek(fds[i], tail <= later ? end : (off_t)(bytes[i] - MIN(bytes[i], tail - later)),
                SEEK_SET);
        later += bytes[i];
    }
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        char buf[16384];
        ssize_t n;

        while (fds[i] >= 0 && (n = read(fds[i], buf, sizeof(buf))) > 0 &&
               write_output(NULL, buf, (size_t)n) == 0)
            ;
        cleanup_close(fds + i);
    }
    return CLI_OK;
}

/* Offers pending input. Input that nobody can take any more (the VM is about to end) is dropped;
 * the stream tells what happened. */
static void send_input(struct session *session)
{
    size_t count = session->input_count - session->input_at;
    int64_t deadline = now_ms() + INPUT_ANSWER_MS;
    _cleanup_json_ json_t *answer = NULL;
    struct thaw_error error;

    if (session->input_fd < 0)
        session->input_fd = client_connect(session->entry->dir_path, deadline, NULL);
    if (session->input_fd < 0 ||
        client_send(session->input_fd, "POST", "/v1/console", session->input + session->input_at,
            count, deadline, &error) < 0 ||
        client_receive(session->input_fd, deadline, &answer, &error) < 0) {
        session->input_at = session->input_count;
        cleanup_close(&session->input_fd);
        session->input_fd = -1;
        return;
    }
    session->input_at += MIN(count, (size_t)json_integer_value(json_object_get(answer, "taken")));
}

static void read_input(struct session *session)
{
    char bytes[sizeof(session->input) / 2], command = 0;
    ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        session->input_open = false;
        session->detach = session->terminal; /* the terminal is gone */
        return;
    }
    session->input_at = 0;
    if (session->terminal) {
        session->input_count =
            terminal_filter(&session->escape, "dx", bytes, (size_t)n, session->input, &command);
    } else {
        memcpy(session->input, bytes, (size_t)n);
        session->input_count = (size_t)n;
    }
    session->detach = command != 0;
}

/* Until the VM ends (0), the user detaches (0) or something breaks. */
static int follow(struct session *session, struct thaw_error *error)
{
    for (;;) {
        bool pending = session->input_at < session->input_count;
        struct pollfd fds[] = {
            {.fd = session->stream_fd, .events = POLLIN},
            {.fd = session->input_open && !pending ? STDIN_FILENO : -1, .events = POLLIN},
            {.fd = session->signal_fd, .events = POLLIN},
        };

        if (poll(fds, ARRAY_SIZE(fds), pending ? INPUT_RETRY_MS : -1) < 0 && errno != EINTR)
            return fail_errno(error, errno, "cannot wait for the console");
        if (fds[0].revents) {
            int rc = client_stream_read(session->stream, session->stream_fd, error);

            if (rc <= 0)
                return rc == -ECANCELED ? 0 : rc;
        }
        if (fds[1].revents)
            read_input(session);
        if (session->input_at < session->input_count)
            send_input(session);
        if (fds[2].revents || session->detach)
            return 0;
    }
}

static int attach(struct session *session, uint64_t tail, struct thaw_error *error)
{
    char target[80];
    int rc;

    snprintf(target, sizeof(target), "/v1/console?follow=1&tail=%" PRIu64, tail);
    rc = client_send(session->stream_fd, "GET", target, "", 0, now_ms() + CONTROL_ANSWER_MS, error);
    if (rc == 0) {
        signals_block();
        rc = session->signal_fd = signals_open(error);
    }
    if (rc >= 0)
        rc = client_stream_new("the console", write_output, session, &session->stream, error);
    if (rc < 0)
        return rc;
    session->terminal = terminal_is_ours();
    session->input_open = session->terminal || !isatty(STDIN_FILENO);
    if (session->terminal) {
        fprintf(stderr, "thaw: attached to '%s', Ctrl-A d detaches\n", session->entry->name);
        rc = terminal_raw(error);
    }
    return rc;
}

static int run_session(int fd, const struct runtime_entry *entry, uint64_t tail)
{
    struct session session = {.entry = entry, .stream_fd = fd, .input_fd = -1, .signal_fd = -1};
    struct thaw_error error = {0};
    int rc = attach(&session, tail, &error);

    if (rc >= 0)
        rc = follow(&session, &error);
    terminal_restore();
    client_stream_free(session.stream);
    cleanup_close(&session.input_fd);
    cleanup_close(&session.signal_fd);
    if (session.terminal && rc >= 0)
        fprintf(
            stderr, "\nthaw: %s '%s'\n", session.detach ? "detached from" : "end of", entry->name);
    return rc < 0 ? cli_report(&error) : CLI_OK;
}

static int parse(struct cli *cli, const char **ret_name, uint64_t *ret_tail)
{
    int next;

    *ret_name = NULL;
    while ((next = cli_next(cli)) != CLI_END) {
        if (next == CLI_STOP)
            return CLI_STOP;
        if (next == OPTION_TAIL) {
            if (text_parse_number(cli->value, 0, UINT64_MAX, ret_tail) < 0)
                return cli_usage(cli, "'%s' is no number of bytes", cli->value);
        } else if (*ret_name) {
            return cli_usage(cli, "unexpected argument '%s'", cli->value);
        } else {
            *ret_name = cli->value;
        }
    }
    return *ret_name ? 0 : cli_usage(cli, "the VM's name is missing");
}

static int run_console(struct cli *cli)
{
    struct runtime_entry entry;
    struct thaw_error error = {0};
    uint64_t tail = UINT64_MAX;
    const char *name;
    int fd, status;

    if (parse(cli, &name, &tail) == CLI_STOP)
        return cli->status;
    fd = control_connect(name, &entry, &error);
    if (fd < 0 && fd != -ESRCH)
        return cli_report(&error);
    status = fd < 0 ? print_log(&entry, tail) : run_session(fd, &entry, tail);
    cleanup_close(&fd);
    runtime_entry_fini(&entry);
    return status;
}

const struct cli_command cmd_console = {
    .name = "console",
    .operands = "[--tail BYTES] NAME",
    .summary = "Show a VM's console, and send it input",
    .notes =
        "Shows recent output and follows until the VM ends; stdin is sent to the guest. On a\n"
        "terminal Ctrl-A d and Ctrl-A x detach, Ctrl-A Ctrl-A sends a Ctrl-A, all else is the\n"
        "guest's. Of a VM that has ended, what it wrote last is shown. --json has no effect.",
    .options = options,
    .run = run_console,
};
