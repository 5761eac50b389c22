// SPDX-License-Identifier: Apache-2.0
// The command line of thaw-bench, and the order of a run. Measures nothing itself.

#include "environment.h"
#include "process.h"
#include "report.h"
#include "rows.h"
#include "scratch.h"
#include "terminal.h"
#include <getopt.h>
#include <string.h>

#define EXIT_USAGE 2

volatile sig_atomic_t bench_interrupted;

static void on_signal(int number)
{
    (void)number;
    bench_interrupted = 1;
}

static int usage(FILE *out)
{
    fputs("usage: thaw-bench all [OPTIONS]       run every row\n"
          "       thaw-bench ROW... [OPTIONS]     run these rows\n"
          "       thaw-bench list                 say which rows there are\n"
          "\n"
          "  --quick        fewer samples and less data: under a minute, and less exact\n"
          "  --json FILE    write results with all samples\n"
          "  --html FILE    write a report with plots\n"
          "  --peer qemu    also measure QEMU's microvm, side by side; `all` does where there is\n"
          "                 QEMU. --peer none: not even then\n"
          "  --dir DIR      where the scratch directory is made (default: /var/tmp)\n"
          "  -h, --help     show this text\n"
          "\n"
          "Exit status: 0, 1 where something failed, 2 for a wrong command line. A target that is\n"
          "missed is no failure.\n",
        out);
    return out == stdout ? EXIT_SUCCESS : EXIT_USAGE;
}

static int list(void)
{
    for (size_t i = 0; i < row_count; i++)
        printf("%-10s %s\n", rows[i].name, rows[i].what);
    return EXIT_SUCCESS;
}

static void catch_signals(void)
{
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

/* Rows are independent: one that fails is reported, and the rest run. */
static int run_row(struct bench *bench, const struct row *row)
{
    struct thaw_error error = {0};
    uint64_t start_ns = now_ns();
    int r = row->run(bench, row->name, &error);
    terminal_progress_end();
    printf("\n%s: %s; took %.1f s", row->name, row->what, (double)(now_ns() - start_ns) / 1e9);
    terminal_print_row(&bench->results, row->name);
    if (r < 0 && !bench_interrupted) {
        fprintf(stderr, "thaw-bench: %s\n", error.message);
        results_skip(&bench->results, row->name, error.message);
    }
    return r;
}

static int write_reports(
    const struct bench *bench, const json_t *environment, struct thaw_error *error)
{
    int r = bench->options.json_path ? report_write_json(bench, environment, error) : 0;
    return r == 0 && bench->options.html_path ? report_write_html(bench, environment, error) : r;
}

static int run(struct bench *bench, const struct row *const *chosen, size_t count)
{
    struct thaw_error error = {0};
    int r = scratch_open(bench, &error), failed = 0;
    json_t *environment = r == 0 ? environment_describe(bench) : NULL;
    for (size_t i = 0; i < count && r == 0 && !bench_interrupted; i++)
        failed |= run_row(bench, chosen[i]);
    if (r == 0 && !bench_interrupted) {
        targets_add(bench);
        terminal_print_targets(&bench->results);
        r = write_reports(bench, environment, &error);
    }
    if (r < 0)
        fprintf(stderr, "thaw-bench: %s\n", error.message);
    if (bench_interrupted)
        fputs("thaw-bench: interrupted\n", stderr);
    if (bench->results.out_of_memory)
        fputs("thaw-bench: no memory for all results\n", stderr);
    json_decref(environment);
    scratch_close(bench);
    r |= failed || bench_interrupted || bench->results.out_of_memory;
    results_free(&bench->results);
    return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* -1: a wrong option. */
static int parse(int argc, char **argv, struct bench_options *ret)
{
    enum {
        QUICK = 256,
        JSON,
        HTML,
        PEER,
        DIR
    };
    static const struct option options[] = {
        {"quick", no_argument, NULL, QUICK},
        {"json", required_argument, NULL, JSON},
        {"html", required_argument, NULL, HTML},
        {"peer", required_argument, NULL, PEER},
        {"dir", required_argument, NULL, DIR},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h')
            exit(usage(stdout));
        else if (c == QUICK)
            ret->quick = true;
        else if (c == JSON)
            ret->json_path = optarg;
        else if (c == HTML)
            ret->html_path = optarg;
        else if (c == DIR)
            ret->dir = optarg;
        else if (c == PEER && (strcmp(optarg, "qemu") == 0 || strcmp(optarg, "none") == 0))
            ret->peer = strcmp(optarg, "qemu") == 0 ? PEER_QEMU : PEER_NONE;
        else
            return -1;
    }
    return 0;
}

/* Whether QEMU was asked for, or with everything else and can be had. */
static bool want_qemu(const struct bench_options *options, bool all)
{
    struct thaw_error ignored;
    pid_t pid;
    const char *const argv[] = {"qemu-system-x86_64", "--version", NULL};
    if (options->peer != PEER_DEFAULT || !all)
        return options->peer == PEER_QEMU;
    return scratch_spawn(argv, -1, NULL, &pid, &ignored) == 0 &&
           scratch_wait(pid, 0, argv[0], &ignored) == 0;
}

/* How many rows the names mean; -1: one is unknown. */
static int choose(char **names, int count, const struct row **ret)
{
    if (count == 1 && strcmp(names[0], "all") == 0) {
        for (size_t i = 0; i < row_count; i++)
            ret[i] = &rows[i];
        return (int)row_count;
    }
    if ((size_t)count > row_count)
        return -1;
    for (int i = 0; i < count; i++) {
        ret[i] = rows_find(names[i]);
        if (ret[i])
            continue;
        fprintf(stderr, "thaw-bench: no row '%s'; thaw-bench list shows them\n", names[i]);
        return -1;
    }
    return count;
}

int main(int argc, char **argv)
{
    static struct bench bench;
    if (argc == 5 && strcmp(argv[1], PROCESS_EMBED) == 0)
        return process_embed(&argv[2]);
    if (argc == 4 && strcmp(argv[1], PROCESS_RAWFILE) == 0)
        return process_rawfile(&argv[2]);
    const struct row **chosen = calloc(row_count, sizeof(const struct row *));
    bench.options.dir = "/var/tmp";
    if (!chosen)
        return EXIT_FAILURE;
    int status = EXIT_USAGE;
    if (parse(argc, argv, &bench.options) < 0 || optind == argc)
        usage(stderr);
    else if (argc - optind == 1 && strcmp(argv[optind], "list") == 0)
        status = list();
    else {
        int count = choose(&argv[optind], argc - optind, chosen);
        if (count > 0) {
            bench.peer_qemu = want_qemu(&bench.options, (size_t)count == row_count);
            catch_signals();
            status = run(&bench, chosen, (size_t)count);
        }
    }
    free(chosen);
    return status;
}
