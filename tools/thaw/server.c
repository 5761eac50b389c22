/* SPDX-License-Identifier: Apache-2.0 */
/* Role: connections, their limits, and moving bytes between them, requests and responses.
 * Not here: HTTP syntax (http.c) and what requests mean (api.c). */
#include "server.h"
#include "fail.h"
#include "json_text.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define IN_MAX_BYTES   (HTTP_HEADER_MAX_BYTES + HTTP_BODY_MAX_BYTES)
#define LISTEN_BACKLOG 128

struct conn {
    struct loop_source source;
    struct server *server;
    struct conn *next;
    char *in;
    size_t in_count, in_capacity;
    char *out;
    size_t out_sent, out_count, out_capacity;
    int passed_fd;      /* goes with the next byte; -1: none */
    int64_t active_ms;  /* when bytes last moved or a request was complete */
    int64_t request_ms; /* when the incomplete request began; 0: there is none */
    bool half_closed;   /* the client sends no more */
    bool closing;       /* close when `out` is delivered */
    bool discarding;    /* but before that take the rest of a request that was refused */
    bool shut;          /* we send no more */
    bool continued;     /* "100 Continue" was sent for this request */
    bool streaming, chunked;
    struct server_stream stream;
};

struct server {
    struct loop *loop;
    server_handle_fn handle;
    void *data;
    struct loop_source source;
    struct conn *conns;
    unsigned conn_count, stream_count, limited_count;
    bool finishing;
};

static void end_stream(struct conn *conn)
{
    if (!conn->streaming)
        return;
    conn->streaming = false;
    conn->server->stream_count--;
    conn->server->limited_count -= conn->stream.limited;
    if (conn->stream.gone)
        conn->stream.gone(conn->stream.data);
}

static void conn_free(struct conn *conn)
{
    struct server *server = conn->server;
    struct conn **link = &server->conns;

    while (*link != conn)
        link = &(*link)->next;
    *link = conn->next;
    server->conn_count--;
    end_stream(conn);
    loop_unwatch(server->loop, &conn->source);
    close(conn->source.fd);
    cleanup_close(&conn->passed_fd);
    free(conn->in);
    free(conn->out);
    free(conn);
}

/* Makes room for `more` bytes; false if memory is short. */
static bool reserve(char **buf, size_t *capacity, size_t count, size_t more)
{
    size_t wanted = MAX(count + more, 1024u);
    char *larger;

    if (wanted <= *capacity)
        return true;
    larger = realloc(*buf, wanted + wanted / 2);
    if (!larger)
        return false;
    *buf = larger;
    *capacity = wanted + wanted / 2;
    return true;
}

static void put(struct conn *conn, const char *bytes, size_t count)
{
    if (conn->out_sent == conn->out_count)
        conn->out_sent = conn->out_count = 0;
    if (!reserve(&conn->out, &conn->out_capacity, conn->out_count, count)) {
        conn->closing = true;
        return;
    }
    if (count > 0)
        memcpy(conn->out + conn->out_count, bytes, count);
    conn->out_count += count;
}

static void put_response(struct conn *conn, const struct server_response *response, bool http_1_1)
{
    char header[512];
    int count = snprintf(header, sizeof(header),
        "HTTP/1.1 %d %s\r\nContent-Type: %s\r\n%s%s%sConnection: %s\r\n", response->status,
        http_reason(response->status), response->type, *response->allow ? "Allow: " : "",
        response->allow, *response->allow ? "\r\n" : "", conn->closing ? "close" : "keep-alive");

    put(conn, header, (size_t)count);
    if (!response->stream.next)
        count =
            snprintf(header, sizeof(header), "Content-Length: %zu\r\n\r\n", response->body_count);
    else
        count = snprintf(
            header, sizeof(header), "%s\r\n", http_1_1 ? "Transfer-Encoding: chunked\r\n" : "");
    put(conn, header, (size_t)count);
    put(conn, response->body, response->body_count);
}

void server_refuse(
    struct server_response *response, int status, const char *code, const char *message)
{
    _cleanup_json_ json_t *json =
        json_pack("{s:{s:s, s:s}}", "error", "code", code, "message", message);

    free(response->body);
    response->status = status;
    response->type = "application/json";
    response->stream.next = NULL;
    response->body_count = 0;
    response->body = json_text_make(json, &response->body_count);
}

static void begin_stream(struct conn *conn, const struct server_response *response, bool http_1_1)
{
    conn->streaming = true;
    conn->chunked = http_1_1;
    conn->stream = response->stream;
    conn->server->stream_count++;
    conn->server->limited_count += conn->stream.limited;
}

static bool is_same_user(const struct conn *conn)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);

    return getsockopt(conn->source.fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
           peer.uid == geteuid();
}

static bool has_hung_up(const struct conn *conn)
{
    struct pollfd poll_fd = {.fd = conn->source.fd};

    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLHUP);
}

