// SPDX-License-Identifier: Apache-2.0
#include "thread.h"
#include <criterion/criterion.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>

struct seen {
    char name[16];
    sigset_t blocked;
    cpu_set_t allowed;
};

static void *look(void *data)
{
    struct seen *seen = data;
    prctl(PR_GET_NAME, seen->name);
    pthread_sigmask(SIG_BLOCK, NULL, &seen->blocked);
    sched_getaffinity(0, sizeof(seen->allowed), &seen->allowed);
    return NULL;
}

static void check(int (*start)(pthread_t *, const char *, void *(*)(void *), void *))
{
    pthread_t thread;
    struct seen seen = {0};
    cpu_set_t allowed;
    sigset_t own;
    cr_assert_eq(start(&thread, "thaw/looks-around", look, &seen), 0);
    pthread_join(thread, NULL);
    cr_assert_str_eq(seen.name, "thaw/looks-arou");
    cr_assert(sigismember(&seen.blocked, SIGTERM) && !sigismember(&seen.blocked, SIGSEGV));
    pthread_sigmask(SIG_BLOCK, NULL, &own);
    cr_assert_not(sigismember(&own, SIGTERM), "the caller's mask is as it was");
    sched_getaffinity(0, sizeof(allowed), &allowed);
    cr_assert(CPU_EQUAL(&seen.allowed, &allowed), "it may run wherever the caller may");
}

Test(thread, it_has_a_name_and_takes_no_signals)
{
    check(thread_start);
}

Test(thread, one_that_begins_aside_may_run_anywhere)
{
    check(thread_start_aside);
}

Test(thread, nothing_is_aside_of_the_only_processor)
{
    cpu_set_t allowed, one;
    sched_getaffinity(0, sizeof(allowed), &allowed);
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &allowed))
            CPU_SET(cpu, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    check(thread_start_aside);
}
