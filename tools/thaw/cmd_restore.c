/* SPDX-License-Identifier: Apache-2.0 */
/* Role: `thaw restore`: options and the paths that they name.
 * Not here: the VM's process (process.c) and restoring (owner.c). */
#include "commands.h"
#include "fail.h"
#include "process.h"
#include "recording.h"
#include "storage.h"
#include "text.h"
#include <errno.h>
#include <string.h>

enum {
    OPTION_NAME = 1,
    OPTION_MODE,
    OPTION_CLOCK,
    OPTION_DISK,
    OPTION_FORCE,
    OPTION_PAUSED,
    OPTION_DETACH,
    OPTION_RECORD,
    OPTION_RECORD_UNTIL,
};

static const struct cli_option options[] = {
    {OPTION_NAME, "name", "NAME", "what the VM is called (default: after the snapshot)"},
    {OPTION_MODE, "mode", "MODE", "read memory when it is needed (lazy, default) or first (eager)"},
    {OPTION_CLOCK, "clock", "CLOCK", "the guest's clocks continue (default), or follow the host"},
    {OPTION_DISK, "disk", "K=PATH",
        "the base image of disk K (from 0) is at PATH; may be repeated"},
    {OPTION_FORCE, "force", NULL, "also where this host lacks what the guest has seen"},
    {OPTION_PAUSED, "paused", NULL, "leave the VM paused"},
    {OPTION_DETACH, "detach", NULL, "return when the VM runs, and leave it in the background"},
    {OPTION_RECORD, "record-working-set", NULL,
        "record what memory the guest touches, for later restores to read first"},
    {OPTION_RECORD_UNTIL, "record-until", "TEXT|SECONDS",
        "until the guest prints TEXT, or for SECONDS (default: 10)"},
    {0},
};

struct wanted {
    struct vm_config config;
    struct vm_restore restore;
    char *store, *paths[THAW_DISKS_MAX]; /* owned */
    bool detach;
};

static int set_mode(struct cli *cli, struct wanted *wanted)
{
    if (strcmp(cli->value, "lazy") == 0)
        wanted->restore.mode = THAW_RESTORE_LAZY;
    else if (strcmp(cli->value, "eager") == 0)
        wanted->restore.mode = THAW_RESTORE_EAGER;
    else
        return cli_usage(cli, "'%s' is no mode: there are eager and lazy", cli->value);
    return 0;
}

static int set_clock(struct cli *cli, struct wanted *wanted)
{
    if (text_parse_clock(cli->value, &wanted->restore.clock) < 0)
        return cli_usage(cli, "'%s' is no clock policy: there are continue and host", cli->value);
    return 0;
}

static int add_disk(struct cli *cli, struct wanted *wanted)
{
    struct vm_restore *restore = &wanted->restore;
    const char *path = strchr(cli->value, '=');
    char index_text[4] = "";
    uint64_t index;

    if (path && path - cli->value < (ptrdiff_t)sizeof(index_text))
        memcpy(index_text, cli->value, (size_t)(path - cli->value));
    if (text_parse_number(index_text, 0, THAW_DISKS_MAX - 1, &index) < 0 || !path[1])
        return cli_usage(cli, "'%s' is not of the form K=PATH, with K from 0 to %d", cli->value,
            THAW_DISKS_MAX - 1);
    for (size_t i = 0; i < restore->disk_count; i++) {
        if (restore->disks[i].index == index)
            return cli_usage(cli, "disk %u is given twice", (unsigned)index);
    }
    restore->disks[restore->disk_count++] =
        (struct vm_disk_override){.index = (uint32_t)index, .path = path + 1};
    return 0;
}

/* Digits are seconds; anything else is a text. */
static int set_record_until(struct cli *cli, struct wanted *wanted)
{
    uint64_t seconds;
    int rc = text_parse_number(cli->value, 1, RECORDING_TIME_MAX, &seconds);
    size_t count = strlen(cli->value);

    if (rc == 0) {
        wanted->restore.record_seconds = (unsigned)seconds;
        wanted->restore.record_until = NULL;
        return 0;
    }
    if (rc == -ERANGE || count == 0 || count > RECORDING_TEXT_MAX)
        return cli_usage(cli, "'%s' is neither from 1 to %d seconds nor a text of up to %d bytes",
            cli->value, RECORDING_TIME_MAX, RECORDING_TEXT_MAX);
    wanted->restore.record_until = cli->value;
    return 0;
}

