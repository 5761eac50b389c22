/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw ps`: ask every VM at once, and show those that answer as well as those that do not.
 * Not here: what the runtime directory holds (runtime.c). */
#include "client.h"
#include "commands.h"
#include "control.h"
#include "table.h"
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

/* What stands under DETAIL: why the VM is in its state, if there is more to say than the state. */
static const char *detail_of(const json_t *vm)
{
    const char *reason = vm_json_get(vm, "reason"), *detail = vm_json_get(vm, "detail");

    if (*detail)
        return detail;
    return strcmp(reason, "none") == 0 || strcmp(reason, "request") == 0 ? "" : reason;
}

static int add_row(struct table *table, const json_t *vm)
{
    char pid[TEXT_BYTES], cpus[TEXT_BYTES], mem[TEXT_BYTES], uptime[TEXT_BYTES];
    const char *cells[] = {vm_json_get(vm, "name"), pid, vm_json_get(vm, "state"), cpus, mem,
        uptime, vm_json_get(vm, "template"), vm_json_get(vm, "snapshot"), detail_of(vm)};

    snprintf(pid, sizeof(pid), "%u", (unsigned)vm_json_number(vm, "pid"));
    snprintf(cpus, sizeof(cpus), "%u", (unsigned)vm_json_number(vm, "cpus"));
    text_format_size(vm_json_number(vm, "mem_bytes"), mem);
    text_format_duration(vm_json_number(vm, "uptime_ms") / 1000, uptime);
    return table_add(table, cells);
}

static int print_table(const json_t *items)
{
    static const char *const head[] = {
        "NAME", "PID", "STATE", "CPUS", "MEM", "UPTIME", "TEMPLATE", "SNAPSHOT", "DETAIL"};
    struct table *table = table_new(head, ARRAY_SIZE(head));
    int rc = table ? 0 : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < json_array_size(items); i++)
        rc = add_row(table, json_array_get(items, i));
    if (rc == 0)
        table_print(table);
    table_free(table);
    return rc < 0 ? cli_error("out of memory") : CLI_OK;
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
    .notes = "SNAPSHOT is what a restored VM came from.\n"
             "A VM that ended by itself stays in the list until its name is used again or\n"
             "'thaw stop' removes it.",
    .run = run_ps,
};
