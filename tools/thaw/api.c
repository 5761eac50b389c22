/* SPDX-License-Identifier: Apache-2.0 */
/* Role: route requests to the VM's owner and form the answers.
 * Not here: connections (server.c) and the VM itself (owner.c). */
#include "api.h"
#include "fail.h"
#include "json_text.h"
#include "text.h"
#include <errno.h>
#include <string.h>

static void respond_json(struct server_response *response, json_t *json)
{
    response->status = 200;
    response->body = json_text_make(json, &response->body_count);
    json_decref(json);
    if (!response->body)
        server_refuse(response, 500, "no-memory", "out of memory");
}

/* How errors are told: others are 500 "failed". */
static const struct answer {
    int code;
    int status;
    const char *word;
} answers[] = {
    {THAW_ESTATE, 409, "wrong-state"},
    {THAW_ECORRUPT, 500, "corrupt"},
    {-EINVAL, 400, "invalid"},
    {-EBUSY, 409, "busy"},
    {-EEXIST, 409, "exists"},
    {-ENOMEM, 500, "no-memory"},
    {-ECANCELED, 409, "cancelled"},
    {-ENOSPC, 507, "no-space"},
    {-EDQUOT, 507, "no-space"},
    {0, 500, "failed"},
};

static const struct answer *find_answer(int code)
{
    const struct answer *answer = answers;

    while (answer->code && answer->code != code)
        answer++;
    return answer;
}

json_t *api_error_json(const struct thaw_error *error)
{
    return json_pack("{s:s, s:o}", "code", find_answer(error->code)->word, "message",
        vm_json_text(error->message));
}

static void respond_error(struct server_response *response, const struct thaw_error *error)
{
    const struct answer *answer = find_answer(error->code);

    server_refuse(response, answer->status, answer->word,
        error->message[0] ? error->message : thaw_strerror(error->code));
}

/* A body that may be left out. `wanted` is told whoever sends something else. */
static json_t *load_body(
    const struct http_request *request, const char *wanted, struct thaw_error *error)
{
    bool empty = request->body_count == 0;
    json_t *body = NULL;
    int rc = json_text_parse(empty ? "{}" : request->body, empty ? 2 : request->body_count, &body);

    if (rc == -EINVAL)
        fail_set(error, rc, "%s", wanted);
    else if (rc < 0)
        fail_errno(error, -rc, "cannot read the request");
    return body;
}

static int refuse_body(const json_error_t *problem, struct thaw_error *error)
{
    if (!json_text_is_wrong(problem))
        return fail_errno(error, ENOMEM, "cannot read the request");
    return fail_set(error, -EINVAL, "the body is not as it should be: %s", problem->text);
}

static void get_vm(
    struct owner *owner, const struct http_request *request, struct server_response *response)
{
    (void)request;
    respond_json(response, owner_describe(owner));
}

#define STATE_BODY  "the body must be JSON like {\"state\":\"paused\"}"
#define OBJECT_BODY "the body must be a JSON object or empty"

static int parse_state(json_t *body, enum thaw_vm_state *ret, struct thaw_error *error)
{
    static const enum thaw_vm_state states[] = {THAW_VM_RUNNING, THAW_VM_PAUSED, THAW_VM_STOPPED};
    const char *text = json_string_value(json_object_get(body, "state"));

    if (!text)
        return fail_set(error, -EINVAL, STATE_BODY);
    for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
        if (strcmp(text, thaw_vm_state_name(states[i])) == 0) {
            *ret = states[i];
            return 0;
        }
    }
    return fail_set(error, -EINVAL, "'state' must be 'running', 'paused' or 'stopped'");
}

static void put_state(
    struct owner *owner, const struct http_request *request, struct server_response *response)
{
    struct thaw_error error = {0};
    _cleanup_json_ json_t *body = load_body(request, STATE_BODY, &error);
    enum thaw_vm_state state = THAW_VM_RUNNING;

    if (!body || parse_state(body, &state, &error) < 0 || owner_set_state(owner, state, &error) < 0)
        respond_error(response, &error);
    else
        respond_json(response, owner_describe(owner));
}

static int parse_clock(json_t *body, enum thaw_clock *ret, struct thaw_error *error)
{
    const char *clock = "continue";
    json_error_t problem = {0};

    if (json_unpack_ex(body, &problem, JSON_STRICT, "{s?s}", "clock", &clock) != 0)
        return refuse_body(&problem, error);
    if (text_parse_clock(clock, ret) < 0)
        return fail_set(error, -EINVAL, "'clock' must be 'continue' or 'host'");
    return 0;
}

