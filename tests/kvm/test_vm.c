// SPDX-License-Identifier: Apache-2.0
// A VM's life as its owner sees it, and what is refused.
#include "guest.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct guest guest;

static void run_tick(const char *cmdline, uint32_t vcpus)
{
    guest_new(&guest,
        (struct thaw_vm_options){.kernel_path = "tick", .cmdline = cmdline, .vcpu_count = vcpus});
    guest_start(&guest);
}

Test(vm, a_new_vm_does_not_run_until_it_is_started)
{
    guest_new(&guest, (struct thaw_vm_options){.kernel_path = "tick"});
    cr_assert_eq(guest_info(&guest).state, THAW_VM_CREATED);
    usleep(20000);
    cr_assert_eq(guest_info(&guest).exits, 0);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), THAW_ESTATE);
    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), THAW_ESTATE);
    guest_start(&guest);
    cr_assert_eq(guest_info(&guest).state, THAW_VM_RUNNING);
    guest_expect(&guest, "tick 2\n", 0);
    guest_free(&guest);
}

Test(vm, a_paused_guest_stands_still_and_continues_where_it_was)
{
    run_tick("interval=1000000", 1);
    guest_expect(&guest, "tick 3\n", 0);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    struct thaw_vm_info paused = guest_info(&guest);
    cr_assert_eq(paused.state, THAW_VM_PAUSED);
    cr_assert_eq(paused.reason, THAW_REASON_REQUEST);
    usleep(50000);
    cr_assert_eq(guest_info(&guest).exits, paused.exits);
    uint32_t mark = paused.mark;

    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
    char next[32];
    snprintf(next, sizeof(next), "tick %u\n", mark + 2);
    guest_expect(&guest, next, 0);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    snprintf(next, sizeof(next), "tick %u\n", mark + 1);
    char *once = strstr(guest.console, next);
    cr_assert(once && !strstr(once + 1, next), "every count is printed once");
    guest_free(&guest);
}

/* The signals that a thread whose name ends so has pending; UINT64_MAX: there is none. */
static uint64_t pending_signals(const char *name)
{
    char path[512], line[256];
    uint64_t pending = UINT64_MAX;
    DIR *tasks = opendir("/proc/self/task");
    cr_assert_not_null(tasks);
    for (struct dirent *task; (task = readdir(tasks));) {
        bool is_it = false;
        snprintf(path, sizeof(path), "/proc/self/task/%s/status", task->d_name);
        FILE *status = task->d_name[0] == '.' ? NULL : fopen(path, "r");
        while (status && fgets(line, sizeof(line), status)) {
            if (strncmp(line, "Name:", 5) == 0)
                is_it = strstr(line, name) != NULL;
            if (is_it && strncmp(line, "SigPnd:", 7) == 0)
                pending = strtoull(line + 7, NULL, 16);
        }
        if (status)
            fclose(status);
    }
    closedir(tasks);
    return pending;
}

/* A user may only have so many. */
Test(vm, a_paused_vm_keeps_no_signal_pending)
{
    run_tick("interval=1000000", 1);
    for (unsigned i = 0; i < 20; i++) {
        cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
        uint64_t pending;
        for (unsigned ms = 0; (pending = pending_signals("/cpu0\n")) && ms < GUEST_TIMEOUT_MS; ms++)
            usleep(1000);
        cr_assert_eq(pending, 0, "%llx in round %u", (unsigned long long)pending, i);
        cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
        usleep(1000);
    }
    guest_free(&guest);
}

Test(vm, pausing_and_resuming_twice_is_no_error)
{
    run_tick("", 1);
    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
    guest_free(&guest);
}

/* Output is one string instruction of many port writes: a pause may come in the middle. */
Test(vm, a_thousand_pauses_lose_and_repeat_nothing)
{
    run_tick("interval=100000 wait=spin ticks=2000", 1);
    for (unsigned i = 0; i < 1000; i++) {
        if (thaw_vm_pause(guest.vm, NULL) < 0)
            break;
        if (i % 7 == 0)
            usleep(100);
        if (thaw_vm_resume(guest.vm, NULL) < 0)
            break;
    }
    struct thaw_vm_info info = guest_wait(&guest);
    cr_assert_eq(info.reason, THAW_REASON_EXIT, "%s", info.detail);
    const char *at = strstr(guest.console, "tick 1\n");
    for (unsigned i = 1; i <= 2000; i++) {
        char line[32];
        int length = snprintf(line, sizeof(line), "tick %u\n", i);
        cr_assert(at && strncmp(at, line, (size_t)length) == 0, "at tick %u: %.40s", i, at);
        at += length;
    }
    guest_free(&guest);
}

