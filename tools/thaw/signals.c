/* SPDX-License-Identifier: Apache-2.0 */
/* Role: block the signals that ask to end, and read them from a descriptor.
 * Not here: what a command does about them. */
#include "signals.h"
#include "fail.h"
#include <errno.h>
#include <signal.h>
#include <sys/signalfd.h>

static void fill(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGHUP);
    sigaddset(signals, SIGQUIT);
}

void signals_block(void)
{
    sigset_t signals;

    fill(&signals);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int signals_open(struct thaw_error *error)
{
    sigset_t signals;
    int fd;

    fill(&signals);
    fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? fail_errno(error, errno, "cannot make a signal descriptor") : fd;
}

bool signals_take(int fd)
{
    struct signalfd_siginfo info;

    return read(fd, &info, sizeof(info)) == sizeof(info);
}
