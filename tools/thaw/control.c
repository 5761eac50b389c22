/* SPDX-License-Identifier: Apache-2.0 */
/* Role: find a VM by name, change its state, wait for the effect.
 * Not here: HTTP (client.c), and what commands print (cmd_*.c). */
#include "control.h"
#include "client.h"
#include "fail.h"
#include "vm_json.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>

#define START_MS                                                                                   \
    3000 /* between claiming a name and listening, or between the last answer and exit */

json_t *control_last_words(struct runtime_entry *entry)
{
    if (!entry->status)
        entry->status =
            json_pack("{s:s, s:i, s:s}", "name", entry->name, "pid", 0, "state", "created");
    if (!entry->alive)
        vm_json_mark_dead(entry->status);
    return entry->status;
}

static int ended(struct runtime_entry *entry, struct thaw_error *error)
{
    const json_t *vm = control_last_words(entry);
    const char *detail = vm_json_get(vm, "detail");

    return fail_set(error, -ESRCH, "VM '%s' has ended (%s%s%s)", entry->name,
        vm_json_get(vm, "reason"), *detail ? ": " : "", detail);
}

int control_connect(const char *name, struct runtime_entry *ret_entry, struct thaw_error *error)
{
    int64_t deadline = now_ms() + START_MS;

    for (;;) {
        struct runtime_entry entry;
        int rc = runtime_find(name, &entry, error);

        if (rc < 0)
            return rc;
        if (!entry.alive) {
            *ret_entry = entry;
            return ended(&entry, error);
        }
        rc = client_connect(entry.dir_path, deadline, error);
        if (rc >= 0) {
            *ret_entry = entry;
            return rc;
        }
        runtime_entry_fini(&entry);
        if ((rc != -ENOENT && rc != -ECONNREFUSED) || now_ms() >= deadline)
            return rc == -ENOENT ? fail_set(error, -EAGAIN, "VM '%s' is still starting", name) : rc;
        usleep(5000);
    }
}

static int request(int fd, const char *name, const char *method, const char *path, const char *body,
    json_t **ret_vm, struct thaw_error *error)
{
    int64_t deadline = now_ms() + CONTROL_ANSWER_MS;
    int rc = client_send(fd, method, path, body, strlen(body), deadline, error);

    if (rc == 0)
        rc = client_receive(fd, deadline, ret_vm, error);
    if (rc == -ETIMEDOUT)
        return fail_set(
            error, rc, "VM '%s' does not answer; its process is %d", name, (int)client_peer(fd));
    return rc;
}

static void state_body(enum thaw_vm_state state, char body[64])
{
    snprintf(body, 64, "{\"state\":\"%s\"}", thaw_vm_state_name(state));
}

/* Sends one request to the VM of this name. */
static int ask(const char *name, const char *method, const char *path, const char *body,
    json_t **ret_vm, struct thaw_error *error)
{
    struct runtime_entry entry;
    _cleanup_close_ int fd = control_connect(name, &entry, error);
    int rc;

    if (fd < 0) {
        if (fd == -ESRCH)
            runtime_entry_fini(&entry);
        return fd;
    }
    rc = request(fd, name, method, path, body, ret_vm, error);
    runtime_entry_fini(&entry);
    return rc;
}

int control_set_state(
    const char *name, enum thaw_vm_state state, json_t **ret_vm, struct thaw_error *error)
{
    char body[64];

    state_body(state, body);
    return ask(name, "PUT", "/v1/vm/state", body, ret_vm, error);
}

int control_reset(const char *name, const char *clock, json_t **ret_vm, struct thaw_error *error)
{
    char body[64];

    snprintf(body, sizeof(body), "{\"clock\":\"%s\"}", clock);
    return ask(name, "POST", "/v1/vm/reset", body, ret_vm, error);
}

int control_open_process(int fd)
{
    pid_t pid = client_peer(fd);

    return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

int control_wait_gone(int pid_fd, const struct runtime_entry *entry, struct thaw_error *error)
{
    int64_t deadline = now_ms() + CONTROL_ANSWER_MS;

    while (now_ms() < deadline) {
        struct pollfd poll_fd = {.fd = pid_fd, .events = POLLIN};

        if (pid_fd >= 0 && poll(&poll_fd, 1, 1000) == 1)
            return 0;
        if (pid_fd < 0) {
            if (!runtime_is_alive(entry))
                return 0;
            usleep(5000);
        }
    }
    return fail_set(
        error, -ETIMEDOUT, "VM '%s' was stopped, but its process does not end", entry->name);
}

static int remove_record(struct runtime_entry *entry, json_t **ret_vm, struct thaw_error *error)
{
    int rc = runtime_remove(entry->name, error);

    if (rc == 0 && ret_vm)
        *ret_vm = json_incref(control_last_words(entry));
    return rc;
}

static int stop_connected(
    int fd, const struct runtime_entry *entry, json_t **ret_vm, struct thaw_error *error)
{
    _cleanup_close_ int pid_fd = control_open_process(fd);
    _cleanup_json_ json_t *vm = NULL;
    char body[64];
    int rc;

    state_body(THAW_VM_STOPPED, body);
    rc = request(fd, entry->name, "PUT", "/v1/vm/state", body, &vm, error);

    if (rc == -ETIMEDOUT || rc == -EIO || rc == THAW_ESTATE)
        return rc;
    /* Without an answer it is about to end already: by itself or because of somebody else. */
    if (control_wait_gone(pid_fd, entry, error) < 0)
        return -ETIMEDOUT;
    if (rc < 0)
        rc = runtime_remove(entry->name, error);
    if (rc == 0 && ret_vm)
        *ret_vm = take_ptr(vm);
    return rc;
}

int control_stop(const char *name, json_t **ret_vm, struct thaw_error *error)
{
    struct runtime_entry entry;
    _cleanup_close_ int fd = control_connect(name, &entry, error);
    int rc;

    if (fd == -ESRCH) {
        rc = remove_record(&entry, ret_vm, error);
    } else if (fd < 0) {
        return fd;
    } else {
        rc = stop_connected(fd, &entry, ret_vm, error);
    }
    runtime_entry_fini(&entry);
    return rc;
}
