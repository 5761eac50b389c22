/* SPDX-License-Identifier: Apache-2.0 */
/* Role: HTTP requests over a VM's control socket, with deadlines.
 * Not here: which VM, and waiting until it is there or gone (control.c). */
#include "client.h"
#include "fail.h"
#include "runtime.h"
#include <errno.h>
#include <http_parser.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RESPONSE_MAX_BYTES (1u << 20)

/* 0 when fd is ready, -ETIMEDOUT after the deadline. */
static int wait_for(int fd, short events, int64_t deadline)
{
    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = events};
        int64_t left = deadline - now_ms();
        int rc = poll(&poll_fd, 1, left > 0 ? (int)MIN(left, 1000000) : 0);

        if (rc > 0)
            return 0;
        if (rc == 0 && now_ms() >= deadline)
            return -ETIMEDOUT;
        if (rc < 0 && errno != EINTR)
            return -errno;
    }
}

int client_connect(const char *dir_path, int64_t deadline, struct thaw_error *error)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int count = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/" RUNTIME_SOCKET, dir_path);

    if (count < 0 || (size_t)count >= sizeof(addr.sun_path))
        return fail_set(
            error, -ENAMETOOLONG, "the path of '%s' is too long for a socket", dir_path);
    if (fd < 0)
        return fail_errno(error, errno, "cannot make a socket");
    while (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
        if (errno == EINTR)
            continue;
        /* A full backlog cannot be polled for. */
        if (errno != EAGAIN)
            return fail_errno(error, errno, "cannot connect to '%s'", addr.sun_path);
        if (now_ms() >= deadline)
            return fail_errno(error, ETIMEDOUT, "cannot connect to '%s'", addr.sun_path);
        usleep(5000);
    }
    return take_fd(&fd);
}

pid_t client_peer(int fd)
{
    struct ucred peer = {0};
    socklen_t bytes = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 ? peer.pid : 0;
}

static int send_bytes(int fd, const char *bytes, size_t count, int64_t deadline)
{
    while (count > 0) {
        ssize_t n = send(fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(fd, POLLOUT, deadline);

            if (rc < 0)
                return rc;
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        } else if (n > 0) {
            bytes += n;
            count -= (size_t)n;
        }
    }
    return 0;
}

int client_send(int fd, const char *method, const char *target, const char *body, size_t body_count,
    int64_t deadline, struct thaw_error *error)
{
    char header[256];
    int count = snprintf(header, sizeof(header),
        "%s %s HTTP/1.1\r\nHost: thaw\r\nContent-Length: %zu\r\n\r\n", method, target, body_count);
    int rc = send_bytes(fd, header, (size_t)count, deadline);

    if (rc == 0)
        rc = send_bytes(fd, body, body_count, deadline);
    return rc < 0 ? fail_errno(error, -rc, "cannot send a request to the VM") : 0;
}

struct response {
    char *body;
    size_t body_count;
    int fd; /* that came along; -1: none */
    bool complete;
};

static int on_body(http_parser *parser, const char *at, size_t count)
{
    struct response *response = parser->data;
    char *larger;

    if (count > RESPONSE_MAX_BYTES - response->body_count)
        return 1;
    larger = realloc(response->body, response->body_count + count);
    if (!larger)
        return 1;
    memcpy(larger + response->body_count, at, count);
    response->body = larger;
    response->body_count += count;
    return 0;
}

static int on_complete(http_parser *parser)
{
    struct response *response = parser->data;

    response->complete = true;
    http_parser_pause(parser, 1);
    return 0;
}

/* As recv; a descriptor that comes along replaces *ret_fd. */
static ssize_t receive_with_fd(int socket_fd, char *buf, size_t bytes, int *ret_fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = buf, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = CMSG_LEN(sizeof(int))}; /* more than one are closed by the kernel */
    ssize_t n = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = n < 0 ? NULL : CMSG_FIRSTHDR(&message);

    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(*ret_fd))) {
        cleanup_close(ret_fd);
        memcpy(ret_fd, CMSG_DATA(header), sizeof(*ret_fd));
    }
    return n;
}

