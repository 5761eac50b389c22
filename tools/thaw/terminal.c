/* SPDX-License-Identifier: Apache-2.0 */
/* Role: terminal modes and the escape key.
 * Not here: moving bytes (foreground.c, cmd_console.c). The saved mode is the one thing in the
 * command that is static: an exit handler and a signal handler have no argument to find it by. */
#include "terminal.h"
#include "fail.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#define ESCAPE_KEY 0x01 /* Ctrl-A */

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

static struct termios saved;
static volatile sig_atomic_t is_raw;
static bool prepared;
static struct sigaction previous[ARRAY_SIZE(fatal_signals)];

bool terminal_is_ours(void)
{
    return isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

void terminal_restore(void)
{
    if (is_raw) {
        is_raw = 0;
        tcsetattr(STDIN_FILENO, TCSANOW, &saved);
    }
}

/* Restores the mode and lets the signal happen again as if this handler had never been. */
static void on_fatal_signal(int number)
{
    terminal_restore();
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++) {
        if (fatal_signals[i] == number)
            sigaction(number, &previous[i], NULL);
    }
    raise(number);
}

static void prepare(void)
{
    struct sigaction action = {.sa_handler = on_fatal_signal};

    if (prepared)
        return;
    prepared = true;
    atexit(terminal_restore);
    for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++)
        sigaction(fatal_signals[i], &action, &previous[i]);
}

int terminal_raw(struct thaw_error *error)
{
    struct termios raw;

    if (tcgetattr(STDIN_FILENO, &saved) != 0)
        return fail_errno(error, errno, "cannot read the terminal's mode");
    prepare();
    raw = saved;
    cfmakeraw(&raw);
    /* Guests that end lines with a bare newline still get their lines to begin at the left. */
    raw.c_oflag |= OPOST | ONLCR;
    is_raw = 1;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0) {
        is_raw = 0;
        return fail_errno(error, errno, "cannot set the terminal's mode");
    }
    return 0;
}

size_t terminal_width(int fd, size_t otherwise)
{
    struct winsize size;

    return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : otherwise;
}

size_t terminal_filter(struct terminal_escape *escape, const char *commands, const char *in,
    size_t count, char *out, char *ret_command)
{
    size_t used = 0;

    *ret_command = 0;
    for (size_t i = 0; i < count; i++) {
        if (!escape->armed) {
            if (in[i] == TERMINAL_INTERRUPT && escape->interrupts) {
                *ret_command = TERMINAL_INTERRUPT;
                break;
            }
            escape->armed = in[i] == ESCAPE_KEY;
            if (!escape->armed)
                out[used++] = in[i];
            continue;
        }
        escape->armed = false;
        if (in[i] && strchr(commands, in[i])) {
            *ret_command = in[i];
            break;
        }
        if (in[i] != TERMINAL_INTERRUPT)
            out[used++] = ESCAPE_KEY;
        if (in[i] != ESCAPE_KEY)
            out[used++] = in[i];
    }
    return used;
}