Test(vm, many_vcpus_pause_together)
{
    guest_new(
        &guest, (struct thaw_vm_options){
                    .kernel_path = "smp", .cmdline = "loop=1 period_us=2000", .vcpu_count = 8});
    guest_start(&guest);
    guest_expect(&guest, "smp: cpu 7 count", 0);
    for (unsigned i = 0; i < 50; i++) {
        cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
        uint64_t exits = guest_info(&guest).exits;
        usleep(1000);
        cr_assert_eq(guest_info(&guest).exits, exits);
        cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
    }
    guest_expect(&guest, "smp: cpu 7 count", guest_console_count(&guest));
    guest_free(&guest);
}

Test(vm, a_stopped_vm_stays_stopped_and_readable)
{
    run_tick("", 2);
    cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
    struct thaw_vm_info info = guest_info(&guest);
    cr_assert_eq(info.state, THAW_VM_STOPPED);
    cr_assert_eq(info.reason, THAW_REASON_REQUEST);
    cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
    struct thaw_error error;
    cr_assert_eq(thaw_vm_start(guest.vm, &error), THAW_ESTATE);
    cr_assert(strstr(error.message, "stopped"));
    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), THAW_ESTATE);
    cr_assert_eq(thaw_vm_wait(guest.vm, 0), 0);
    guest_free(&guest);
}

Test(vm, a_paused_and_a_created_vm_can_be_stopped)
{
    run_tick("", 1);
    cr_assert_eq(thaw_vm_pause(guest.vm, NULL), 0);
    cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
    guest_free(&guest);
    guest_new(&guest, (struct thaw_vm_options){.kernel_path = "tick"});
    cr_assert_eq(thaw_vm_stop(guest.vm, NULL), 0);
    cr_assert_eq(guest_info(&guest).state, THAW_VM_STOPPED);
    guest_free(&guest);
}

Test(vm, the_exit_status_of_the_guest_is_reported)
{
    /* memtouch without data has nothing to do and says so. */
    guest_new(&guest, (struct thaw_vm_options){.kernel_path = "memtouch"});
    guest_start(&guest);
    struct thaw_vm_info info = guest_wait(&guest);
    cr_assert_eq(info.state, THAW_VM_STOPPED);
    cr_assert_eq(info.reason, THAW_REASON_EXIT);
    cr_assert_eq(info.exit_status, 1);
    cr_assert(strstr(info.detail, "status 1"));
    guest_free(&guest);
}

Test(vm, the_event_descriptor_tells_of_changes_and_marks)
{
    guest_new(&guest, (struct thaw_vm_options){.kernel_path = "tick", .cmdline = "ticks=1"});
    struct pollfd event = {.fd = thaw_vm_event_fd(guest.vm), .events = POLLIN};
    cr_assert_eq(poll(&event, 1, 0), 0);
    guest_start(&guest);
    cr_assert_eq(poll(&event, 1, GUEST_TIMEOUT_MS), 1);
    guest_wait(&guest);
    uint64_t count;
    cr_assert_eq(read(event.fd, &count, sizeof(count)), (ssize_t)sizeof(count));
    cr_assert_geq(count, 3, "running, a mark, stopped");
    guest_free(&guest);
}

Test(vm, an_event_descriptor_that_is_asked_for_late_tells_of_what_was_before)
{
    guest_new(&guest, (struct thaw_vm_options){.kernel_path = "tick", .cmdline = "ticks=1"});
    guest_start(&guest);
    guest_wait(&guest);
    int fd = thaw_vm_event_fd(guest.vm);
    cr_assert_geq(fd, 0);
    cr_assert_eq(thaw_vm_event_fd(guest.vm), fd);
    uint64_t count;
    cr_assert_eq(read(fd, &count, sizeof(count)), (ssize_t)sizeof(count));
    cr_assert_geq(count, 3, "running, a mark, stopped");
    guest_free(&guest);
}

Test(vm, waiting_has_a_limit)
{
    run_tick("", 1);
    cr_assert_eq(thaw_vm_wait(guest.vm, 20), -ETIMEDOUT);
    guest_free(&guest);
}

