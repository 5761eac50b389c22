// SPDX-License-Identifier: Apache-2.0
// The pure parts of the command: what people type, what clients send, what keys do.

#include "api.h"
#include "http.h"
#include "json_text.h"
#include "offer.h"
#include "progress.h"
#include "snapshot_json.h"
#include "terminal.h"
#include "text.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Test(cli_text, sizes_take_binary_units_and_plain_mebibytes)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t bytes;
    } cases[] = {
        {"512", 0, 512ull << 20},
        {"512M", 0, 512ull << 20},
        {"8g", 0, 8ull << 30},
        {"16384K", 0, 16ull << 20},
        {"1T", 0, 1ull << 40},
        {"0", 0, 0},
        {"", -EINVAL, 0},
        {"M", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"1MB", -EINVAL, 0},
        {"1X", -EINVAL, 0},
        {"18446744073709551615", -ERANGE, 0},
        {"18446744073709551616K", -ERANGE, 0},
        {"16777216T", -ERANGE, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t bytes = 0;

        cr_assert_eq(text_parse_size(cases[i].text, &bytes), cases[i].rc, "%s", cases[i].text);
        cr_assert_eq(bytes, cases[i].bytes, "%s", cases[i].text);
    }
}

Test(cli_text, names_are_safe_as_file_names)
{
    static const char *const good[] = {"a", "A.b_c-9", "0", "x.."};
    static const char *const bad[] = {"", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "\xc3\xa4"};
    char longest[NAME_BYTES + 1], name[NAME_BYTES];

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_assert(text_is_name(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert_eq(text_is_name(bad[i]), false, "%s", bad[i]);
        text_to_name(bad[i], name);
        cr_assert(text_is_name(name), "%s became %s", bad[i], name);
    }
    memset(longest, 'a', sizeof(longest));
    longest[NAME_BYTES] = '\0';
    cr_assert_eq(false, text_is_name(longest));
    longest[NAME_BYTES - 1] = '\0';
    cr_assert(text_is_name(longest));
}

Test(cli_text, values_read_well)
{
    char text[TEXT_BYTES];

    text_format_size(512ull << 20, text);
    cr_assert_str_eq(text, "512M");
    text_format_size(3ull << 29, text);
    cr_assert_str_eq(text, "1.5G");
    text_format_duration(59, text);
    cr_assert_str_eq(text, "59s");
    text_format_duration(3 * 3600 + 120, text);
    cr_assert_str_eq(text, "3h02m");
    text_format_duration(UINT64_MAX, text);
}

Test(cli_text, query_values_are_found_by_whole_keys)
{
    size_t count;
    const char *value = text_query_value("xtail=1&tail=23&follow=1", "tail", &count);

    cr_assert_not_null(value);
    cr_assert_eq(count, 2);
    cr_assert_eq(memcmp(value, "23", 2), 0);
    cr_assert_null(text_query_value("tail", "tail", &count));
    cr_assert_null(text_query_value("", "tail", &count));
}

Test(cli_text, lines_break_at_blanks)
{
    size_t skip;

    cr_assert_eq(text_wrap("one two three", 8, &skip), 7);
    cr_assert_eq(skip, 8);
    cr_assert_eq(text_wrap("abcdefghij", 4, &skip), 4);
    cr_assert_eq(skip, 4);
}

static const char request_text[] = "PUT /v1/vm/state?x=1 HTTP/1.1\r\nHost: thaw\r\n"
                                   "Content-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n";

Test(cli_http, a_request_is_complete_with_its_last_byte_and_not_before)
{
    size_t whole = strlen(request_text) - strlen("GET / HTTP/1.1\r\n\r\n");
    struct http_progress progress;
    struct http_request request;

    for (size_t count = 0; count < whole; count++)
        cr_assert_eq(
            http_parse_request(request_text, count, &request, &progress), -EAGAIN, "%zu", count);
    for (size_t count = whole; count < sizeof(request_text); count++) {
        cr_assert_eq(http_parse_request(request_text, count, &request, &progress), 0, "%zu", count);
        cr_assert_eq(progress.used, whole);
    }
    cr_assert_str_eq(request.method, "PUT");
    cr_assert_str_eq(request.path, "/v1/vm/state");
    cr_assert_str_eq(request.query, "x=1");
    cr_assert_eq(request.body_count, 4);
    cr_assert_eq(memcmp(request.body, "body", 4), 0);
    cr_assert(request.keep_alive);
}

static int parse(const char *text)
{
    struct http_progress progress;
    struct http_request request;

    return http_parse_request(text, strlen(text), &request, &progress);
}

Test(cli_http, what_breaks_a_limit_or_the_syntax_is_refused)
{
    static char large[HTTP_HEADER_MAX_BYTES + 1024];

    cr_assert_eq(parse("\x01\x02"), 400);
    cr_assert_eq(parse("FROB / HTTP/1.1\r\n"), 400);
    cr_assert_eq(parse("GET / HTTP/2.0\r\n\r\n"), 505);
    cr_assert_eq(parse("GET nowhere HTTP/1.1\r\n\r\n"), 400);
    cr_assert_eq(parse("CONNECT a:1 HTTP/1.1\r\n\r\n"), 400);
    cr_assert_eq(parse("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), 400);
    cr_assert_eq(parse("PUT / HTTP/1.1\r\nContent-Length: 98305\r\n\r\n"), 413);
    cr_assert_eq(parse("PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n"), 400);
    cr_assert_eq(parse("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 411);
    cr_assert_eq(parse("PUT / HTTP/1.1\r\nExpect: magic\r\n\r\n"), 417);
    memset(large, 'x', HTTP_TARGET_MAX_BYTES + 6);
    memcpy(large, "GET /", 5);
    cr_assert_eq(parse(large), 414);
    memset(large, 'x', sizeof(large) - 1);
    memcpy(large, "GET / HTTP/1.1\r\nA: ", 19);
    cr_assert_eq(parse(large), 431);
}

Test(cli_http, an_expectation_may_arrive_in_pieces)
{
    static const char text[] = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\n"
                               "Content-Length: 1\r\n\r\n";
    struct http_progress progress;
    struct http_request request;

    for (size_t count = 0; count < sizeof(text); count++) {
        cr_assert_eq(http_parse_request(text, count, &request, &progress), -EAGAIN, "%zu", count);
        cr_assert_eq(progress.expect_continue, count == strlen(text));
    }
}

static size_t filter(
    struct terminal_escape *escape, const char *typed, char *out, char *ret_command)
{
    size_t count = terminal_filter(escape, "xd", typed, strlen(typed), out, ret_command);

    out[count] = '\0';
    return count;
}

Test(cli_terminal, the_escape_key_works_across_reads)
{
    struct terminal_escape escape = {0};
    char out[32], command;

    filter(&escape, "ab\x01", out, &command);
    cr_assert_str_eq(out, "ab");
    cr_assert_eq(command, 0);
    filter(&escape, "xlost", out, &command);
    cr_assert_str_eq(out, "");
    cr_assert_eq(command, 'x');
}

Test(cli_terminal, all_other_keys_are_the_guests)
{
    struct terminal_escape escape = {0};
    char out[32], command;

    filter(&escape, "\x01\x01q\x01q\x03\x01\x03", out, &command);
    cr_assert_str_eq(out, "\x01q\x01q\x03\x03");
    cr_assert_eq(command, 0);
    escape.interrupts = true;
    filter(&escape, "a\x01\x03\x03z", out, &command);
    cr_assert_str_eq(out, "a\x03");
    cr_assert_eq(command, TERMINAL_INTERRUPT);
}

Test(cli_text, times_are_rfc_3339)
{
    char text[TIME_BYTES];

    text_format_time(&(struct timespec){.tv_sec = 0, .tv_nsec = 999999}, text);
    cr_assert_str_eq(text, "1970-01-01T00:00:00.000Z");
    text_format_time(&(struct timespec){.tv_sec = 1234567890, .tv_nsec = 123456789}, text);
    cr_assert_str_eq(text, "2009-02-13T23:31:30.123Z");
}

Test(cli_progress, bars_are_as_long_as_what_is_done)
{
    char line[256];

    progress_format("a", "memory", 1 << 20, 4 << 20, 200, line, sizeof(line));
    cr_assert_str_eq(line, "a  [######------------------]  25%  1M of 4M  memory");
    progress_format("a", "memory", 9, 4, 200, line, sizeof(line));
    cr_assert_str_eq(line, "a  [########################] 100%  9B of 4B  memory");
    progress_format("a", "starting", 5, 0, 200, line, sizeof(line));
    cr_assert_str_eq(line, "a  5B  starting");
    progress_format("a", "memory", 1, 2, 10, line, sizeof(line));
    cr_assert_str_eq(line, "a  [######");
}

Test(cli_snapshot, what_is_not_known_is_null)
{
    struct thaw_snapshot_info info = {
        .state = THAW_SNAPSHOT_DAMAGED,
        .id = "0123456789abcdef0123456789abcdef",
        .name = "a\xff",
        .source = "",
        .template_name = "",
        .parent = "",
        .producer = "",
        .error = "bad",
    };
    json_t *json = snapshot_json_new(&info);

    cr_assert_str_eq(json_string_value(json_object_get(json, "state")), "damaged");
    cr_assert_str_eq(json_string_value(json_object_get(json, "name")), "a?");
    cr_assert_str_eq(json_string_value(json_object_get(json, "error")), "bad");
    cr_assert(json_is_null(json_object_get(json, "parent")));
    cr_assert(json_is_null(json_object_get(json, "created")));
    json_decref(json);
}

#define OFFERED "0123456789abcdef0123456789abcdef"

/* A runtime directory in which others may make files, with what should be ours. */
static struct runtime_slot shared_runtime(char path[32])
{
    static char socket_path[64];
    struct runtime_slot slot = {.name = "victim", .dir_fd = -1, .lock_fd = -1};

    strcpy(path, "/tmp/thaw-test-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
    snprintf(socket_path, sizeof(socket_path), "%s/victim/api.sock", path);
    slot.socket_path = socket_path;
    slot.root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(slot.root_fd, 0);
    cr_assert_eq(mkdirat(slot.root_fd, "home", 0700), 0);
    cr_assert_eq(mkdirat(slot.root_fd, "home/" OFFERED, 0700), 0);
    return slot;
}

static void remove_runtime(const struct runtime_slot *slot, const char *path)
{
    char command[64];

    close(slot->root_fd);
    snprintf(command, sizeof(command), "rm -rf %s", path);
    cr_assert_eq(system(command), 0);
}

Test(cli_offer, does_not_follow_others_links)
{
    char path[32];
    struct runtime_slot slot = shared_runtime(path);
    const char *victim = "home/" OFFERED "/victim";

    cr_assert_eq(symlinkat("home", slot.root_fd, ".images"), 0);
    offer_make(&slot, OFFERED);
    cr_assert_eq(faccessat(slot.root_fd, victim, F_OK, 0), -1, "nothing is made elsewhere");

    close(openat(slot.root_fd, victim, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    close(openat(slot.root_fd, "home/" OFFERED "/gone", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    offer_withdraw(&slot, OFFERED);
    cr_assert_eq(faccessat(slot.root_fd, victim, F_OK, 0), 0, "nor removed");
    cr_assert_eq(offer_take(&slot, OFFERED), -1);
    cr_assert_eq(faccessat(slot.root_fd, "home/" OFFERED "/gone", F_OK, 0), 0);
    remove_runtime(&slot, path);
}

Test(cli_offer, uses_no_directory_that_others_can_change)
{
    char path[32];
    struct runtime_slot slot = shared_runtime(path);

    cr_assert_eq(mkdirat(slot.root_fd, ".images", 0700), 0);
    cr_assert_eq(fchmodat(slot.root_fd, ".images", 0777, 0), 0);
    offer_make(&slot, OFFERED);
    cr_assert_eq(faccessat(slot.root_fd, ".images/" OFFERED, F_OK, 0), -1);

    cr_assert_eq(fchmodat(slot.root_fd, ".images", 0700, 0), 0);
    offer_make(&slot, OFFERED);
    cr_assert_eq(faccessat(slot.root_fd, ".images/" OFFERED "/victim", F_OK, 0), 0);
    offer_withdraw(&slot, OFFERED);
    cr_assert_eq(faccessat(slot.root_fd, ".images", F_OK, 0), -1, "the last one clears up");
    remove_runtime(&slot, path);
}

/* --- Memory that runs out --------------------------------------------------------------------- */

static unsigned allocations, failing; /* the one that fails; 0: none */

static void *count_and_allocate(size_t bytes)
{
    return ++allocations == failing ? NULL : malloc(bytes);
}

static int status_of(const char *method, const char *path, const char *body)
{
    struct http_request request = {
        .method = method, .query = "", .body = body, .body_count = strlen(body)};
    struct server_response response = {0};
    strcpy(request.path, path);
    api_handle(NULL, &request, &response);
    free(response.body);
    return response.status;
}

/* Each request is refused before the VM is asked for: with 400 only if it is bad indeed. */
Test(cli_api, a_lack_of_memory_is_no_bad_request)
{
    static const struct {
        const char *method, *path, *body;
    } bad[] = {
        {"PUT", "/v1/vm/state", "{\"state\":\"frozen\"}"},
        {"POST", "/v1/vm/reset", "{\"clock\":\"never\"}"},
        {"POST", "/v1/snapshots", "{\"name\":\"x\",\"metadata\":{\"a\":[1,2]},\"mode\":\"half\"}"},
    };
    json_set_alloc_funcs(count_and_allocate, free);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        unsigned lacked = 0;
        failing = allocations = 0;
        cr_assert_eq(status_of(bad[i].method, bad[i].path, bad[i].body), 400);
        unsigned all = allocations;
        for (failing = 1; failing <= all; failing++) {
            allocations = 0;
            int status = status_of(bad[i].method, bad[i].path, bad[i].body);
            cr_assert(status == 500 || status == 400, "%s: %d", bad[i].path, status);
            lacked += status == 500;
        }
        cr_assert_gt(lacked, 3, "%s: %u", bad[i].path, lacked);
    }
    json_set_alloc_funcs(malloc, free);
}

Test(cli_json, text_is_whole_or_not_there)
{
    static const char text[] = "{\"a\":{\"b\":[1,2,3],\"c\":\"d\"},\"e\":null}";
    size_t count = 0;
    json_t *json = NULL;
    json_set_alloc_funcs(count_and_allocate, free);
    for (failing = 1;; failing++) {
        allocations = 0;
        int rc = json_text_parse(text, strlen(text), &json);
        if (rc == 0)
            break;
        cr_assert_eq(rc, -ENOMEM, "allocation %u", failing);
        cr_assert_null(json);
    }
    cr_assert_gt(failing, 20);
    for (failing = 1;; failing++) {
        allocations = 0;
        char *again = json_text_make(json, &count);
        if (again) {
            cr_assert_str_eq(again, text);
            cr_assert_eq(count, strlen(text));
        }
        free(again);
        if (allocations < failing)
            break;
    }
    failing = 0;
    json_decref(json);
    cr_assert_eq(json_text_parse("{\"a\":1,\"a\":2}", 13, &json), -EINVAL);
    cr_assert_eq(json_text_parse("", 0, &json), -EINVAL);
    cr_assert_null(json_text_make(NULL, &count));
    json_set_alloc_funcs(malloc, free);
}
