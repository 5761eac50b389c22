// SPDX-License-Identifier: Apache-2.0
// Row `density`: what a clone takes of the host's memory once it has run and written its working
// set, and what a VM made by hand takes that does the same.

#include "floor.h"
#include "reaper.h"
#include "rows.h"
#include "subject.h"
#include "terminal.h"
#include <dirent.h>
#include <malloc.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MEM_MIB      256
#define DATA_MIB     16
#define WS_MIB       4
#define CLONES       500
#define CLONES_QUICK 40

/* A field of a file like /proc/meminfo, in MiB. */
static double read_mib(const char *path, const char *field)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, field, strlen(field)) == 0 &&
            sscanf(line + strlen(field), ": %llu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return (double)kib / KIB;
}

/* Pages of all memfds that this process holds: images belong to it whoever maps them. */
static double memfd_mib(void)
{
    double mib = 0;
    DIR *dir = opendir("/proc/self/fd");
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        char target[64];
        struct stat st;
        ssize_t count = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);
        if (count <= 0)
            continue;
        target[count] = '\0';
        if (strncmp(target, "/memfd:", 7) == 0 && fstatat(dirfd(dir), entry->d_name, &st, 0) == 0)
            mib += (double)st.st_blocks * 512 / MIB;
    }
    if (dir)
        closedir(dir);
    return mib;
}

/* All that is in use for the sake of no file, the kernel's own included. Not what is available:
 * that changes by more than clones take whenever the kernel trims caches. KernelStack is part of
 * VmallocUsed. */
static double system_mib(void)
{
    static const char *const fields[] = {
        "AnonPages", "Shmem", "SUnreclaim", "PageTables", "SecPageTables", "VmallocUsed", "Percpu"};
    double mib = 0;
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        mib += read_mib("/proc/meminfo", fields[i]);
    return mib + read_mib("/proc/meminfo", "SwapTotal") - read_mib("/proc/meminfo", "SwapFree");
}

/* `held` is what this process accounts for, private pages and images; `system` what more is in use
 * on the host, by the kernel and by others, too. */
struct usage {
    double pss_mib, held_mib, system_mib;
};

/* What the allocator keeps of what was freed is nobody's. */
static struct usage usage_now(void)
{
    malloc_trim(0);
    return (struct usage){
        .pss_mib = read_mib("/proc/self/smaps_rollup", "Pss"),
        .held_mib = read_mib("/proc/self/smaps_rollup", "Pss_Anon") + memfd_mib(),
        .system_mib = system_mib(),
    };
}

static void add_usage(
    struct bench *bench, const char *row, const char *mode, struct usage before, unsigned clones)
{
    struct usage after = usage_now();
    double count = clones;
    results_add(&bench->results, row, mode, "clones", "", count);
    results_add(
        &bench->results, row, mode, "PSS each", "MiB", (after.pss_mib - before.pss_mib) / count);
    results_add(
        &bench->results, row, mode, "held each", "MiB", (after.held_mib - before.held_mib) / count);
    results_add(&bench->results, row, mode, "system each", "MiB",
        (after.system_mib - before.system_mib) / count);
}

/* --- By thaw ---------------------------------------------------------------------------------- */

static int start_clone(struct bench *bench, const struct fixture *fixture, struct subject *clone,
    struct thaw_error *error)
{
    const struct recipe *recipe = &fixture->recipe;
    const struct thaw_restore_options options = {.mode = THAW_RESTORE_LAZY};
    int r = subject_restore_running(
        bench, recipe, fixture->image, &options, recipe->name, fixture->position, clone, error);
    return r < 0 ? r : subject_expect(clone, fixture->position, NULL, error);
}

static void end_clone(void *what)
{
    subject_free(what);
}

/* The image is part of what they take. */
static int measure_clones(struct bench *bench, const char *row, struct fixture *fixture,
    unsigned count, struct thaw_error *error)
{
    struct subject *clones _cleanup_free_ = calloc(count, sizeof(*clones));
    int r = clones ? 0 : bench_fail(error, -ENOMEM, "no memory for %u clones", count);
    struct reaper reaper = {.count = 0};
    unsigned made = 0;
    struct usage before = usage_now();
    if (r == 0)
        r = fixture_open_image(bench, fixture, error);
    for (; made < count && r == 0; made++) {
        terminal_progress(row, "clones", made, count);
        r = bench_interrupted ? bench_fail(error, -EINTR, "interrupted")
                              : start_clone(bench, fixture, &clones[made], error);
    }
    if (r == 0)
        add_usage(bench, row, "clones", before, count);
    for (unsigned i = 0; clones && i < made; i++)
        reaper_add(&reaper, end_clone, &clones[i]);
    reaper_wait(&reaper);
    return r;
}

/* --- By hand ---------------------------------------------------------------------------------- */

static int start_bare(struct bench *bench, const struct floor_image *image,
    const struct recipe *recipe, struct floor_vm *vm, struct thaw_error *error)
{
    struct floor_ran ran;
    uint8_t *ram = floor_map(NULL, image->bytes, image->memfd);
    if (!ram)
        return bench_errno(error, "mapping memory for a floor");
    int r = floor_vm_open(image->kvm_fd, ram, image->bytes, true, vm, error);
    if (r == 0)
        r = floor_state_restore(vm, &image->state, error);
    return r < 0 ? r : floor_vm_run(vm, bench, recipe, image->position, &ran, error);
}

static void end_bare(void *what)
{
    floor_shell_free(what);
}

static int measure_bare(struct bench *bench, const char *row, const struct recipe *recipe,
    unsigned count, struct thaw_error *error)
{
    struct floor_image *image = calloc(1, sizeof(*image));
    struct floor_vm *vms _cleanup_free_ = calloc(count, sizeof(*vms));
    int r = image && vms ? floor_image_make(bench, recipe, false, image, error)
                         : bench_fail(error, -ENOMEM, "no memory for %u VMs", count);
    struct reaper reaper = {.count = 0};
    unsigned made = 0;
    struct usage before = usage_now();
    for (; made < count && r == 0; made++) {
        terminal_progress(row, "bare VMs", made, count);
        r = bench_interrupted ? bench_fail(error, -EINTR, "interrupted")
                              : start_bare(bench, image, recipe, &vms[made], error);
    }
    if (r == 0)
        add_usage(bench, row, "bare VMs", before, count);
    for (unsigned i = 0; vms && i < made; i++)
        if (vms[i].run)
            reaper_add(&reaper, end_bare, &vms[i]);
    reaper_wait(&reaper);
    if (image)
        floor_image_free(image);
    free(image);
    return r;
}

int row_density(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct recipe recipe;
    struct fixture fixture = {.image = NULL};
    unsigned count = bench->options.quick ? CLONES_QUICK : CLONES;
    const struct memtouch_options options = {
        .mem_mib = MEM_MIB, .data_mib = DATA_MIB, .ws_mib = WS_MIB, .writes = true, .random = true};
    int r = recipe_memtouch(bench, "density", &options, &recipe, error);
    if (r == 0)
        r = fixture_make(bench, &recipe, &fixture, error);
    if (r == 0)
        r = measure_bare(bench, row, &recipe, count, error);
    if (r == 0)
        r = measure_clones(bench, row, &fixture, count, error);
    fixture_close_image(&fixture);
    return r;
}
