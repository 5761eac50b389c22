// SPDX-License-Identifier: Apache-2.0
// Row `process`: from the start of a program to the first byte of the guest's that it restores, by
// thaw and, if asked for, by QEMU.

#include "process.h"
#include "qemu.h"
#include "rows.h"
#include "scratch.h"
#include "subject.h"
#include <poll.h>
#include <string.h>
#include <sys/wait.h>

#define DATA_MEM_MIB   1024
#define DATA_MIB       512
#define DATA_MIB_QUICK 64
#define MODES_MAX      8

struct command {
    const char *const *argv;
    const struct bench *bench;
    const struct recipe *recipe; /* NULL: whatever it prints is right */
    uint32_t position;
};

static int read_output(
    const struct command *command, int fd, uint64_t *ret_first_ns, struct thaw_error *error)
{
    char bytes[512];
    size_t count = 0;
    for (;;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        ssize_t n = poll(&wait, 1, GUEST_TIMEOUT_MS) > 0
                        ? read(fd, bytes + count, sizeof(bytes) - count)
                        : -1;
        if (n <= 0)
            return bench_fail(error, -EIO, "%s printed nothing", command->argv[0]);
        if (count == 0)
            *ret_first_ns = now_ns();
        count += (size_t)n;
        uint32_t position;
        int r = recipe_read(
            command->bench, command->recipe, command->position, bytes, count, &position, error);
        if (r != 0)
            return MIN(r, 0);
    }
}

static int sample_process(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct command *command = mode->data;
    int pipes[2];
    pid_t pid;
    uint64_t first_ns = 0;
    if (pipe(pipes) < 0)
        return bench_errno(error, "making a pipe");
    uint64_t start_ns = now_ns();
    int r = scratch_spawn(command->argv, pipes[1], &pid, error);
    close(pipes[1]);
    if (r == 0) {
        r = read_output(command, pipes[0], &first_ns, error);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    close(pipes[0]);
    if (r == 0)
        results_add(&bench->results, row, mode->name, "first output", "us",
            (double)(first_ns - start_ns) / 1e3);
    return r;
}

/* --- What is started -------------------------------------------------------------------------- */

struct guest {
    const char *name;
    struct fixture fixture;
    char qemu_path[PATH_BYTES];
    struct qemu_command qemu;
    const char *embed[6], *command[8];
    struct command by_embed, by_command, by_qemu;
    char names[3][64];
};

/* Whether there is a `thaw restore` yet. */
static bool has_restore(const struct bench *bench)
{
    struct thaw_error ignored;
    pid_t pid;
    const char *const argv[] = {bench->thaw_path, "restore", "--help", NULL};
    return bench->thaw_path[0] && scratch_spawn(argv, -1, &pid, &ignored) == 0 &&
           scratch_wait(pid, 0, "thaw restore", &ignored) == 0;
}

static size_t add_thaw(
    const struct bench *bench, struct guest *guest, const char *store, struct mode *ret)
{
    const char *embed[] = {
        bench->self_path, PROCESS_EMBED, store, guest->fixture.recipe.name, "lazy", NULL};
    const char *command[] = {bench->thaw_path, "--store", store, "restore",
        guest->fixture.recipe.name, "--mode", "lazy", NULL};
    memcpy(guest->embed, embed, sizeof(embed));
    memcpy(guest->command, command, sizeof(command));
    guest->by_embed =
        (struct command){guest->embed, bench, &guest->fixture.recipe, guest->fixture.position};
    guest->by_command = guest->by_embed;
    guest->by_command.argv = guest->command;
    snprintf(guest->names[0], sizeof(guest->names[0]), "libthaw program, %s", guest->name);
    snprintf(guest->names[1], sizeof(guest->names[1]), "thaw restore, %s", guest->name);
    ret[0] = (struct mode){guest->names[0], sample_process, &guest->by_embed};
    ret[1] = (struct mode){guest->names[1], sample_process, &guest->by_command};
    return has_restore(bench) ? 2 : 1;
}

/* The guest was stopped right behind a line, so its next is that of the next pass. QEMU reads the
 * kernel before it throws it away for what it restores, so a guest without a PVH entry is none for
 * it. */
static int add_qemu(
    const struct bench *bench, struct guest *guest, struct mode *ret, struct thaw_error *error)
{
    int r =
        qemu_save(bench, &guest->fixture.recipe, guest->qemu_path, sizeof(guest->qemu_path), error);
    if (r < 0)
        return r;
    qemu_restore_command(&guest->fixture.recipe, guest->qemu_path, &guest->qemu);
    guest->by_qemu =
        (struct command){guest->qemu.argv, bench, &guest->fixture.recipe, POSITION_UNKNOWN};
    snprintf(guest->names[2], sizeof(guest->names[2]), "QEMU, %s", guest->name);
    *ret = (struct mode){guest->names[2], sample_process, &guest->by_qemu};
    return 0;
}

static int make_guest(struct bench *bench, const char *name, const struct memtouch_options *options,
    struct guest *ret, struct thaw_error *error)
{
    struct recipe recipe;
    char snapshot[40];
    ret->name = name;
    snprintf(snapshot, sizeof(snapshot), "process-%u", options->data_mib);
    int r = recipe_memtouch(bench, snapshot, options, &recipe, error);
    return r < 0 ? r : fixture_make(bench, &recipe, &ret->fixture, error);
}

static int run_guests(struct bench *bench, const char *row, struct guest *guests, size_t count,
    struct thaw_error *error)
{
    struct mode modes[MODES_MAX];
    size_t mode_count = 0;
    char store[PATH_BYTES];
    const struct rounds rounds = {.samples = 100, .quick_samples = 8, .quick_s = 5};
    int r = scratch_path(bench, "store", store, sizeof(store), error);
    for (size_t i = 0; i < count && r == 0; i++) {
        mode_count += add_thaw(bench, &guests[i], store, &modes[mode_count]);
        if (bench->options.peer_qemu)
            r = add_qemu(bench, &guests[i], &modes[mode_count++], error);
    }
    if (r == 0 && !has_restore(bench))
        results_skip(&bench->results, "process, thaw restore", "this thaw has no such command");
    return r < 0 ? r : rows_run_modes(bench, row, modes, mode_count, &rounds, error);
}

int row_process(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct guest *guests = calloc(2, sizeof(*guests));
    const struct memtouch_options small = {.mem_mib = 128, .data_mib = 1, .ws_mib = 1};
    struct memtouch_options large = {
        .mem_mib = DATA_MEM_MIB, .data_mib = DATA_MIB, .ws_mib = 1, .random = true};
    if (bench->options.quick)
        large.data_mib = DATA_MIB_QUICK;
    if (!guests)
        return bench_fail(error, -ENOMEM, "no memory for row %s", row);
    int r = make_guest(bench, "empty guest", &small, &guests[0], error);
    if (r == 0)
        r = make_guest(bench, "much data", &large, &guests[1], error);
    if (r == 0)
        r = run_guests(bench, row, guests, 2, error);
    free(guests);
    return r;
}
