// SPDX-License-Identifier: Apache-2.0
// Drives QEMU: the same guest, saved and started again. Takes no time.

#include "qemu.h"
#include "scratch.h"
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static size_t fill_command(const struct recipe *recipe, struct qemu_command *ret)
{
    snprintf(ret->mem, sizeof(ret->mem), "%u", recipe->mem_mib);
    const char *const args[] = {"qemu-system-x86_64", "-M", "microvm,acpi=off", "-m", ret->mem,
        "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-accel", "kvm",
        "-cpu", "host,-arch-capabilities", "-kernel", recipe->kernel, "-append", recipe->cmdline};
    memcpy(ret->argv, args, sizeof(args));
    return ARRAY_SIZE(args);
}

/* The initial RAM disk is in memory; QEMU would read it all the same if it was named. */
void qemu_restore_command(const struct recipe *recipe, struct qemu_command *ret)
{
    *ret = (struct qemu_command){0};
    size_t count = fill_command(recipe, ret);
    ret->argv[count++] = "-incoming";
    ret->argv[count++] = "fd:3";
}

static int connect_to(const char *path, struct thaw_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    for (unsigned i = 0; i < 500 && !bench_interrupted; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
            return fd;
        close(fd);
        usleep(20000);
    }
    return bench_errno(error, "connecting to QEMU at %s", path);
}

/* QEMU answers line by line, with events in between. */
static int command(int fd, const char *text, char *answer, size_t bytes, struct thaw_error *error)
{
    size_t count = 0;
    if (write(fd, text, strlen(text)) < 0)
        return bench_errno(error, "talking to QEMU");
    while (count < bytes - 1) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        ssize_t n =
            poll(&wait, 1, GUEST_TIMEOUT_MS) > 0 ? read(fd, answer + count, bytes - 1 - count) : -1;
        if (n <= 0)
            break;
        count += (size_t)n;
        answer[count] = '\0';
        if (strstr(answer, "\"return\"") && answer[count - 1] == '\n')
            return 0;
    }
    return bench_fail(error, -EIO, "QEMU did not answer %.60s", text);
}

/* Without a stop before: QEMU starts a guest as it was, and this one should run. */
static int migrate(int fd, const char *path, struct thaw_error *error)
{
    char text[PATH_BYTES + 128], answer[8192];
    int r = command(fd, "{\"execute\":\"qmp_capabilities\"}\n", answer, sizeof(answer), error);
    snprintf(text, sizeof(text),
        "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"exec:cat > %s\"}}\n", path);
    if (r == 0)
        r = command(fd, text, answer, sizeof(answer), error);
    bool done = false;
    for (unsigned i = 0; i < 3000 && r == 0 && !done && !bench_interrupted; i++) {
        usleep(20000);
        r = command(fd, "{\"execute\":\"query-migrate\"}\n", answer, sizeof(answer), error);
        done = r == 0 && strstr(answer, "completed");
    }
    if (r == 0 && !done)
        r = bench_fail(error, -EIO, "QEMU did not save the guest");
    return r < 0 ? r : command(fd, "{\"execute\":\"quit\"}\n", answer, sizeof(answer), error);
}

static int wait_line(int fd, struct thaw_error *error)
{
    char byte = 0;
    while (byte != '\n') {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, GUEST_TIMEOUT_MS) <= 0 || read(fd, &byte, 1) != 1)
            return bench_fail(error, -EIO, "the guest printed nothing in QEMU");
    }
    return 0;
}

int qemu_save(const struct bench *bench, const struct recipe *recipe, char *ret_path, size_t bytes,
    struct thaw_error *error)
{
    struct qemu_command qemu = {0};
    char name[64], monitor[PATH_BYTES + 64], socket_path[PATH_BYTES];
    int pipes[2];
    pid_t pid;
    snprintf(name, sizeof(name), "%s.qemu", recipe->name);
    int r = scratch_path(bench, name, ret_path, bytes, error);
    if (r == 0)
        r = scratch_path(bench, "qmp", socket_path, sizeof(socket_path), error);
    if (r < 0 || pipe(pipes) < 0)
        return r < 0 ? r : bench_errno(error, "making a pipe");
    snprintf(monitor, sizeof(monitor), "unix:%s,server=on,wait=off", socket_path);
    size_t count = fill_command(recipe, &qemu);
    if (recipe->initrd[0]) {
        qemu.argv[count++] = "-initrd";
        qemu.argv[count++] = recipe->initrd;
    }
    qemu.argv[count++] = "-qmp";
    qemu.argv[count++] = monitor;
    r = scratch_spawn(qemu.argv, pipes[1], NULL, &pid, error);
    close(pipes[1]);
    if (r == 0) {
        r = wait_line(pipes[0], error);
        _cleanup_close_ int fd = r == 0 ? connect_to(socket_path, error) : -1;
        if (r == 0)
            r = fd < 0 ? fd : migrate(fd, ret_path, error);
        if (r < 0)
            kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    close(pipes[0]);
    unlink(socket_path);
    return r;
}
