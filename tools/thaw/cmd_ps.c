/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw ps`: ask every VM at once, and show those that answer as well as those that do not.
 * Not here: what the runtime directory holds (runtime.c). */
#include "client.h"
#include "commands.h"
#include "control.h"
#include "vm_json.h"
#include <errno.h>
#include <string.h>

#define ASK_MS 1000 /* for all VMs together */

/* Asks the VM; returns the connection on which the answer will come, or a negative code. */
static int ask(const struct runtime_entry *entry, int64_t deadline)
{
    _cleanup_close_ int fd = -1;

    if (!entry->alive)
        return -ESRCH;
    fd = client_connect(entry->dir_path, deadline, NULL);
    if (fd < 0)
        return fd;
    if (client_send(fd, "GET", "/v1/vm", "", 0, deadline, NULL) < 0)
        return -EIO;
    return take_fd(&fd);
}

/* The VM as its process tells it, else as its record does. NULL: it is gone. */
static json_t *listen_to(struct runtime_entry *entry, int fd, int64_t deadline)
{
    json_t *vm = NULL;
    int rc = fd < 0 ? fd : client_receive(fd, deadline, &vm, NULL);

    if (rc == 0)
        return vm;
    if (entry->alive && !runtime_is_alive(entry)) { /* it ended meanwhile */
        char name[NAME_BYTES];

        memcpy(name, entry->name, sizeof(name));
        runtime_entry_fini(entry);
        if (runtime_find(name, entry, NULL) < 0)
            return NULL;
    }
    vm = json_incref(control_last_words(entry));
    if (entry->alive && rc == -ETIMEDOUT)
        json_object_set_new(vm, "detail", json_string("does not answer"));
    return vm;
}

static int collect(json_t *items, struct thaw_error *error)
{
    struct runtime_entry *entries;
    size_t count;
    int64_t deadline;
    int *fds, rc = runtime_list(&entries, &count, error);

    if (rc < 0)
        return rc;
    fds = calloc(count + 1, sizeof(*fds));
    deadline = now_ms() + ASK_MS;
    for (size_t i = 0; fds && i < count; i++)
        fds[i] = ask(entries + i, deadline);
    for (size_t i = 0; fds && i < count; i++) {
        json_t *vm = listen_to(entries + i, fds[i], deadline);

        if (vm)
            json_array_append_new(items, vm);
        cleanup_close(fds + i);
    }
    free(fds);
    runtime_list_free(entries, count);
    return 0;
}

enum {
    COLUMNS = 8
};

struct row {
    char cells[COLUMNS - 1][NAME_BYTES];
    const char *detail;
};

/* What stands under DETAIL: why the VM is in its state, if there is more to say than the state. */
static const char *detail_of(const json_t *vm)
{
    const char *reason = vm_json_get(vm, "reason"), *detail = vm_json_get(vm, "detail");

    if (*detail)
        return detail;
    return strcmp(reason, "none") == 0 || strcmp(reason, "request") == 0 ? "" : reason;
}

static void fill_row(struct row *row, const json_t *vm)
{
    char text[TEXT_BYTES];

    snprintf(row->cells[0], NAME_BYTES, "%s", vm_json_get(vm, "name"));
    snprintf(row->cells[1], NAME_BYTES, "%u", (unsigned)vm_json_number(vm, "pid"));
    snprintf(row->cells[2], NAME_BYTES, "%s", vm_json_get(vm, "state"));
    snprintf(row->cells[3], NAME_BYTES, "%u", (unsigned)vm_json_number(vm, "cpus"));
    text_format_size(vm_json_number(vm, "mem_bytes"), text);
    snprintf(row->cells[4], NAME_BYTES, "%s", text);
    text_format_duration(vm_json_number(vm, "uptime_ms") / 1000, text);
    snprintf(row->cells[5], NAME_BYTES, "%s", text);
    snprintf(row->cells[6], NAME_BYTES, "%s", vm_json_get(vm, "template"));
    row->detail = detail_of(vm);
}

static void print_row(const struct row *row, const size_t *widths)
{
    for (size_t i = 0; i < COLUMNS - 1; i++) {
        bool last = i == COLUMNS - 2 && !*row->detail;

        printf("%-*s%s", last ? 0 : (int)widths[i], row->cells[i], last ? "" : "  ");
    }
    printf("%s\n", row->detail);
}

static int print_table(const json_t *items)
{
    static const struct row head = {
        {"NAME", "PID", "STATE", "CPUS", "MEM", "UPTIME", "TEMPLATE"}, "DETAIL"};
    size_t widths[COLUMNS - 1] = {0}, count = json_array_size(items);
    struct row *rows = calloc(count + 1, sizeof(*rows));

    if (!rows)
        return cli_error("out of memory");
    rows[0] = head;
    for (size_t i = 0; i < count; i++)
        fill_row(rows + i + 1, json_array_get(items, i));
    for (size_t i = 0; i <= count; i++) {
        for (size_t k = 0; k < COLUMNS - 1; k++)
            widths[k] = MAX(widths[k], strlen(rows[i].cells[k]));
    }
    for (size_t i = 0; i <= count; i++)
        print_row(rows + i, widths);
    free(rows);
    return CLI_OK;
}

static int run_ps(struct cli *cli)
{
    _cleanup_json_ json_t *items = json_array();
    struct thaw_error error = {0};

    if (cli_no_operand(cli) == CLI_STOP)
        return cli->status;
    if (collect(items, &error) < 0)
        return cli_report(&error);
    if (!cli->json)
        return print_table(items);
    cli_print_json(
        json_pack("{s:O, s:I}", "items", items, "total", (json_int_t)json_array_size(items)));
    return CLI_OK;
}

const struct cli_command cmd_ps = {
    .name = "ps",
    .operands = "",
    .summary = "List VMs, also those that ended by themselves",
    .notes = "A VM that ended by itself stays in the list until its name is used again or\n"
             "'thaw stop' removes it.",
    .run = run_ps,
};
