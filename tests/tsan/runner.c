// SPDX-License-Identifier: Apache-2.0
// Runs the tests of a ThreadSanitizer build, each in a process of its own, and prints TAP. Takes
// Criterion's --filter SUITE/NAME; ignores its other options.

#include <criterion/criterion.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATUS_SKIPPED 77

static struct stand_in_test *tests;

void stand_in_register(struct stand_in_test *test)
{
    test->next = tests;
    tests = test;
}

void stand_in_fail(const char *file, int line, const char *what, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("# %s:%d: %s: ", file, line, what);
    vprintf(format, args);
    printf("\n");
    va_end(args);
    fflush(stdout);
    _exit(1);
}

void stand_in_skip(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("# ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
    fflush(stdout);
    _exit(STATUS_SKIPPED);
}

static const struct stand_in_options *suite_options(const char *suite)
{
    static const struct stand_in_options none;
    for (const struct stand_in_test *test = tests; test; test = test->next)
        if (!test->name && strcmp(test->suite, suite) == 0)
            return &test->options;
    return &none;
}

static void run_in_child(const struct stand_in_test *test)
{
    const struct stand_in_options *suite = suite_options(test->suite);
    if (suite->init)
        suite->init();
    if (test->options.init)
        test->options.init();
    test->run();
    if (test->options.fini)
        test->options.fini();
    if (suite->fini)
        suite->fini();
    fflush(stdout);
    exit(0); /* not _exit: the sanitizer reports at exit */
}

static bool run(const struct stand_in_test *test)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        run_in_child(test);
    int status = -1;
    if (child > 0)
        waitpid(child, &status, 0);
    bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == STATUS_SKIPPED;
    bool passed = skipped || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
    printf("%sok - %s::%s%s\n", passed ? "" : "not ", test->suite, test->name,
        skipped ? "  # SKIP test was skipped" : "");
    return passed;
}

int main(int argc, char **argv)
{
    const char *filter = "*";
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--filter") == 0)
            filter = argv[i + 1];
    bool passed = true;
    printf("TAP version 13\n");
    for (const struct stand_in_test *test = tests; test; test = test->next) {
        char name[512];
        snprintf(name, sizeof(name), "%s/%s", test->suite, test->name ? test->name : "");
        if (test->name && fnmatch(filter, name, 0) == 0)
            passed = run(test) && passed;
    }
    return passed ? 0 : 1;
}
