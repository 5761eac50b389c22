// SPDX-License-Identifier: Apache-2.0
// Row `process`: from the start of a program to the first byte of the guest's that it restores, by
// thaw, by hand, and by QEMU if asked for.

#include "floor.h"
#include "process.h"
#include "qemu.h"
#include "rows.h"
#include "scratch.h"
#include "subject.h"
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define GUESTS        2
#define EMPTY_MEM_MIB 128
#define DATA_MEM_MIB  1024
#define DATA_MIB      512

struct command {
    const char *const *argv;
    const char *open_path; /* as scratch_spawn takes it */
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

static double seconds(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static int sample_process(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct command *command = mode->data;
    int pipes[2];
    pid_t pid;
    uint64_t first_ns = 0;
    struct rusage used = {0};
    if (pipe(pipes) < 0)
        return bench_errno(error, "making a pipe");
    uint64_t start_ns = now_ns();
    int r = scratch_spawn(command->argv, pipes[1], command->open_path, &pid, error);
    close(pipes[1]);
    if (r == 0) {
        r = read_output(command, pipes[0], &first_ns, error);
        kill(pid, SIGKILL);
        wait4(pid, NULL, 0, &used);
    }
    close(pipes[0]);
    if (r == 0)
        results_add(&bench->results, row, mode->name, "cpu", "us",
            seconds(used.ru_utime) * 1e6 + seconds(used.ru_stime) * 1e6);
    if (r == 0)
        results_add(&bench->results, row, mode->name, "first output", "us",
            (double)(first_ns - start_ns) / 1e3);
    return r;
}

/* --- What is started -------------------------------------------------------------------------- */

#define COMMANDS_MAX 4

struct guest {
    const char *name;
    struct fixture fixture;
    struct floor_image image;
    char qemu_path[PATH_BYTES];
    struct qemu_command qemu;
    const char *argv[COMMANDS_MAX][8];
    struct command commands[COMMANDS_MAX];
    char names[COMMANDS_MAX][64];
    size_t count;
};

/* Whether there is a `thaw restore` yet. */
static bool has_restore(const struct bench *bench)
{
    struct thaw_error ignored;
    pid_t pid;
    const char *const argv[] = {bench->thaw_path, "restore", "--help", NULL};
    return bench->thaw_path[0] && scratch_spawn(argv, -1, NULL, &pid, &ignored) == 0 &&
           scratch_wait(pid, 0, "thaw restore", &ignored) == 0;
}

static struct mode add_command(const struct bench *bench, struct guest *guest, const char *name,
    const char *const *argv, uint32_t position)
{
    size_t i = guest->count++;
    guest->commands[i] = (struct command){
        .argv = argv, .bench = bench, .recipe = &guest->fixture.recipe, .position = position};
    snprintf(guest->names[i], sizeof(guest->names[i]), "%s, %s", name, guest->name);
    return (struct mode){guest->names[i], sample_process, &guest->commands[i]};
}

static size_t add_thaw(
    const struct bench *bench, struct guest *guest, const char *store, struct mode *ret)
{
    const struct fixture *fixture = &guest->fixture;
    const char *const embed[8] = {
        bench->self_path, PROCESS_EMBED, store, fixture->recipe.name, "lazy"};
    const char *const command[8] = {
        bench->thaw_path, "--store", store, "restore", fixture->recipe.name, "--mode", "lazy"};
    const char *const rawfile[8] = {
        bench->self_path, PROCESS_RAWFILE, guest->image.path, guest->image.state_path};
    memcpy(guest->argv[0], rawfile, sizeof(rawfile));
    memcpy(guest->argv[1], embed, sizeof(embed));
    memcpy(guest->argv[2], command, sizeof(command));
    size_t count = 0;
    ret[count++] = add_command(bench, guest, "rawfile", guest->argv[0], guest->image.position);
    if (has_restore(bench))
        ret[count++] = add_command(bench, guest, "thaw restore", guest->argv[2], fixture->position);
    if (!bench->options.quick || count == 1)
        ret[count++] =
            add_command(bench, guest, "libthaw program", guest->argv[1], fixture->position);
    return count;
}

/* QEMU stops the guest anywhere in a line. It reads the kernel before it throws it away for what it
 * restores, so a guest without a PVH entry is none for it. The file it reads by itself,
 * without the `cat` and the pipe of its manual. */
static int add_qemu(
    const struct bench *bench, struct guest *guest, struct mode *ret, struct thaw_error *error)
{
    int r =
        qemu_save(bench, &guest->fixture.recipe, guest->qemu_path, sizeof(guest->qemu_path), error);
    if (r < 0)
        return r;
    qemu_restore_command(&guest->fixture.recipe, &guest->qemu);
    *ret = add_command(bench, guest, "QEMU", guest->qemu.argv, POSITION_UNKNOWN);
    guest->commands[guest->count - 1].open_path = guest->qemu_path;
    return 0;
}

static int make_guest(
    struct bench *bench, struct guest *guest, const struct recipe *recipe, struct thaw_error *error)
{
    int r = floor_image_make(bench, recipe, true, &guest->image, error);
    return r < 0 ? r : fixture_make(bench, recipe, &guest->fixture, error);
}

static int make_guests(struct bench *bench, struct guest *guests, struct thaw_error *error)
{
    struct recipe recipe;
    const struct memtouch_options large = {
        .mem_mib = DATA_MEM_MIB, .data_mib = DATA_MIB, .ws_mib = 1, .random = true};
    guests[0].name = "empty guest";
    guests[1].name = "much data";
    int r = recipe_tick(bench, "process-empty", EMPTY_MEM_MIB, &recipe, error);
    if (r == 0)
        r = make_guest(bench, &guests[0], &recipe, error);
    if (r == 0)
        r = recipe_memtouch(bench, "process-data", &large, &recipe, error);
    return r < 0 ? r : make_guest(bench, &guests[1], &recipe, error);
}

/* In turn, but one guest after the other: QEMU takes seconds for the second. */
static int run_guest(
    struct bench *bench, const char *row, struct guest *guest, struct thaw_error *error)
{
    struct mode modes[COMMANDS_MAX];
    char store[PATH_BYTES];
    const struct rounds rounds = {.samples = 100, .quick_samples = 20, .quick_s = 8};
    int r = scratch_path(bench, "store", store, sizeof(store), error);
    if (r < 0)
        return r;
    size_t count = add_thaw(bench, guest, store, modes);
    if (bench->peer_qemu)
        r = add_qemu(bench, guest, &modes[count++], error);
    if (r < 0)
        return r;
    scratch_warm_cache(store); /* QEMU's file is there, too */
    return rows_run_modes(bench, row, modes, count, &rounds, error);
}

int row_process(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct guest *guests = calloc(GUESTS, sizeof(*guests));
    if (!guests)
        return bench_fail(error, -ENOMEM, "no memory for row %s", row);
    if (!has_restore(bench))
        results_skip(&bench->results, "process, thaw restore", "this thaw has no such command");
    int r = make_guests(bench, guests, error);
    for (size_t i = 0; i < GUESTS && r == 0; i++)
        r = run_guest(bench, row, &guests[i], error);
    for (size_t i = 0; i < GUESTS; i++)
        floor_image_free(&guests[i].image);
    free(guests);
    return r;
}