static int receive_response(
    int fd, int64_t deadline, http_parser *parser, struct response *response)
{
    static const http_parser_settings settings = {
        .on_body = on_body, .on_message_complete = on_complete};

    http_parser_init(parser, HTTP_RESPONSE);
    parser->data = response;
    while (!response->complete) {
        char buf[4096];
        ssize_t n = receive_with_fd(fd, buf, sizeof(buf), &response->fd);
        int rc;

        if (n < 0 && errno == EAGAIN) {
            rc = wait_for(fd, POLLIN, deadline);
            if (rc < 0)
                return rc;
            continue;
        }
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n < 0)
            continue;
        http_parser_execute(parser, &settings, buf, (size_t)n);
        if (response->complete)
            break;
        if (n == 0)
            return -ECONNRESET;
        if (HTTP_PARSER_ERRNO(parser) != HPE_OK)
            return -EPROTO;
    }
    return 0;
}

static int receive(
    int fd, int64_t deadline, json_t **ret_body, int *ret_fd, struct thaw_error *error)
{
    struct response response = {.fd = -1};
    http_parser parser;
    int rc = receive_response(fd, deadline, &parser, &response);
    _cleanup_free_ char *text = response.body;
    _cleanup_close_ int passed_fd = response.fd;
    _cleanup_json_ json_t *body = NULL;
    const char *message;

    if (rc < 0)
        return fail_errno(error, -rc, "no answer from the VM's process");
    body = json_loadb(text ? text : "", response.body_count, 0, NULL);
    if (parser.status_code >= 400) {
        message = json_string_value(json_object_get(json_object_get(body, "error"), "message"));
        return fail_set(error, parser.status_code == 409 ? THAW_ESTATE : -EIO, "%s",
            message ? message : "the VM's process refused without a reason");
    }
    if (!body)
        return fail_set(error, -EPROTO, "the VM's process answered with something else than JSON");
    if (ret_body)
        *ret_body = take_ptr(body);
    if (ret_fd)
        *ret_fd = take_fd(&passed_fd);
    return 0;
}

int client_receive(int fd, int64_t deadline, json_t **ret_body, struct thaw_error *error)
{
    return receive(fd, deadline, ret_body, NULL, error);
}

int client_ask_fd(
    int fd, const char *target, int64_t deadline, int *ret_fd, struct thaw_error *error)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    int rc;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0 || peer.uid != geteuid())
        return fail_set(error, -EPERM, "the VM's process is another user's");
    rc = client_send(fd, "GET", target, "", 0, deadline, error);
    return rc < 0 ? rc : receive(fd, deadline, NULL, ret_fd, error);
}

struct client_stream {
    http_parser parser;
    const char *what;
    client_stream_fn take;
    void *data;
    bool complete, enough;
};

static int on_stream_body(http_parser *parser, const char *at, size_t count)
{
    struct client_stream *stream = parser->data;

    stream->enough = stream->enough || stream->take(stream->data, at, count) < 0;
    return stream->enough;
}

static int on_stream_complete(http_parser *parser)
{
    ((struct client_stream *)parser->data)->complete = true;
    return 0;
}

int client_stream_new(const char *what, client_stream_fn take, void *data,
    struct client_stream **ret, struct thaw_error *error)
{
    struct client_stream *stream = calloc(1, sizeof(*stream));

    if (!stream)
        return fail_errno(error, ENOMEM, "cannot follow %s", what);
    http_parser_init(&stream->parser, HTTP_RESPONSE);
    stream->parser.data = stream;
    stream->what = what;
    stream->take = take;
    stream->data = data;
    *ret = stream;
    return 0;
}

void client_stream_free(struct client_stream *stream)
{
    free(stream);
}

unsigned client_stream_status(const struct client_stream *stream)
{
    return stream->parser.status_code;
}

int client_stream_read(struct client_stream *stream, int fd, struct thaw_error *error)
{
    static const http_parser_settings settings = {
        .on_body = on_stream_body, .on_message_complete = on_stream_complete};
    char buf[16384];
    ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (n < 0)
        return fail_errno(error, errno, "lost %s", stream->what);
    http_parser_execute(&stream->parser, &settings, buf, (size_t)n);
    if (stream->enough)
        return -ECANCELED;
    if (stream->complete)
        return 0;
    if (n == 0)
        return fail_set(error, -ECONNRESET, "lost %s: the VM's process died", stream->what);
    if (HTTP_PARSER_ERRNO(&stream->parser) != HPE_OK)
        return fail_set(
            error, -EPROTO, "lost %s: the VM's process does not speak HTTP", stream->what);
    return 1;
}
