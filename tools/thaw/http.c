/* SPDX-License-Identifier: Apache-2.0 */
/* Role: HTTP syntax and its limits, on top of http_parser.
 * Not here: connections (server.c) and what requests mean (api.c). */
#include "http.h"
#include <errno.h>
#include <http_parser.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct parse {
    struct http_request *request;
    struct http_progress *progress;
    char target[HTTP_TARGET_MAX_BYTES + 1];
    size_t target_count;
    size_t field_count;
    char field[16];
    bool expect_continue;
    bool expect_other;
    bool complete;
    int refused; /* HTTP status, 0: not refused */
};

static int on_url(http_parser *parser, const char *at, size_t count)
{
    struct parse *parse = parser->data;

    if (count > HTTP_TARGET_MAX_BYTES - parse->target_count) {
        parse->refused = HTTP_STATUS_URI_TOO_LONG;
        return 1;
    }
    memcpy(parse->target + parse->target_count, at, count);
    parse->target_count += count;
    parse->target[parse->target_count] = '\0';
    return 0;
}

static int on_header_field(http_parser *parser, const char *at, size_t count)
{
    struct parse *parse = parser->data;

    parse->field_count = count;
    memcpy(parse->field, at, count < sizeof(parse->field) ? count : sizeof(parse->field));
    return 0;
}

/* The value may have arrived in part only: it is judged when the headers are complete. */
static int on_header_value(http_parser *parser, const char *at, size_t count)
{
    struct parse *parse = parser->data;

    if (parse->field_count == 6 && strncasecmp(parse->field, "expect", 6) == 0) {
        if (count == 12 && strncasecmp(at, "100-continue", 12) == 0)
            parse->expect_continue = true;
        else
            parse->expect_other = true;
    }
    return 0;
}

/* Splits the target: "/path?query", or with scheme and host in front of it. */
static int split_target(struct parse *parse)
{
    struct http_parser_url url;
    struct http_request *request = parse->request;

    http_parser_url_init(&url);
    if (http_parser_parse_url(parse->target, parse->target_count, 0, &url) != 0)
        return -1;
    if (url.field_set & (1 << UF_PATH))
        memcpy(request->path, parse->target + url.field_data[UF_PATH].off,
            url.field_data[UF_PATH].len);
    if (url.field_set & (1 << UF_QUERY))
        memcpy(request->query, parse->target + url.field_data[UF_QUERY].off,
            url.field_data[UF_QUERY].len);
    return 0;
}

static int on_headers_complete(http_parser *parser)
{
    struct parse *parse = parser->data;
    struct http_request *request = parse->request;

    parse->progress->headers_done = true;
    parse->progress->expect_continue = parse->expect_continue;
    request->method = http_method_str((enum http_method)parser->method);
    request->http_1_1 = parser->http_major == 1 && parser->http_minor >= 1;
    request->keep_alive = http_should_keep_alive(parser) != 0;
    if (parser->http_major != 1)
        parse->refused = HTTP_STATUS_HTTP_VERSION_NOT_SUPPORTED;
    else if (parser->method == HTTP_CONNECT)
        parse->refused = HTTP_STATUS_BAD_REQUEST;
    else if (parse->expect_other)
        parse->refused = HTTP_STATUS_EXPECTATION_FAILED;
    else if (parser->flags & F_CHUNKED)
        parse->refused = HTTP_STATUS_LENGTH_REQUIRED;
    else if ((parser->flags & F_CONTENTLENGTH) && parser->content_length > HTTP_BODY_MAX_BYTES)
        parse->refused = HTTP_STATUS_PAYLOAD_TOO_LARGE;
    else if (split_target(parse) < 0)
        parse->refused = HTTP_STATUS_BAD_REQUEST;
    return parse->refused ? -1 : 0;
}

static int on_body(http_parser *parser, const char *at, size_t count)
{
    struct http_request *request = ((struct parse *)parser->data)->request;

    if (!request->body)
        request->body = at;
    request->body_count += count;
    return 0;
}

static int on_message_complete(http_parser *parser)
{
    ((struct parse *)parser->data)->complete = true;
    http_parser_pause(parser, 1); /* a request that follows is not looked at yet */
    return 0;
}

static int refusal(const http_parser *parser)
{
    return HTTP_PARSER_ERRNO(parser) == HPE_HEADER_OVERFLOW
               ? HTTP_STATUS_REQUEST_HEADER_FIELDS_TOO_LARGE
               : HTTP_STATUS_BAD_REQUEST;
}

int http_parse_request(
    const char *buf, size_t count, struct http_request *ret, struct http_progress *progress)
{
    static const http_parser_settings settings = {
        .on_url = on_url,
        .on_header_field = on_header_field,
        .on_header_value = on_header_value,
        .on_headers_complete = on_headers_complete,
        .on_body = on_body,
        .on_message_complete = on_message_complete,
    };
    struct parse parse = {.request = ret, .progress = progress};
    http_parser parser;
    size_t used;

    memset(ret, 0, sizeof(*ret));
    memset(progress, 0, sizeof(*progress));
    if (count == 0)
        return -EAGAIN;
    http_parser_init(&parser, HTTP_REQUEST);
    http_parser_set_max_header_size(HTTP_HEADER_MAX_BYTES);
    parser.data = &parse;
    used = http_parser_execute(&parser, &settings, buf, count);
    if (parse.refused)
        return parse.refused;
    if (parse.complete) {
        progress->used = used;
        return 0;
    }
    if (HTTP_PARSER_ERRNO(&parser) != HPE_OK || parser.upgrade)
        return refusal(&parser);
    return -EAGAIN;
}

const char *http_reason(int status)
{
    return http_status_str((enum http_status)status);
}
