/* SPDX-License-Identifier: Apache-2.0 */
/* Role: run a VM in this process or in a detached one, and report what became of it.
 * Not here: what VM (cmd_run.c, cmd_restore.c) and its life (owner.c). */
#include "process.h"
#include "foreground.h"
#include "json_text.h"
#include "owner.h"
#include "signals.h"
#include "text.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>

/* The exit status of a VM that ran in the foreground; says why if it is not 0. */
static int judge(const char *name, const struct thaw_vm_info *info)
{
    if (info->state == THAW_VM_FAILED)
        return cli_error("VM '%s' failed: %s%s%s", name, thaw_vm_reason_name(info->reason),
            *info->detail ? ": " : "", info->detail);
    if (info->reason == THAW_REASON_EXIT && info->exit_status != 0)
        return cli_error("VM '%s' ended with exit status %u", name, info->exit_status);
    return CLI_OK;
}

static int run_foreground(const struct cli *cli, const struct vm_config *config)
{
    struct foreground *foreground = NULL;
    struct thaw_error error = {0};
    struct thaw_vm_info info;
    struct owner *owner;
    char name[NAME_BYTES];
    json_t *vm = NULL;

    signals_block();
    if (owner_open(config, &owner, &error) < 0)
        return cli_report(&error);
    if (foreground_open(owner, !cli->json, &foreground, &error) < 0) {
        owner_announce(owner, NULL, NULL, NULL); /* it may have ended, and leaves a record then */
        owner_close(owner);
        return cli_report(&error);
    }
    if (owner_announce(owner, foreground_turn, foreground, &error) < 0) {
        foreground_close(foreground);
        owner_close(owner);
        return cli_report(&error);
    }
    owner_run(owner, foreground_turn, foreground);
    foreground_close(foreground);
    owner_get_info(owner, &info);
    snprintf(name, sizeof(name), "%s", owner_name(owner));
    if (cli->json)
        vm = owner_describe(owner);
    owner_close(owner);
    if (vm)
        cli_print_json(vm);
    return judge(name, &info);
}

static void tell(int fd, char first, const char *text)
{
    if (write(fd, &first, 1) == 1)
        while (*text) {
            ssize_t n = write(fd, text, strlen(text));

            if (n < 0)
                break;
            text += n;
        }
    close(fd);
}

/* Closes what was inherited but stdin, stdout, stderr and fd: a process that stays must not hold a
 * pipe or a lock of the one that started it. Returns the new number of fd. */
static int keep_only(int fd)
{
    int kept = STDERR_FILENO + 1;

    if (fd != kept && dup3(fd, kept, O_CLOEXEC) < 0)
        return fd;
    close_range((unsigned)kept + 1, ~0u, 0);
    return kept;
}

/* The detached process. Tells the parent '+' and the VM, or '-' and an error. */
static int run_child(const struct vm_config *config, int report_fd)
{
    struct thaw_error error = {0};
    struct owner *owner;
    json_t *vm;
    char *text;
    size_t count;
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    int rc;

    signals_block();
    setsid();
    for (int fd = STDIN_FILENO; null_fd >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null_fd, fd);
    cleanup_close(&null_fd);
    rc = owner_open(config, &owner, &error);
    if (rc == 0 && (rc = owner_announce(owner, NULL, NULL, &error)) < 0)
        owner_close(owner);
    if (rc < 0) {
        tell(report_fd, '-', error.message[0] ? error.message : thaw_strerror(error.code));
        return CLI_FAILED;
    }
    if (chdir("/") != 0) {
        /* Then the directory that the user was in stays in use; nothing else depends on it. */
    }
    vm = owner_describe(owner);
    text = json_text_make(vm, &count);
    json_decref(vm);
    tell(report_fd, '+', text ? text : "{}");
    free(text);
    owner_run(owner, NULL, NULL);
    owner_close(owner);
    return CLI_OK;
}

/* Reads until the child closes the pipe. */
static size_t read_report(int fd, char *buf, size_t count)
{
    size_t used = 0;

    while (used < count - 1) {
        ssize_t n = read(fd, buf + used, count - 1 - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    buf[used] = '\0';
    return used;
}

static int run_detached(const struct cli *cli, const struct vm_config *config)
{
    static char report[65536];
    int pipe_fds[2];
    pid_t pid;

    if (pipe2(pipe_fds, O_CLOEXEC) != 0)
        return cli_error("cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    pid = fork();
    if (pid < 0)
        return cli_error("cannot make a process: %s", strerror(errno));
    if (pid == 0) {
        return run_child(config, keep_only(pipe_fds[1]));
    }
    close(pipe_fds[1]);
    read_report(pipe_fds[0], report, sizeof(report));
    close(pipe_fds[0]);
    if (report[0] == '+') {
        if (cli->json)
            printf("%s\n", report + 1);
        return CLI_OK;
    }
    waitpid(pid, NULL, 0);
    if (report[0] == '-')
        return cli_error("%s", report + 1);
    return cli_error("the VM's process died while it was starting");
}

int process_run(const struct cli *cli, const struct vm_config *config, bool detach)
{
    return detach ? run_detached(cli, config) : run_foreground(cli, config);
}
