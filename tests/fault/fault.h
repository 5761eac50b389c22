/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault injection: the linker redirects the system calls and allocations of the library
 * (-Wl,--wrap, see tests/CMakeLists.txt) to wrappers that count them and make one fail.
 *
 * A scenario is a function that uses the library from beginning to end and leaves nothing behind.
 * fault_for_every_call runs it with the first call failing, then the second, and so on until it
 * ends without having met the fault, and each time looks for what a failure must not leave behind:
 * descriptors, threads, mappings and memory.
 */
#ifndef TESTS_FAULT_H
#define TESTS_FAULT_H

#include <stdbool.h>
#include <thaw/error.h>

/* Whose calls are counted. */
enum fault_side {
    FAULT_CALLER,  /* of the thread that runs the scenario: what API functions do themselves */
    FAULT_LIBRARY, /* of all other threads, KVM_RUN excepted: what happens while a guest runs */
    FAULT_ALL,     /* of both, as they come: what jobs do */
};

/* A call that is allowed to fail without anybody being told, and why. */
struct fault_tolerated {
    const char *call; /* as fault_hit names it: "ioctl KVM_IRQ_LINE" */
    const char *reason;
};

struct fault_scenario {
    enum fault_side side;
    void (*run)(void);
    const struct fault_tolerated *tolerated; /* ends with a NULL call; NULL: none */
    /* Run without faults after every run, to see that nothing outlasts the failure; may be NULL. */
    void (*afterwards)(void);
};

/* Fails the test on what is wrong. Returns how many calls were made to fail. */
unsigned fault_for_every_call(const struct fault_scenario *scenario);

/* For use in a scenario after a call of the API that returned r: true if it failed. Fails the test
 * if it failed without a fault or without saying why, or if it succeeded in spite of a fault that
 * is not among the tolerated. */
bool fault_failed(const char *what, int r, const struct thaw_error *error);

/* For use in a scenario: what follows is not counted and does not fail, or does again. Setting up
 * and looking at what came of it are no part of what is tested. */
void fault_suspend(bool suspended);

/* What was made to fail in this run: "mmap"; NULL if nothing yet. Any thread. */
const char *fault_hit(void);

/* From now on in this process, io_uring can't be had. */
void fault_forbid_uring(void);

/* From now on, of every `one_in` calls of KVM_RUN one at random fails with err instead of running
 * the guest. 0: none does. */
void fault_kvm_run(unsigned one_in, int err, unsigned seed);

/* From now on, KVM offers a few leaves of CPUID only: each costs memory in many places, all of them
 * alike. Before the environment is made. */
void fault_few_cpuid(void);

/* From now on, writes to files fail with ENOSPC, or don't. */
void fault_disk_full(bool full);

#endif