static void post_reset(
    struct owner *owner, const struct http_request *request, struct server_response *response)
{
    struct thaw_error error = {0};
    _cleanup_json_ json_t *body = load_body(request, OBJECT_BODY, &error);
    enum thaw_clock clock = THAW_CLOCK_CONTINUE;

    if (!body || parse_clock(body, &clock, &error) < 0 || owner_reset(owner, clock, &error) < 0)
        respond_error(response, &error);
    else
        respond_json(response, owner_describe(owner));
}

/* The number that the query gives to `key`. Returns 0 if it is absent or good. */
static int query_number(const char *query, const char *key, uint64_t max, uint64_t *ret)
{
    char text[24];
    size_t count;
    const char *value = text_query_value(query, key, &count);

    if (!value)
        return 0;
    if (count >= sizeof(text))
        return -EINVAL;
    memcpy(text, value, count);
    text[count] = '\0';
    return text_parse_number(text, 0, max, ret);
}

static void respond_tail(
    struct console *console, uint64_t pos, uint64_t end, struct server_response *response)
{
    size_t count = (size_t)(end - pos), used = 0;
    uint64_t skipped;

    response->body = malloc(count + 1);
    if (!response->body) {
        server_refuse(response, 500, "no-memory", "out of memory");
        return;
    }
    while (used < count) {
        size_t n = console_read(console, &pos, response->body + used, count - used, &skipped);

        if (n == 0)
            break;
        used += n;
    }
    response->body_count = used;
}

/* Follows the console; stream->pos counts what the guest wrote. */
static ssize_t next_output(struct server_stream *stream, char buf[SERVER_PART_BYTES], bool last)
{
    struct console *console = owner_console(stream->data);
    uint64_t skipped;
    char notice[80];
    size_t count =
        console_read(console, &stream->pos, buf + sizeof(notice), SERVER_PART_BYTES - 80, &skipped);
    size_t notice_count = skipped ? console_skip_notice(skipped, notice) : 0;

    if (count == 0)
        return last ? -1 : 0;
    memmove(buf + notice_count, buf + sizeof(notice), count);
    memcpy(buf, notice, notice_count);
    return (ssize_t)(notice_count + count);
}

static void get_console(
    struct owner *owner, const struct http_request *request, struct server_response *response)
{
    struct console *console = owner_console(owner);
    uint64_t follow = 0, tail = UINT64_MAX, end = console_end(console);

    if (query_number(request->query, "follow", 1, &follow) < 0 ||
        query_number(request->query, "tail", UINT64_MAX, &tail) < 0) {
        server_refuse(
            response, 400, "invalid", "'follow' must be 0 or 1, 'tail' a number of bytes");
        return;
    }
    tail = MIN(tail, MIN(end, (uint64_t)CONSOLE_BYTES));
    response->status = 200;
    response->type = "application/octet-stream";
    if (follow) {
        response->stream = (struct server_stream){
            .next = next_output, .data = owner, .pos = end - tail, .limited = true};
    } else {
        respond_tail(console, end - tail, end, response);
    }
}

static void post_console(
    struct owner *owner, const struct http_request *request, struct server_response *response)
{
    struct thaw_error error = {0};
    int rc = 0;

    if (request->body_count > 0)
        rc = owner_input(owner, request->body, request->body_count, &error);
    if (rc < 0)
        respond_error(response, &error);
    else
        respond_json(response, json_pack("{s:i}", "taken", rc));
}

/* What the body of POST /v1/snapshots holds. Strings are the body's. */
struct snapshot_body {
    const char *name, *template_name, *store, *mode;
    json_t *metadata;
    int level, stop_and_copy, kill;
};

static int unpack_snapshot(json_t *body, struct snapshot_body *ret, struct thaw_error *error)
{
    json_error_t problem = {0};

    *ret = (struct snapshot_body){.mode = "auto"};
    if (json_unpack_ex(body, &problem, JSON_STRICT, "{s?s, s?s, s?s, s?s, s?o, s?i, s?b, s?b}",
            "name", &ret->name, "template", &ret->template_name, "store", &ret->store, "mode",
            &ret->mode, "metadata", &ret->metadata, "level", &ret->level, "stop_and_copy",
            &ret->stop_and_copy, "kill", &ret->kill) != 0)
        return refuse_body(&problem, error);
    if (strcmp(ret->mode, "auto") != 0 && strcmp(ret->mode, "full") != 0 &&
        strcmp(ret->mode, "diff") != 0)
        return fail_set(error, -EINVAL, "'mode' must be 'auto', 'full' or 'diff'");
    if (ret->store && *ret->store != '/')
        return fail_set(error, -EINVAL, "'store' must be an absolute path");
    if (ret->metadata && !json_is_object(ret->metadata))
        return fail_set(error, -EINVAL, "'metadata' must be an object");
    return 0;
}

