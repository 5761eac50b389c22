/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw run`: options and the paths that they name.
 * Not here: the VM's process (process.c) and its life (owner.c). */
#include "commands.h"
#include "fail.h"
#include "guests.h"
#include "process.h"
#include "storage.h"
#include "text.h"
#include <errno.h>
#include <string.h>

enum {
    OPTION_NAME = 1,
    OPTION_GUEST,
    OPTION_KERNEL,
    OPTION_INITRD,
    OPTION_CMDLINE,
    OPTION_CPUS,
    OPTION_MEM,
    OPTION_DISK,
    OPTION_TEMPLATE,
    OPTION_DETACH,
};

static const struct cli_option options[] = {
    {OPTION_NAME, "name", "NAME", "what the VM is called; required"},
    {OPTION_GUEST, "guest", "GUEST", "run one of the small guests that come with thaw, or"},
    {OPTION_KERNEL, "kernel", "FILE", "boot this kernel (bzImage or ELF64)"},
    {OPTION_INITRD, "initrd", "FILE", "initial ramdisk"},
    {OPTION_CMDLINE, "cmdline", "TEXT", "kernel command line; Linux needs console=ttyS0 to print"},
    {OPTION_CPUS, "cpus", "N", "number of vCPUs, 1 to 16 (default: 1)"},
    {OPTION_MEM, "mem", "SIZE", "memory in MiB, or with K, M, G or T (default: 128M)"},
    {OPTION_DISK, "disk", "BASE[:ro]", "raw disk image, never written; may be repeated"},
    {OPTION_TEMPLATE, "template", "NAME", "template name (default: the guest's or kernel's)"},
    {OPTION_DETACH, "detach", NULL, "return when the VM runs, and leave it in the background"},
    {0},
};

struct run {
    struct vm_config config;
    char template_name[NAME_BYTES];
    bool detach;
    char *owned[4 + THAW_DISKS_MAX]; /* strings of config */
    size_t owned_count;
};

static int set_mem(struct cli *cli, struct run *run)
{
    int rc = text_parse_size(cli->value, &run->config.mem_bytes);

    /* A plain number counts MiB, so a number of bytes comes out far too large. */
    if (rc == -EINVAL)
        return cli_usage(cli, "'%s' is no memory size like 512, 512M or 8G", cli->value);
    if (rc == -ERANGE || run->config.mem_bytes > THAW_MEM_MAX_BYTES)
        return cli_usage(cli, "memory of '%s' is too much: the most is 1T", cli->value);
    if (run->config.mem_bytes < THAW_MEM_MIN_BYTES)
        return cli_usage(cli, "memory of '%s' is too little: the least is 16M", cli->value);
    if (run->config.mem_bytes % (1u << 20))
        return cli_usage(cli, "memory of '%s' is not a whole number of MiB", cli->value);
    return 0;
}

/* BASE, BASE:ro or BASE:rw; only the last three bytes are looked at, so that paths may hold commas
 * and colons. */
static int add_disk(struct cli *cli, struct run *run)
{
    size_t count = strlen(cli->value);
    struct vm_disk *disk = run->config.disks + run->config.disk_count;
    char *path = strdup(cli->value);

    if (!path || run->config.disk_count == THAW_DISKS_MAX) {
        free(path);
        return cli_usage(cli, "too many disks: the most is %d", THAW_DISKS_MAX);
    }
    if (count >= 3 &&
        (strcmp(path + count - 3, ":ro") == 0 || strcmp(path + count - 3, ":rw") == 0)) {
        disk->read_only = path[count - 1] == 'o';
        path[count - 3] = '\0';
    }
    run->owned[run->owned_count++] = path;
    if (!*path)
        return cli_usage(cli, "option '--disk' needs a path");
    disk->path = path;
    run->config.disk_count++;
    return 0;
}

static int set_cpus(struct cli *cli, struct run *run)
{
    uint64_t cpus;

    if (text_parse_number(cli->value, 1, THAW_VCPUS_MAX, &cpus) < 0)
        return cli_usage(
            cli, "'%s' is no number of vCPUs from 1 to %d", cli->value, THAW_VCPUS_MAX);
    run->config.cpus = (uint32_t)cpus;
    return 0;
}

static int take_option(struct cli *cli, struct run *run, int option)
{
    struct vm_config *config = &run->config;

    switch (option) {
    case OPTION_NAME:
        return cli_take_name(cli, "VM name", &config->name);
    case OPTION_GUEST:
        config->guest = cli->value;
        return 0;
    case OPTION_KERNEL:
        config->kernel = cli->value;
        return 0;
    case OPTION_INITRD:
        config->initrd = cli->value;
        return 0;
    case OPTION_CMDLINE:
        config->cmdline = cli->value;
        return 0;
    case OPTION_CPUS:
        return set_cpus(cli, run);
    case OPTION_MEM:
        return set_mem(cli, run);
    case OPTION_DISK:
        return add_disk(cli, run);
    case OPTION_TEMPLATE:
        return cli_take_name(cli, "template name", &config->template_name);
    case OPTION_DETACH:
        run->detach = true;
        return 0;
    default:
        return cli_usage(cli, "unexpected argument '%s'", cli->value);
    }
}

static int parse(struct cli *cli, struct run *run)
{
    int option;

    while ((option = cli_next(cli)) != CLI_END) {
        if (option == CLI_STOP || take_option(cli, run, option) == CLI_STOP)
            return CLI_STOP;
    }
    if (!run->config.name)
        return cli_usage(cli, "option '--name' is missing");
    if (!run->config.guest == !run->config.kernel)
        return cli_usage(cli, "give either --guest or --kernel");
    return 0;
}

/* Makes a path independent of the working directory; one that leads nowhere is kept for the error
 * message of whoever opens it. */
static void make_absolute(struct run *run, const char **path)
{
    char *absolute = *path ? realpath(*path, NULL) : NULL;

    if (absolute) {
        run->owned[run->owned_count++] = absolute;
        *path = absolute;
    }
}

static int resolve(const struct cli *cli, struct run *run, struct thaw_error *error)
{
    struct vm_config *config = &run->config;
    char *store;
    int rc = storage_path(cli->store, &store, error);

    if (rc < 0)
        return rc;
    run->owned[run->owned_count++] = store;
    config->store = store;
    if (config->guest) {
        char *path;

        rc = guests_find(config->guest, &path, error);
        if (rc < 0)
            return rc;
        run->owned[run->owned_count++] = path;
        config->kernel = path;
    } else {
        make_absolute(run, &config->kernel);
    }
    make_absolute(run, &config->initrd);
    for (size_t i = 0; i < config->disk_count; i++) {
        char *absolute = realpath(config->disks[i].path, NULL);

        if (absolute) {
            free(run->owned[i]);
            run->owned[i] = absolute;
            config->disks[i].path = absolute;
        }
    }
    if (!config->template_name) {
        const char *slash = strrchr(config->kernel, '/');

        text_to_name(config->guest ? config->guest
                     : slash       ? slash + 1
                                   : config->kernel,
            run->template_name);
        config->template_name = run->template_name;
    }
    return 0;
}

static int run_run(struct cli *cli)
{
    struct run run = {.config = {.cpus = 1, .mem_bytes = 128u << 20, .cmdline = ""}};
    struct thaw_error error = {0};
    int status;

    if (parse(cli, &run) == CLI_STOP)
        status = cli->status;
    else if ((cli->store && cli_check_store(cli->store, &error) < 0) ||
             resolve(cli, &run, &error) < 0)
        status = cli_report(&error);
    else
        status = process_run(cli, &run.config, run.detach);
    for (size_t i = 0; i < run.owned_count; i++)
        free(run.owned[i]);
    return status;
}

const struct cli_command cmd_run = {
    .name = "run",
    .operands = "--name NAME (--guest GUEST | --kernel FILE) [OPTION]...",
    .summary = "Run a new VM",
    .notes =
        "In the foreground the guest's serial console is on stdout, and stdin is its input. On a\n"
        "terminal Ctrl-C or Ctrl-A x stops the VM; Ctrl-A Ctrl-C sends the guest a Ctrl-C.\n"
        "The exit status is 0 if the guest powered off, reset or exited with 0, or if the VM was\n"
        "stopped on request; 1 otherwise. With --json, stdout carries the VM instead of its\n"
        "console: when it runs (--detach), or when it has ended.\n"
        "The template name is what later snapshots are named after.",
    .options = options,
    .run = run_run,
};