Test(vm, info_of_an_older_caller_is_not_overrun)
{
    run_tick("", 1);
    struct {
        struct thaw_vm_info info;
    } both;
    memset(&both, 0x77, sizeof(both));
    both.info.size = offsetof(struct thaw_vm_info, mem_bytes);
    cr_assert_eq(thaw_vm_get_info(guest.vm, &both.info), 0);
    cr_assert_eq(both.info.state, THAW_VM_RUNNING);
    cr_assert_eq(both.info.mem_bytes, 0x7777777777777777);
    both.info.size = 1;
    cr_assert_eq(thaw_vm_get_info(guest.vm, &both.info), -EINVAL);
    guest_free(&guest);
}

static void expect_refusal(struct thaw_vm_options options, int code, const char *text)
{
    struct thaw_error error = {0};
    thaw_env *env;
    thaw_vm *vm = NULL;
    int r = thaw_env_new(NULL, &env, &error);
    if (r == THAW_EHOST)
        cr_skip_test("%s", error.message);
    cr_assert_eq(r, 0, "%s", error.message);
    options.size = sizeof(options);
    cr_assert_eq(thaw_vm_new(env, &options, &vm, &error), code, "%s: %s", text, error.message);
    cr_assert_eq(error.code, code);
    cr_assert(strstr(error.message, text), "\"%s\" lacks \"%s\"", error.message, text);
    cr_assert_null(vm);
    thaw_env_free(env);
}

Test(vm, options_that_make_no_sense_are_refused_by_name)
{
    char tick[512];
    snprintf(tick, sizeof(tick), "%s", guest_path("tick"));
    expect_refusal((struct thaw_vm_options){0}, -EINVAL, "kernel");
    expect_refusal(
        (struct thaw_vm_options){.kernel_path = tick, .vcpu_count = 17}, -EINVAL, "vCPUs");
    expect_refusal(
        (struct thaw_vm_options){.kernel_path = tick, .mem_bytes = 1 << 20}, -EINVAL, "RAM");
    expect_refusal(
        (struct thaw_vm_options){.kernel_path = tick, .mem_bytes = (64 << 20) + 1}, -EINVAL, "RAM");
    expect_refusal(
        (struct thaw_vm_options){.kernel_path = "/nonexistent"}, -ENOENT, "/nonexistent");
    expect_refusal((struct thaw_vm_options){.kernel_path = "/dev/null"}, THAW_EIMAGE, "/dev/null");
    expect_refusal((struct thaw_vm_options){.kernel_path = tick, .initrd_path = "/nonexistent"},
        -ENOENT, "/nonexistent");
    char long_cmdline[3000];
    memset(long_cmdline, 'x', sizeof(long_cmdline) - 1);
    long_cmdline[sizeof(long_cmdline) - 1] = '\0';
    expect_refusal((struct thaw_vm_options){.kernel_path = tick, .cmdline = long_cmdline}, -E2BIG,
        "command line");
    expect_refusal(
        (struct thaw_vm_options){.kernel_path = tick, .name = long_cmdline}, -EINVAL, "name");
}

Test(vm, twenty_vms_run_in_one_process)
{
    static struct guest guests[20];
    for (size_t i = 0; i < 20; i++) {
        guest_new(&guests[i],
            (struct thaw_vm_options){.kernel_path = "tick", .cmdline = "interval=100000000"});
        guest_start(&guests[i]);
    }
    for (size_t i = 0; i < 20; i++)
        guest_expect(&guests[i], "tick 3\n", 0);
    for (size_t i = 0; i < 20; i++)
        guest_free(&guests[i]);
}

struct caller {
    pthread_t thread;
    unsigned seed;
};

static void *call_at_random(void *data)
{
    struct caller *caller = data;
    for (unsigned i = 0; i < 100; i++) {
        switch (rand_r(&caller->seed) % 4) {
        case 0:
            thaw_vm_pause(guest.vm, NULL);
            break;
        case 1:
            guest_info(&guest);
            break;
        default:
            thaw_vm_resume(guest.vm, NULL);
        }
    }
    return NULL;
}

Test(vm, several_threads_may_call_at_once)
{
    run_tick("interval=1000000", 2);
    struct caller callers[4];
    for (unsigned i = 0; i < 4; i++) {
        callers[i].seed = i;
        cr_assert_eq(pthread_create(&callers[i].thread, NULL, call_at_random, &callers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(callers[i].thread, NULL);
    cr_assert_eq(thaw_vm_resume(guest.vm, NULL), 0);
    guest_expect(&guest, "tick ", guest_console_count(&guest));
    guest_free(&guest);
}
