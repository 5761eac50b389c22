/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw doctor`: what the host offers, for people and as JSON.
 * Not here: finding it out, which is the library's. */
#include "commands.h"
#include "terminal.h"
#include "text.h"
#include <string.h>
#include <thaw/host.h>

enum {
    COLUMNS = 4,
    GAP = 2
};

static const char *status_name(enum thaw_check_status status)
{
    static const char *const names[] = {"ok", "degraded", "missing"};

    return (size_t)status < ARRAY_SIZE(names) ? names[status] : "unknown";
}

/* Prints cells side by side, each wrapped within its column. */
static void print_cells(const char *cells[COLUMNS], const size_t widths[COLUMNS])
{
    bool more = true;

    while (more) {
        size_t pad = 0;

        more = false;
        for (size_t i = 0; i < COLUMNS; i++) {
            size_t skip, count = text_wrap(cells[i], widths[i], &skip);

            if (count > 0)
                printf("%*s%.*s", (int)pad, "", (int)count, cells[i]);
            pad = count > 0 ? widths[i] - count + GAP : pad + widths[i] + GAP;
            cells[i] += skip;
            more = more || *cells[i];
        }
        printf("\n");
    }
}

static void print_table(const thaw_host_report *report)
{
    size_t widths[COLUMNS] = {5, 8, 5, 0}, total = terminal_width(STDOUT_FILENO, 100), used;
    const char *head[COLUMNS] = {"CHECK", "STATUS", "FOUND", "EFFECT"};
    const struct thaw_host_check *check;

    for (size_t i = 0; (check = thaw_host_report_get(report, i)); i++) {
        widths[0] = MAX(widths[0], strlen(check->name));
        widths[2] = MAX(widths[2], MIN(strlen(check->found), 28));
    }
    used = widths[0] + widths[1] + widths[2] + 3 * GAP;
    widths[3] = total > used + 24 ? total - used : 24;
    print_cells(head, widths);
    for (size_t i = 0; (check = thaw_host_report_get(report, i)); i++) {
        const char *cells[COLUMNS] = {
            check->name, status_name(check->status), check->found, check->effect};

        print_cells(cells, widths);
    }
}

static void print_json(const thaw_host_report *report)
{
    json_t *items = json_array();
    const struct thaw_host_check *check;

    for (size_t i = 0; (check = thaw_host_report_get(report, i)); i++)
        json_array_append_new(
            items, json_pack("{s:s, s:s, s:s, s:s}", "name", check->name, "status",
                       status_name(check->status), "found", check->found, "effect", check->effect));
    cli_print_json(
        json_pack("{s:s, s:o, s:I}", "status", status_name(thaw_host_report_status(report)),
            "items", items, "total", (json_int_t)thaw_host_report_count(report)));
}

static int run_doctor(struct cli *cli)
{
    struct thaw_error error = {0};
    thaw_host_report *report;
    int status;

    if (cli_no_operand(cli) == CLI_STOP)
        return cli->status;
    if (thaw_host_probe(&report, &error) < 0)
        return cli_report(&error);
    if (cli->json)
        print_json(report);
    else
        print_table(report);
    status = CLI_OK;
    if (thaw_host_report_status(report) == THAW_CHECK_MISSING)
        status = cli_error("this host lacks something that is needed to run VMs");
    thaw_host_report_free(report);
    return status;
}

const struct cli_command cmd_doctor = {
    .name = "doctor",
    .operands = "",
    .summary = "Show what this host offers for running VMs",
    .notes =
        "'degraded' works, at a cost that is named; 'missing' is needed. The exit status is 1\n"
        "if something is missing.",
    .run = run_doctor,
};
