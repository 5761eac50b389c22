// SPDX-License-Identifier: Apache-2.0
// One restore, by thaw or by hand, from request to a guest that has proved itself. Which ones are
// compared is the rows' choice.

#include "sample.h"
#include "reaper.h"
#include "scratch.h"
#include <fcntl.h>
#include <sys/mman.h>

/* --- What both note --------------------------------------------------------------------------- */

struct timeline timeline_start(void)
{
    stay_awake();
    struct timeline timeline = {.cpu_ns = cpu_ns(), .read_bytes = scratch_bytes_read()};
    timeline.start_ns = now_ns();
    return timeline;
}

static bool touches(const struct recipe *recipe)
{
    return recipe->kind == RECIPE_MEMTOUCH || recipe->kind == RECIPE_CHURN;
}

static void add_phases(
    struct bench *bench, const char *row, const char *mode, const struct timeline *timeline)
{
    const struct {
        const char *metric;
        uint64_t end_ns;
    } phases[] = {
        {"phase: open", timeline->opened_ns},
        {"phase: VM", timeline->shell_ns},
        {"phase: memory", timeline->memory_ns},
        {"phase: state", timeline->state_ns},
        {"phase: resume", timeline->run_ns},
        {"phase: guest", timeline->output_ns},
    };
    uint64_t begin_ns = timeline->start_ns;
    for (size_t i = 0; i < ARRAY_SIZE(phases); i++) {
        if (phases[i].end_ns < begin_ns)
            continue;
        results_add(&bench->results, row, mode, phases[i].metric, "us",
            (double)(phases[i].end_ns - begin_ns) / 1e3);
        begin_ns = phases[i].end_ns;
    }
}