static int take_option(struct cli *cli, struct wanted *wanted, int option)
{
    switch (option) {
    case OPTION_NAME:
        return cli_take_name(cli, "VM name", &wanted->config.name);
    case OPTION_MODE:
        return set_mode(cli, wanted);
    case OPTION_CLOCK:
        return set_clock(cli, wanted);
    case OPTION_DISK:
        return add_disk(cli, wanted);
    case OPTION_FORCE:
        wanted->restore.flags |= THAW_RESTORE_FORCE;
        return 0;
    case OPTION_PAUSED:
        wanted->restore.paused = true;
        return 0;
    case OPTION_DETACH:
        wanted->detach = true;
        return 0;
    case OPTION_RECORD:
        wanted->restore.flags |= THAW_RESTORE_RECORD;
        return 0;
    case OPTION_RECORD_UNTIL:
        return set_record_until(cli, wanted);
    default:
        if (wanted->restore.ref)
            return cli_usage(cli, "unexpected argument '%s'", cli->value);
        wanted->restore.ref = cli->value;
        return 0;
    }
}

static int check_recording(struct cli *cli, const struct wanted *wanted)
{
    const struct vm_restore *restore = &wanted->restore;

    if (!(restore->flags & THAW_RESTORE_RECORD))
        return restore->record_until || restore->record_seconds
                   ? cli_usage(cli, "--record-until needs --record-working-set")
                   : 0;
    return restore->mode == THAW_RESTORE_EAGER
               ? cli_usage(cli, "--record-working-set needs memory that is read lazily")
               : 0;
}

static int parse(struct cli *cli, struct wanted *wanted)
{
    int option;

    while ((option = cli_next(cli)) != CLI_END) {
        if (option == CLI_STOP || take_option(cli, wanted, option) == CLI_STOP)
            return CLI_STOP;
    }
    if (check_recording(cli, wanted) == CLI_STOP)
        return CLI_STOP;
    if (!wanted->restore.record_seconds)
        wanted->restore.record_seconds = RECORDING_SECONDS;
    return wanted->restore.ref ? 0 : cli_usage(cli, "the snapshot is missing");
}

/* Makes paths independent of the working directory; one that leads nowhere is kept for the error
 * message of whoever opens it. */
static int resolve(const struct cli *cli, struct wanted *wanted, struct thaw_error *error)
{
    int rc = storage_path(cli->store, &wanted->store, error);

    if (rc < 0)
        return rc;
    wanted->config.store = wanted->store;
    wanted->config.restore = &wanted->restore;
    for (size_t i = 0; i < wanted->restore.disk_count; i++) {
        wanted->paths[i] = realpath(wanted->restore.disks[i].path, NULL);
        if (wanted->paths[i])
            wanted->restore.disks[i].path = wanted->paths[i];
    }
    return 0;
}

static int run_restore(struct cli *cli)
{
    struct wanted wanted = {0};
    struct thaw_error error = {0};
    int status;

    if (parse(cli, &wanted) == CLI_STOP)
        return cli->status;
    if (resolve(cli, &wanted, &error) < 0)
        status = cli_report(&error);
    else
        status = process_run(cli, &wanted.config, wanted.detach);
    free(wanted.store);
    for (size_t i = 0; i < wanted.restore.disk_count; i++)
        free(wanted.paths[i]);
    return status;
}

const struct cli_command cmd_restore = {
    .name = "restore",
    .operands = "[OPTION]... SNAPSHOT",
    .summary = "Run a new VM from a snapshot",
    .notes =
        "The VM goes on where the snapshot was taken, in the foreground as with 'thaw run' or\n"
        "detached. Any number of VMs may be restored from one snapshot; those without a --name\n"
        "get the snapshot's, with a number where that is in use.\n"
        "A recorded working set belongs to the snapshot. Later lazy restores read it before the "
        "guest\n"
        "runs, instead of each page when it is touched; it is advice and changes nothing else.\n"
        "SNAPSHOT is a name, an id, or 6 or more characters that only one id begins with.",
    .options = options,
    .run = run_restore,
};