static void answer(struct conn *conn, struct http_request *request)
{
    struct server *server = conn->server;
    struct server_response response = {.type = "application/json"};

    request->abandoned = has_hung_up(conn);
    request->same_user = is_same_user(conn);
    server->handle(server->data, request, &response);
    if (response.stream.limited && server->limited_count >= SERVER_STREAMS_MAX)
        server_refuse(&response, 503, "busy", "too many readers follow the console already");
    conn->closing = conn->closing || !request->keep_alive || response.stream.next;
    if (response.fd > 0)
        conn->passed_fd = fcntl(response.fd, F_DUPFD_CLOEXEC, 3);
    if (response.fd > 0 && conn->passed_fd < 0)
        server_refuse(&response, 500, "failed", "no descriptor is free");
    put_response(conn, &response, request->http_1_1);
    if (response.stream.next)
        begin_stream(conn, &response, request->http_1_1);
    free(response.body);
}

static void answer_nonsense(struct conn *conn, int status)
{
    struct server_response response = {0};
    char message[80];

    snprintf(message, sizeof(message), "the request cannot be served: %s", http_reason(status));
    server_refuse(&response, status, "bad-request", message);
    conn->closing = conn->discarding = true;
    conn->in_count = 0;
    put_response(conn, &response, true);
    free(response.body);
}

/* Answers the request at the front of `in`. False: it is not complete yet. */
static bool next_request(struct conn *conn)
{
    struct http_request request;
    struct http_progress progress;
    int rc = http_parse_request(conn->in, conn->in_count, &request, &progress);

    if (rc == -EAGAIN) {
        if (progress.expect_continue && progress.headers_done && !conn->continued) {
            conn->continued = true;
            put(conn, "HTTP/1.1 100 Continue\r\n\r\n", 25);
            return true;
        }
        return false;
    }
    conn->continued = false;
    conn->active_ms = now_ms();
    conn->request_ms = 0;
    if (rc > 0) {
        answer_nonsense(conn, rc);
        return true;
    }
    answer(conn, &request);
    conn->in_count -= progress.used;
    conn->request_ms = conn->in_count > 0 ? now_ms() : 0;
    memmove(conn->in, conn->in + progress.used, conn->in_count);
    return true;
}

/* Puts the next part of the stream into `out`. False: there is none yet. */
static bool next_stream_part(struct conn *conn)
{
    char part[SERVER_PART_BYTES], frame[24];
    ssize_t count = conn->stream.next(&conn->stream, part, conn->server->finishing);

    if (count == 0)
        return false;
    if (count < 0) {
        end_stream(conn);
        if (conn->chunked)
            put(conn, "0\r\n\r\n", 5);
        return true;
    }
    if (conn->chunked)
        put(conn, frame, (size_t)snprintf(frame, sizeof(frame), "%zx\r\n", (size_t)count));
    put(conn, part, (size_t)count);
    if (conn->chunked)
        put(conn, "\r\n", 2);
    return true;
}