static uint32_t snapshot_flags(const struct snapshot_body *body)
{
    uint32_t flags = 0;

    if (strcmp(body->mode, "full") == 0)
        flags |= THAW_SNAPSHOT_FULL;
    if (strcmp(body->mode, "diff") == 0)
        flags |= THAW_SNAPSHOT_DIFF;
    if (body->stop_and_copy)
        flags |= THAW_SNAPSHOT_STOP_AND_COPY;
    if (body->kill)
        flags |= THAW_SNAPSHOT_KILL;
    return flags;
}

static void post_snapshots(
    struct owner *owner, const struct http_request *request, struct server_response *response)
{
    struct thaw_error error = {0};
    _cleanup_json_ json_t *body = load_body(request, OBJECT_BODY, &error);
    _cleanup_free_ char *metadata = NULL;
    struct snapshot_body wanted;
    size_t count;
    int rc = body ? unpack_snapshot(body, &wanted, &error) : error.code;

    if (rc == 0 && request->abandoned)
        rc = fail_set(&error, -ECANCELED, "the client has gone");
    if (rc == 0) {
        struct thaw_snapshot_options options = {
            .size = sizeof(options),
            .name = wanted.name,
            .template_name = wanted.template_name,
            .flags = snapshot_flags(&wanted),
            .level = wanted.level,
        };

        if (wanted.metadata)
            options.metadata = metadata = json_text_make(wanted.metadata, &count);
        if (wanted.metadata && !metadata)
            rc = fail_errno(&error, ENOMEM, "cannot take a snapshot");
        else
            rc = owner_snapshot(owner, wanted.store, &options, &response->stream, &error);
    }
    response->status = 200;
    response->type = "application/x-ndjson";
    if (rc < 0)
        respond_error(response, &error);
}

static void delete_snapshots(
    struct owner *owner, const struct http_request *request, struct server_response *response)
{
    (void)request;
    respond_json(response, json_pack("{s:b}", "cancelling", owner_cancel_snapshot(owner)));
}

/* The connection's file mode is what keeps other users out; this is for root's, who gets in. */
static void get_image(
    struct owner *owner, const struct http_request *request, struct server_response *response)
{
    struct thaw_error error = {0};
    char id[64];
    size_t count = 0;
    const char *wanted = text_query_value(request->query, "snapshot", &count);
    int fd;

    if (!request->same_user) {
        server_refuse(response, 403, "forbidden", "memory goes to processes of the same user only");
        return;
    }
    snprintf(id, sizeof(id), "%.*s", (int)MIN(count, sizeof(id) - 1), wanted ? wanted : "");
    fd = owner_image_fd(owner, id, &error);
    if (fd < 0) {
        respond_error(response, &error);
        return;
    }
    respond_json(response, json_pack("{s:s}", "snapshot_id", id));
    response->fd = response->status == 200 ? fd : 0;
}

static const struct route {
    const char *path;
    const char *method;
    void (*handle)(
        struct owner *owner, const struct http_request *request, struct server_response *response);
} routes[] = {
    {"/v1/vm", "GET", get_vm},
    {"/v1/vm/state", "PUT", put_state},
    {"/v1/vm/reset", "POST", post_reset},
    {"/v1/console", "GET", get_console},
    {"/v1/console", "POST", post_console},
    {"/v1/image", "GET", get_image},
    {"/v1/snapshots", "POST", post_snapshots},
    {"/v1/snapshots", "DELETE", delete_snapshots},
};

/* Fills `allow` with the methods that a path has; false if there is no such path. */
static bool list_methods(const char *path, char *allow, size_t allow_bytes)
{
    size_t used = 0;

    for (size_t i = 0; i < ARRAY_SIZE(routes) && used < allow_bytes; i++) {
        if (strcmp(routes[i].path, path) == 0)
            used += (size_t)snprintf(
                allow + used, allow_bytes - used, "%s%s", used ? ", " : "", routes[i].method);
    }
    return used > 0;
}

void api_handle(void *data, const struct http_request *request, struct server_response *response)
{
    char message[64];

    for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
        if (strcmp(routes[i].path, request->path) == 0 &&
            strcmp(routes[i].method, request->method) == 0) {
            routes[i].handle(data, request, response);
            return;
        }
    }
    if (list_methods(request->path, response->allow, sizeof(response->allow))) {
        snprintf(message, sizeof(message), "use %s", response->allow);
        server_refuse(response, 405, "method-not-allowed", message);
    } else {
        server_refuse(response, 404, "not-found", "there is no such thing here; see docs/api.md");
    }
}
