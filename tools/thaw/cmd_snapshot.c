/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw snapshot`: ask the VM's process for a snapshot, and follow it.
 * Not here: taking it (capture.c, in the VM's process). */
#include "client.h"
#include "commands.h"
#include "control.h"
#include "fail.h"
#include "json_text.h"
#include "progress.h"
#include "signals.h"
#include "storage.h"
#include "vm_json.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <thaw/snapshot.h>

#define METADATA_MAX_BYTES (64u << 10)
#define LINE_MAX_BYTES     (64u << 10)
#define ANSWER_MS          30000 /* until the VM's process has accepted or refused */

enum {
    OPTION_NAME = 1,
    OPTION_DIFF,
    OPTION_FULL,
    OPTION_STOP_AND_COPY,
    OPTION_KILL,
    OPTION_TEMPLATE,
    OPTION_LEVEL,
    OPTION_METADATA,
};

static const struct cli_option options[] = {
    {OPTION_NAME, "name", "NAME", "what the snapshot is called (default: TEMPLATE-XXXXXX)"},
    {OPTION_DIFF, "diff", NULL, "store only what changed since the last one, or fail"},
    {OPTION_FULL, "full", NULL, "share nothing with other snapshots"},
    {OPTION_STOP_AND_COPY, "stop-and-copy", NULL, "pause the VM until all memory is written"},
    {OPTION_KILL, "kill", NULL, "stop the VM when the snapshot is complete"},
    {OPTION_TEMPLATE, "template", "NAME", "template name (default: the VM's)"},
    {OPTION_LEVEL, "level", "N", "of compression, 1 to 19 (default: 1)"},
    {OPTION_METADATA, "metadata", "JSON|@FILE", "an object to keep with the snapshot"},
    {0},
};

struct wanted {
    const char *vm_name, *name, *template_name, *mode, *metadata;
    bool stop_and_copy, kill;
    uint64_t level;
};

/* What is known of the snapshot while it is taken. */
struct session {
    const char *vm_name;
    const struct runtime_entry *entry;
    int fd, signal_fd;
    struct client_stream *stream;
    struct progress progress;
    char *line; /* what has come of it */
    size_t line_count;
    json_t *last;
    bool cancelled;
};

static int read_metadata(const char *path, json_t **ret, struct thaw_error *error)
{
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    _cleanup_free_ char *text = malloc(METADATA_MAX_BYTES + 1);
    size_t used = 0;
    ssize_t n = 0;

    if (fd < 0)
        return fail_errno(error, errno, "cannot read the metadata file '%s'", path);
    while (text && used <= METADATA_MAX_BYTES &&
           (n = read(fd, text + used, METADATA_MAX_BYTES + 1 - used)) > 0)
        used += (size_t)n;
    if (n < 0)
        return fail_errno(error, errno, "cannot read the metadata file '%s'", path);
    if (used > METADATA_MAX_BYTES)
        return fail_set(error, -EFBIG, "the metadata file '%s' has more than 64 KiB", path);
    *ret = text ? json_loadb(text, used, JSON_REJECT_DUPLICATES, NULL) : NULL;
    return 0;
}

static int load_metadata(const char *value, json_t **ret, struct thaw_error *error)
{
    json_t *json = NULL;
    int rc = 0;

    if (*value == '@')
        rc = read_metadata(value + 1, &json, error);
    else if (strlen(value) > METADATA_MAX_BYTES)
        rc = fail_set(error, -EFBIG, "the metadata has more than 64 KiB");
    else
        json = json_loads(value, JSON_REJECT_DUPLICATES, NULL);
    if (rc < 0)
        return rc;
    if (!json_is_object(json)) {
        json_decref(json);
        return fail_set(
            error, -EINVAL, "the metadata is no JSON object; see 'thaw snapshot --help'");
    }
    *ret = json;
    return 0;
}

static int take_option(struct cli *cli, struct wanted *wanted, int option)
{
    const char *mode = option == OPTION_DIFF ? "diff" : "full";

    switch (option) {
    case OPTION_NAME:
        return cli_take_name(cli, "snapshot name", &wanted->name);
    case OPTION_TEMPLATE:
        return cli_take_name(cli, "template name", &wanted->template_name);
    case OPTION_DIFF:
    case OPTION_FULL:
        if (wanted->mode && strcmp(wanted->mode, mode) != 0)
            return cli_usage(cli, "give either --diff or --full");
        wanted->mode = mode;
        return 0;
    case OPTION_STOP_AND_COPY:
        wanted->stop_and_copy = true;
        return 0;
    case OPTION_KILL:
        wanted->kill = true;
        return 0;
    case OPTION_LEVEL:
        if (text_parse_number(cli->value, 1, 19, &wanted->level) < 0)
            return cli_usage(cli, "'%s' is no level of compression from 1 to 19", cli->value);
        return 0;
    case OPTION_METADATA:
        wanted->metadata = cli->value;
        return 0;
    default:
        if (wanted->vm_name)
            return cli_usage(cli, "unexpected argument '%s'", cli->value);
        wanted->vm_name = cli->value;
        return 0;
    }
}

static int parse(struct cli *cli, struct wanted *wanted)
{
    int option;

    while ((option = cli_next(cli)) != CLI_END) {
        if (option == CLI_STOP || take_option(cli, wanted, option) == CLI_STOP)
            return CLI_STOP;
    }
    return wanted->vm_name ? 0 : cli_usage(cli, "the VM's name is missing");
}

/* Nothing may be left out: the snapshot would be another than was asked for. */
static void put(json_t **body, const char *key, json_t *value)
{
    if (json_object_set_new(*body, key, value) < 0) {
        json_decref(*body);
        *body = NULL;
    }
}

static int make_body(
    const struct cli *cli, const struct wanted *wanted, char **ret, struct thaw_error *error)
{
    _cleanup_free_ char *store = NULL;
    _cleanup_json_ json_t *body = json_object();
    json_t *metadata = NULL, *store_text = NULL;
    size_t count;
    int rc = cli->store ? storage_path(cli->store, &store, error) : 0;

    if (rc == 0 && wanted->metadata)
        rc = load_metadata(wanted->metadata, &metadata, error);
    if (rc == 0 && store && !(store_text = json_string(store)))
        rc = fail_set(error, -EINVAL, "the path of the store is no UTF-8");
    if (rc < 0) {
        json_decref(metadata);
        return rc;
    }
    if (wanted->name)
        put(&body, "name", json_string(wanted->name));
    if (wanted->template_name)
        put(&body, "template", json_string(wanted->template_name));
    if (wanted->mode)
        put(&body, "mode", json_string(wanted->mode));
    if (wanted->level)
        put(&body, "level", json_integer((json_int_t)wanted->level));
    if (store)
        put(&body, "store", store_text);
    if (metadata)
        put(&body, "metadata", metadata);
    put(&body, "stop_and_copy", json_boolean(wanted->stop_and_copy));
    put(&body, "kill", json_boolean(wanted->kill));
    *ret = json_text_make(body, &count);
    return *ret ? 0 : fail_errno(error, ENOMEM, "cannot ask for a snapshot");
}

static void end_line(struct session *session)
{
    json_t *line = json_loadb(session->line, session->line_count, 0, NULL);

    session->line_count = 0;
    if (!line)
        return;
    if (strcmp(vm_json_get(line, "state"), "running") == 0)
        progress_draw(&session->progress, vm_json_get(line, "phase"),
            vm_json_number(line, "done_bytes"), vm_json_number(line, "total_bytes"));
    json_decref(session->last);
    session->last = line;
}

static int take_bytes(void *data, const char *bytes, size_t count)
{
    struct session *session = data;

    for (size_t i = 0; i < count; i++) {
        if (bytes[i] == '\n')
            end_line(session);
        else if (session->line_count == LINE_MAX_BYTES)
            return -EPROTO;
        else
            session->line[session->line_count++] = bytes[i];
    }
    return 0;
}

/* Asks the VM's process to end the work early, which the stream then tells. */
static int cancel(struct session *session, struct thaw_error *error)
{
    int64_t deadline = now_ms() + CONTROL_ANSWER_MS;
    _cleanup_close_ int fd = client_connect(session->entry->dir_path, deadline, error);
    int rc = fd < 0 ? fd : client_send(fd, "DELETE", "/v1/snapshots", "", 0, deadline, error);

    session->cancelled = true;
    return rc < 0 ? rc : client_receive(fd, deadline, NULL, error);
}

/* Until the stream has ended. */
static int follow(struct session *session, struct thaw_error *error)
{
    int64_t deadline = now_ms() + ANSWER_MS;
    int rc = 1;

    while (rc > 0) {
        bool accepted = client_stream_status(session->stream) != 0;
        struct pollfd fds[] = {
            {.fd = session->fd, .events = POLLIN},
            {.fd = session->signal_fd, .events = POLLIN},
        };

        poll(fds, ARRAY_SIZE(fds), accepted ? -1 : 1000);
        if (fds[0].revents)
            rc = client_stream_read(session->stream, session->fd, error);
        else if (!accepted && now_ms() >= deadline)
            rc = fail_set(error, -ETIMEDOUT, "VM '%s' does not answer", session->vm_name);
        if (rc > 0 && signals_take(session->signal_fd))
            rc = session->cancelled           ? fail_set(error, -ECANCELED, "interrupted")
                 : cancel(session, error) < 0 ? -EIO
                                              : 1;
    }
    progress_clear(&session->progress);
    return rc;
}

/* What the last line says. On success *ret is the snapshot. */
static int judge(struct session *session, json_t **ret, struct thaw_error *error)
{
    const json_t *failure, *snapshot;

    if (session->line_count > 0) /* an answer that is no stream */
        end_line(session);
    failure = json_object_get(session->last, "error");
    snapshot = json_object_get(session->last, "snapshot");
    if (session->cancelled && strcmp(vm_json_get(failure, "code"), "cancelled") == 0)
        return fail_set(
            error, -ECANCELED, "the snapshot was cancelled; VM '%s' goes on", session->vm_name);
    if (failure)
        return fail_set(error, -EIO, "%s", vm_json_get(failure, "message"));
    if (!snapshot)
        return fail_set(
            error, -EPROTO, "VM '%s' did not say what became of the snapshot", session->vm_name);
    *ret = json_incref((json_t *)snapshot);
    return 0;
}

static int run_session(
    struct session *session, const char *body, json_t **ret, struct thaw_error *error)
{
    int rc;

    session->line = malloc(LINE_MAX_BYTES);
    if (!session->line)
        return fail_errno(error, ENOMEM, "cannot follow the snapshot");
    signals_block();
    rc = session->signal_fd = signals_open(error);
    if (rc >= 0)
        rc = client_stream_new(
            "the snapshot's progress", take_bytes, session, &session->stream, error);
    if (rc >= 0)
        rc = client_send(session->fd, "POST", "/v1/snapshots", body, strlen(body),
            now_ms() + CONTROL_ANSWER_MS, error);
    if (rc >= 0)
        rc = follow(session, error);
    return rc < 0 ? rc : judge(session, ret, error);
}

static int ask(
    const struct wanted *wanted, const char *body, json_t **ret, struct thaw_error *error)
{
    struct runtime_entry entry;
    struct session session = {.vm_name = wanted->vm_name,
        .entry = &entry,
        .signal_fd = -1,
        .progress.title = wanted->vm_name};
    _cleanup_close_ int pid_fd = -1;
    int rc;

    session.fd = control_connect(wanted->vm_name, &entry, error);
    if (session.fd < 0) {
        if (session.fd == -ESRCH)
            runtime_entry_fini(&entry);
        return session.fd;
    }
    pid_fd = control_open_process(session.fd);
    rc = run_session(&session, body, ret, error);
    if (rc == 0 && wanted->kill) {
        rc = control_wait_gone(pid_fd, &entry, error);
        if (rc < 0)
            json_decref(take_ptr(*ret));
    }
    client_stream_free(session.stream);
    cleanup_close(&session.fd);
    cleanup_close(&session.signal_fd);
    free(session.line);
    json_decref(session.last);
    runtime_entry_fini(&entry);
    return rc;
}

static int run_snapshot(struct cli *cli)
{
    struct wanted wanted = {0};
    struct thaw_error error = {0};
    _cleanup_free_ char *body = NULL;
    json_t *snapshot = NULL;

    if (parse(cli, &wanted) == CLI_STOP)
        return cli->status;
    if (make_body(cli, &wanted, &body, &error) < 0 || ask(&wanted, body, &snapshot, &error) < 0)
        return cli_report(&error);
    cli_print_made(cli, snapshot);
    return CLI_OK;
}

const struct cli_command cmd_snapshot = {
    .name = "snapshot",
    .operands = "[OPTION]... NAME",
    .summary = "Take a snapshot of a VM, which goes on",
    .notes =
        "Prints the snapshot's name; with --json the snapshot and what it cost. Without --diff\n"
        "and --full only what changed is stored where that is possible. Ctrl-C cancels. The\n"
        "store is the VM's own unless --store names another; it is made if there is none.",
    .options = options,
    .run = run_snapshot,
};