/* As send; a descriptor goes along. */
static ssize_t send_with_fd(int socket_fd, void *bytes, size_t count, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec part = {.iov_base = bytes, .iov_len = count};
    struct msghdr message = {.msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    return sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* False: the connection is broken. */
static bool send_out(struct conn *conn)
{
    while (conn->out_sent < conn->out_count) {
        char *bytes = conn->out + conn->out_sent;
        size_t count = conn->out_count - conn->out_sent;
        ssize_t n = conn->passed_fd < 0
                        ? send(conn->source.fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : send_with_fd(conn->source.fd, bytes, count, conn->passed_fd);

        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        cleanup_close(&conn->passed_fd);
        conn->passed_fd = -1;
        conn->out_sent += (size_t)n;
        conn->active_ms = now_ms();
    }
    return true;
}

/* Closed with input unread, the answer would be lost with it. The client closes when it has that;
 * one that does not is cut off like any whose request takes too long. False: there is nothing to
 * wait for. */
static bool discard(struct conn *conn)
{
    if (!conn->discarding || conn->half_closed || conn->server->finishing)
        return false;
    if (!conn->shut) {
        shutdown(conn->source.fd, SHUT_WR);
        conn->shut = true;
        conn->request_ms = now_ms();
    }
    conn->in_count = 0;
    return true;
}

/* Does all that can be done now; may free the connection. */
static void conn_advance(struct conn *conn)
{
    uint32_t events = 0;

    for (;;) {
        if (!send_out(conn)) {
            conn_free(conn);
            return;
        }
        if (conn->out_sent < conn->out_count)
            break;
        if (conn->streaming) {
            if (!next_stream_part(conn))
                break;
        } else if (conn->closing) {
            if (discard(conn))
                break;
            conn_free(conn);
            return;
        } else if (!next_request(conn)) {
            if (conn->half_closed || conn->server->finishing) {
                conn_free(conn);
                return;
            }
            break;
        }
    }
    if (!conn->half_closed && !conn->streaming && conn->in_count < IN_MAX_BYTES)
        events |= EPOLLIN;
    if (conn->out_sent < conn->out_count)
        events |= EPOLLOUT;
    loop_watch(conn->server->loop, &conn->source, events);
}

/* False: the connection is broken. */
static bool receive(struct conn *conn)
{
    ssize_t n;

    if (!reserve(&conn->in, &conn->in_capacity, conn->in_count, 4096))
        return false;
    n = recv(conn->source.fd, conn->in + conn->in_count,
        MIN(conn->in_capacity, (size_t)IN_MAX_BYTES) - conn->in_count, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        conn->half_closed = true;
    if (n > 0 && conn->request_ms == 0)
        conn->request_ms = now_ms();
    conn->in_count += (size_t)n;
    return true;
}

static void conn_ready(void *data, uint32_t events)
{
    struct conn *conn = data;

    if (((events & EPOLLIN) && !receive(conn)) ||
        ((events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN))) {
        conn_free(conn);
        return;
    }
    conn_advance(conn);
}

static bool make_room(struct server *server)
{
    struct conn *oldest = NULL;

    if (server->conn_count < SERVER_CONNECTIONS_MAX)
        return true;
    for (struct conn *conn = server->conns; conn; conn = conn->next) {
        if (!conn->streaming && (!oldest || conn->active_ms <= oldest->active_ms))
            oldest = conn;
    }
    if (oldest)
        conn_free(oldest);
    return oldest != NULL;
}

static void accept_ready(void *data, uint32_t events)
{
    struct server *server = data;
    _cleanup_close_ int fd = accept4(server->source.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct conn *conn;

    (void)events;
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE)
            usleep(1000); /* do not spin while there is no descriptor */
        return;
    }
    if (!make_room(server) || !(conn = calloc(1, sizeof(*conn))))
        return;
    *conn = (struct conn){
        .source = {.fd = take_fd(&fd), .ready = conn_ready, .data = conn},
        .server = server,
        .next = server->conns,
        .passed_fd = -1,
        .active_ms = now_ms(),
    };
    server->conns = conn;
    server->conn_count++;
    if (loop_watch(server->loop, &conn->source, EPOLLIN) < 0)
        conn_free(conn);
}

static int listen_at(const char *path, struct thaw_error *error)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (strlen(path) >= sizeof(addr.sun_path))
        return fail_set(error, -ENAMETOOLONG, "the path '%s' is too long for a socket", path);
    memcpy(addr.sun_path, path, strlen(path));
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        listen(fd, LISTEN_BACKLOG) != 0)
        return fail_errno(error, errno, "cannot make the control socket '%s'", path);
    return take_fd(&fd);
}

int server_open(struct loop *loop, const char *path, server_handle_fn handle, void *data,
    struct server **ret, struct thaw_error *error)
{
    struct server *server = calloc(1, sizeof(*server));
    int rc;

    if (!server)
        return fail_errno(error, ENOMEM, "cannot make the control socket");
    *server = (struct server){.loop = loop, .handle = handle, .data = data, .source = {.fd = -1}};
    rc = listen_at(path, error);
    if (rc < 0) {
        server_close(server);
        return rc;
    }
    server->source = (struct loop_source){.fd = rc, .ready = accept_ready, .data = server};
    rc = loop_watch(loop, &server->source, EPOLLIN);
    if (rc < 0) {
        server_close(server);
        return fail_errno(error, -rc, "cannot watch the control socket");
    }
    *ret = server;
    return 0;
}

void server_close(struct server *server)
{
    if (!server)
        return;
    while (server->conns)
        conn_free(server->conns);
    loop_unwatch(server->loop, &server->source);
    cleanup_close(&server->source.fd);
    free(server);
}

void server_advance_streams(struct server *server)
{
    for (struct conn *conn = server->conns, *next; conn; conn = next) {
        next = conn->next;
        if (conn->streaming)
            conn_advance(conn);
    }
}

int server_expire(struct server *server)
{
    int64_t now = now_ms();

    for (struct conn *conn = server->conns, *next; conn; conn = next) {
        bool unsent = conn->out_sent < conn->out_count;

        next = conn->next;
        if (conn->streaming)
            continue;
        if ((conn->request_ms && now - conn->request_ms > SERVER_REQUEST_MS) ||
            now - conn->active_ms > (unsent ? SERVER_REQUEST_MS : SERVER_IDLE_MS))
            conn_free(conn);
    }
    return server->conn_count > server->stream_count ? 1000 : -1;
}

bool server_finish(struct server *server)
{
    server->finishing = true;
    loop_unwatch(server->loop, &server->source);
    for (struct conn *conn = server->conns, *next; conn; conn = next) {
        next = conn->next;
        conn_advance(conn);
    }
    return server->conns == NULL;
}