void timeline_add(struct bench *bench, const char *row, const char *mode,
    const struct recipe *recipe, const struct timeline *timeline)
{
    struct results *results = &bench->results;
    double cpu = (double)(cpu_ns() - timeline->cpu_ns) / 1e3;
    double read = (double)(scratch_bytes_read() - timeline->read_bytes) / MIB;
    const struct {
        const char *metric;
        uint64_t at_ns;
    } endpoints[] = {
        {"applied", timeline->state_ns},
        {"first run", timeline->run_ns},
        {"first exit", timeline->exit_ns},
        {"first output", timeline->output_ns},
        {"touched", touches(recipe) ? timeline->output_ns : 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(endpoints); i++)
        if (endpoints[i].at_ns)
            results_add(results, row, mode, endpoints[i].metric, "us",
                (double)(endpoints[i].at_ns - timeline->start_ns) / 1e3);
    results_add(results, row, mode, "cpu", "us", cpu);
    results_add(results, row, mode, "read", "MiB", read);
    add_phases(bench, row, mode, timeline);
}

/* Guests that are told what to do are told before they run. */
static bool is_told(const struct recipe *recipe)
{
    return recipe->kind == RECIPE_CHURN;
}

struct order order_next(struct bench *bench, const struct recipe *recipe)
{
    struct order order = {.position = POSITION_UNKNOWN};
    if (!is_told(recipe))
        return order;
    order.position = ORDER_RECORDED + ++bench->orders;
    snprintf(order.text, sizeof(order.text), "touch %u\n", order.position);
    return order;
}

static int check_order(const struct order *order, uint32_t position, struct thaw_error *error)
{
    return order->text[0] && position != order->position
               ? bench_fail(error, THAW_EGUEST, "the guest did something else than it was told")
               : 0;
}

/* A file system that holds its files in memory has no cold start. */
static int check_cold(bool cold, const struct timeline *timeline, struct thaw_error *error)
{
    return cold && scratch_bytes_read() == timeline->read_bytes
               ? bench_fail(error, -EIO, "a cold start read nothing from storage")
               : 0;
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

static void read_timing(const struct subject *subject, struct timeline *timeline)
{
    struct thaw_vm_timing timing = {.size = sizeof(timing)};
    thaw_vm_get_timing(subject->vm, &timing);
    timeline->opened_ns = timing.opened_ns;
    timeline->shell_ns = timing.shell_ns;
    timeline->memory_ns = timing.memory_ns;
    timeline->state_ns = timing.state_ns;
    timeline->run_ns = timing.first_run_ns;
    timeline->exit_ns = timing.first_exit_ns;
    timeline->output_ns = subject->first_ns;
}

static void add_working_set(struct bench *bench, const char *row, const char *mode,
    const struct recipe *recipe, thaw_image *image)
{
    struct thaw_image_info info = {.size = sizeof(info)};
    double pages = (double)recipe->ws_mib * PAGES_PER_MIB;
    thaw_image_get_info(image, &info);
    results_add(
        &bench->results, row, mode, "by demand", "%", 100 * (double)info.demand_pages / pages);
    results_add(&bench->results, row, mode, "prefetched", "MiB",
        (double)info.prefetched_pages / PAGES_PER_MIB);
    results_add(&bench->results, row, mode, "waited for working set", "us",
        (double)info.prefetch_wait_ns / 1e3);
}

/* From the fixture's image, or one opened here: that is part of the request. */
static int open_and_restore(struct bench *bench, const struct thaw_case *how, struct subject *ret,
    thaw_image **ret_image, struct thaw_error *error)
{
    const struct recipe *recipe = &how->fixture->recipe;
    const struct thaw_restore_options options = {
        .mode = how->mode, .flags = how->flags, .pool = how->pool};
    const struct thaw_image_options as_image = {.size = sizeof(as_image), .mode = how->mode};
    thaw_image *image = how->image ? how->fixture->image : NULL;
    int r = how->working_set ? thaw_image_open(bench->env, bench->store, recipe->name, "thaw-bench",
                                   &as_image, &image, error)
                             : 0;
    if (r == 0)
        r = is_told(recipe)
                ? subject_restore(bench, recipe, image, &options, recipe->name, ret, error)
                : subject_restore_running(bench, recipe, image, &options, recipe->name,
                      how->fixture->position, ret, error);
    if (how->working_set && r < 0)
        thaw_image_close(image);
    else
        *ret_image = how->working_set ? image : NULL;
    return r;
}

static int run_clone(struct bench *bench, const struct thaw_case *how, struct subject *subject,
    struct thaw_error *error)
{
    struct order order = order_next(bench, &how->fixture->recipe);
    uint32_t position;
    int r = 0;
    if (order.text[0]) {
        subject_hold(subject, how->fixture->position);
        r = subject_type(subject, order.text, error);
        if (r == 0)
            r = thaw_vm_resume(subject->vm, error);
    }
    if (r == 0)
        r = subject_expect(subject, how->fixture->position, &position, error);
    return r < 0 ? r : check_order(&order, position, error);
}

int sample_thaw_keep(struct bench *bench, const char *row, const char *mode,
    const struct thaw_case *how, struct subject *ret, struct thaw_error *error)
{
    const struct recipe *recipe = &how->fixture->recipe;
    thaw_image *image = NULL;
    struct timeline timeline = timeline_start();
    int r = open_and_restore(bench, how, ret, &image, error);
    if (r < 0)
        return r;
    r = run_clone(bench, how, ret, error);
    if (r == 0)
        r = check_cold(how->cold, &timeline, error);
    if (r == 0) {
        read_timing(ret, &timeline);
        timeline_add(bench, row, mode, recipe, &timeline);
        if (image)
            add_working_set(bench, row, mode, recipe, image);
    } else
        subject_free(ret);
    thaw_image_close(image);
    return r;
}

static void end_subject(void *what)
{
    subject_free(what);
    free(what);
}

/* A clone of a complete image does nothing more in the background, so it may wait for its end. */
int sample_thaw(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct thaw_case *how = mode->data;
    struct subject *subject = calloc(1, sizeof(*subject));
    int r = subject ? 0 : bench_fail(error, -ENOMEM, "no memory for a clone");
    if (r == 0 && how->pool)
        r = thaw_pool_wait(how->pool, GUEST_TIMEOUT_MS, error);
    if (r == 0 && !how->image)
        r = prepare_store(bench, how->cold, error);
    if (r == 0)
        r = sample_thaw_keep(bench, row, mode->name, how, subject, error);
    if (r == 0 && how->image)
        reaper_later(bench, end_subject, subject);
    else if (r == 0)
        end_subject(subject);
    else
        free(subject);
    return r;
}

/* --- By hand ---------------------------------------------------------------------------------- */

/* With a VM that has everything but state. */
static int go_on(struct bench *bench, const char *row, const char *mode,
    const struct floor_case *how, struct timeline *timeline, struct floor_vm *vm,
    struct thaw_error *error)
{
    struct order order = order_next(bench, how->recipe);
    struct floor_ran ran = {0};
    int r = floor_state_restore(vm, &how->image->state, error);
    if (r < 0)
        return r;
    timeline->state_ns = now_ns();
    vm->input = order.text;
    r = floor_vm_run(vm, bench, how->recipe, how->image->position, &ran, error);
    vm->input = NULL;
    if (r == 0)
        r = check_order(&order, ran.position, error);
    if (r == 0)
        r = check_cold(how->cold, timeline, error);
    if (r < 0)
        return r;
    timeline->run_ns = ran.run_ns;
    timeline->exit_ns = ran.exit_ns;
    timeline->output_ns = ran.output_ns;
    timeline_add(bench, row, mode, how->recipe, timeline);
    return 0;
}

static void end_floor(void *what)
{
    floor_shell_free(what);
    free(what);
}

static struct floor_vm *new_floor_vm(struct thaw_error *error)
{
    struct floor_vm *vm = malloc(sizeof(*vm));
    if (!vm)
        bench_fail(error, -ENOMEM, "no memory for a VM by hand");
    else
        *vm = (struct floor_vm){.fd = -1, .vcpu_fd = -1};
    return vm;
}

static int sample_new(struct bench *bench, const char *row, const char *mode,
    const struct floor_case *how, int file, struct thaw_error *error)
{
    const struct floor_image *image = how->image;
    struct floor_vm *vm = new_floor_vm(error);
    if (!vm)
        return error->code;
    struct timeline timeline = timeline_start();
    uint8_t *ram = floor_map(NULL, image->bytes, file);
    int r = ram ? floor_vm_open(image->kvm_fd, ram, image->bytes, false, vm, error)
                : bench_errno(error, "mapping memory for a floor");
    timeline.shell_ns = now_ns();
    if (r == 0)
        r = go_on(bench, row, mode, how, &timeline, vm, error);
    vm->ram = ram;
    vm->ram_bytes = image->bytes;
    reaper_later(bench, end_floor, vm);
    return r;
}

int sample_floor_shell(struct bench *bench, const char *row, const char *mode,
    const struct floor_case *how, struct floor_vm *shell, struct thaw_error *error)
{
    struct timeline timeline = timeline_start();
    if (!floor_map(shell->ram, shell->ram_bytes, how->image->memfd))
        return bench_errno(error, "mapping memory for a floor");
    timeline.memory_ns = now_ns();
    return go_on(bench, row, mode, how, &timeline, shell, error);
}

static int sample_shell(struct bench *bench, const char *row, const char *mode,
    const struct floor_case *how, struct thaw_error *error)
{
    struct floor_vm *shell = new_floor_vm(error);
    if (!shell)
        return error->code;
    int r = floor_shell_make(how->image, shell, error);
    if (r == 0)
        r = sample_floor_shell(bench, row, mode, how, shell, error);
    reaper_later(bench, end_floor, shell);
    return r;
}

int sample_floor(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct floor_case *how = mode->data;
    if (how->kind == FLOOR_SHELL)
        return sample_shell(bench, row, mode->name, how, error);
    if (how->kind == FLOOR_NEW)
        return sample_new(bench, row, mode->name, how, how->image->memfd, error);
    int r = 0;
    if (how->cold) {
        reaper_end_round(bench); /* what a VM has mapped is not dropped */
        r = scratch_drop_cache(how->image->path, error);
    } else
        scratch_warm_cache(how->image->path);
    _cleanup_close_ int file = open(how->image->path, O_RDONLY | O_CLOEXEC);
    if (r == 0 && file < 0)
        r = bench_errno(error, "opening %s", how->image->path);
    return r < 0 ? r : sample_new(bench, row, mode->name, how, file, error);
}
