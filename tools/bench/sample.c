// SPDX-License-Identifier: Apache-2.0
// One restore, by thaw or by hand, from request to a guest that has proved itself. Which ones are
// compared is the rows' choice.

#include "sample.h"
#include "scratch.h"
#include <fcntl.h>
#include <sys/mman.h>

struct meter meter_start(void)
{
    struct meter meter = {.cpu_ns = cpu_ns(), .read_bytes = scratch_bytes_read()};
    meter.start_ns = now_ns();
    return meter;
}

void meter_add(struct bench *bench, const char *row, const char *mode, const struct meter *meter,
    uint64_t applied_ns, uint64_t first_ns)
{
    struct results *results = &bench->results;
    double cpu = (double)(cpu_ns() - meter->cpu_ns) / 1e3;
    double read = (double)(scratch_bytes_read() - meter->read_bytes) / MIB;
    results_add(results, row, mode, "applied", "us", (double)(applied_ns - meter->start_ns) / 1e3);
    results_add(
        results, row, mode, "first output", "us", (double)(first_ns - meter->start_ns) / 1e3);
    results_add(results, row, mode, "cpu", "us", cpu);
    results_add(results, row, mode, "read", "MiB", read);
}

/* --- By thaw ---------------------------------------------------------------------------------- */

static int prepare_store(const struct bench *bench, bool cold, struct thaw_error *error)
{
    char path[PATH_BYTES];
    int r = scratch_path(bench, "store", path, sizeof(path), error);
    if (r == 0 && cold)
        return scratch_drop_cache(path, error);
    if (r == 0)
        scratch_warm_cache(path);
    return r;
}

int sample_thaw(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct thaw_case *how = mode->data;
    const struct thaw_restore_options options = {.mode = how->mode};
    const struct recipe *recipe = &how->fixture->recipe;
    struct subject subject;
    int r = prepare_store(bench, how->cold, error);
    if (r < 0)
        return r;
    struct meter meter = meter_start();
    r = subject_restore(bench, recipe, &options, recipe->name, &subject, error);
    if (r < 0)
        return r;
    uint64_t applied_ns = now_ns();
    r = thaw_vm_resume(subject.vm, error);
    if (r == 0)
        r = subject_expect(&subject, how->fixture->position, NULL, error);
    if (r == 0)
        r = thaw_vm_stop(subject.vm, error);
    if (r == 0)
        meter_add(bench, row, mode->name, &meter, applied_ns, subject.first_ns);
    subject_free(&subject);
    return r;
}

/* --- By hand ---------------------------------------------------------------------------------- */

/* With a VM that has everything but memory and state. */
static int go_on(struct bench *bench, const char *row, const struct mode *mode,
    const struct meter *meter, struct floor_vm *vm, struct thaw_error *error)
{
    const struct floor_case *how = mode->data;
    uint64_t first_ns = 0;
    uint32_t position;
    int r = floor_state_restore(vm, &how->image->state, error);
    if (r < 0)
        return r;
    uint64_t applied_ns = now_ns();
    r = floor_vm_run(vm, bench, how->recipe, how->image->position, &first_ns, &position, error);
    if (r == 0)
        meter_add(bench, row, mode->name, meter, applied_ns, first_ns);
    return r;
}

static int sample_new(struct bench *bench, const char *row, const struct mode *mode, int file,
    struct thaw_error *error)
{
    const struct floor_case *how = mode->data;
    const struct floor_image *image = how->image;
    struct floor_vm vm;
    struct meter meter = meter_start();
    uint8_t *ram = floor_map(NULL, image->bytes, file);
    if (!ram)
        return bench_errno(error, "mapping memory for a floor");
    int r = floor_vm_open(image->kvm_fd, ram, image->bytes, false, &vm, error);
    if (r == 0)
        r = go_on(bench, row, mode, &meter, &vm, error);
    floor_vm_close(&vm);
    munmap(ram, image->bytes);
    return r;
}

static int sample_shell(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct floor_case *how = mode->data;
    const struct floor_image *image = how->image;
    struct floor_vm vm;
    void *ram =
        mmap(NULL, image->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ram == MAP_FAILED)
        return bench_errno(error, "reserving memory for a floor");
    int r = floor_vm_open(image->kvm_fd, ram, image->bytes, false, &vm, error);
    if (r == 0) {
        struct meter meter = meter_start();
        r = floor_map(ram, image->bytes, image->memfd)
                ? go_on(bench, row, mode, &meter, &vm, error)
                : bench_errno(error, "mapping memory for a floor");
    }
    floor_vm_close(&vm);
    munmap(ram, image->bytes);
    return r;
}

int sample_floor(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct floor_case *how = mode->data;
    if (how->kind == FLOOR_SHELL)
        return sample_shell(bench, row, mode, error);
    if (how->kind == FLOOR_NEW)
        return sample_new(bench, row, mode, how->image->memfd, error);
    int r = how->cold ? scratch_drop_cache(how->image->path, error) : 0;
    if (!how->cold)
        scratch_warm_cache(how->image->path);
    _cleanup_close_ int file = open(how->image->path, O_RDONLY | O_CLOEXEC);
    if (r == 0 && file < 0)
        r = bench_errno(error, "opening %s", how->image->path);
    return r < 0 ? r : sample_new(bench, row, mode, file, error);
}
