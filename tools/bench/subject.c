// SPDX-License-Identifier: Apache-2.0
// Runs guests by the public API and watches their console. Takes no time but that of first output.

#include "subject.h"
#include <string.h>

#define STOP_TRIES 100

static void keep(struct subject *subject, char byte)
{
    if (subject->skipping) {
        subject->skipping = byte != '\n';
        return;
    }
    if (subject->count == 0)
        subject->first_ns = now_ns();
    if (subject->count < SUBJECT_KEPT_BYTES)
        subject->head[subject->count] = byte;
    subject->tail[subject->count % SUBJECT_KEPT_BYTES] = byte;
    subject->count++;
    if (byte == '\n')
        pthread_cond_signal(&subject->more);
}

static bool has_record(const struct subject *subject)
{
    struct thaw_error ignored;
    uint32_t position;
    return recipe_read(subject->bench, subject->recipe, subject->held_from, subject->head,
               MIN(subject->count, (size_t)SUBJECT_KEPT_BYTES), &position, &ignored) != 0;
}

static void on_console(void *data, const char *bytes, size_t count)
{
    struct subject *subject = data;
    pthread_mutex_lock(&subject->lock);
    for (size_t i = 0; i < count; i++)
        keep(subject, bytes[i]);
    while ((subject->held_first && subject->count > 0) || (subject->held && has_record(subject))) {
        pthread_cond_broadcast(&subject->more);
        pthread_cond_wait(&subject->more, &subject->lock);
    }
    pthread_mutex_unlock(&subject->lock);
}

static void init(struct bench *bench, const struct recipe *recipe, struct subject *ret)
{
    pthread_condattr_t attr;
    *ret = (struct subject){.bench = bench, .recipe = recipe};
    pthread_mutex_init(&ret->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ret->more, &attr);
    pthread_condattr_destroy(&attr);
}

static void set_held(struct subject *subject, bool held)
{
    pthread_mutex_lock(&subject->lock);
    subject->held = held;
    pthread_cond_broadcast(&subject->more);
    pthread_mutex_unlock(&subject->lock);
}

void subject_hold(struct subject *subject, uint32_t from)
{
    subject->held_from = from;
    set_held(subject, true);
}

void subject_free(struct subject *subject)
{
    if (!subject->bench)
        return;
    subject_let_on(subject);
    set_held(subject, false);
    thaw_vm_free(subject->vm);
    pthread_cond_destroy(&subject->more);
    pthread_mutex_destroy(&subject->lock);
    *subject = (struct subject){0};
}

int subject_new(
    struct bench *bench, const struct recipe *recipe, struct subject *ret, struct thaw_error *error)
{
    init(bench, recipe, ret);
    const struct thaw_vm_options options = {
        .size = sizeof(options),
        .name = "subject",
        .mem_bytes = (uint64_t)recipe->mem_mib * MIB,
        .kernel_path = recipe->kernel,
        .initrd_path = recipe->initrd[0] ? recipe->initrd : NULL,
        .cmdline = recipe->cmdline,
        .console = on_console,
        .console_data = ret,
    };
    int r = thaw_vm_new(bench->env, &options, &ret->vm, error);
    if (r < 0)
        subject_free(ret);
    return r;
}

/* ret is initialised. */
static int restore(struct bench *bench, thaw_image *image,
    const struct thaw_restore_options *options, const char *ref, struct subject *ret,
    struct thaw_error *error)
{
    struct thaw_restore_options own = *options;
    own.size = sizeof(own);
    own.console = on_console;
    own.console_data = ret;
    int r = image ? thaw_image_restore(image, &own, &ret->vm, error)
                  : thaw_restore(bench->env, bench->store, ref, &own, &ret->vm, error);
    if (r < 0)
        subject_free(ret);
    return r;
}

int subject_restore(struct bench *bench, const struct recipe *recipe, thaw_image *image,
    const struct thaw_restore_options *options, const char *ref, struct subject *ret,
    struct thaw_error *error)
{
    init(bench, recipe, ret);
    return restore(bench, image, options, ref, ret, error);
}

static int restore_running(struct bench *bench, thaw_image *image,
    const struct thaw_restore_options *options, const char *ref, uint32_t from, struct subject *ret,
    struct thaw_error *error)
{
    struct thaw_restore_options running = *options;
    running.flags |= THAW_RESTORE_RESUME;
    subject_hold(ret, from);
    return restore(bench, image, &running, ref, ret, error);
}

int subject_restore_running(struct bench *bench, const struct recipe *recipe, thaw_image *image,
    const struct thaw_restore_options *options, const char *ref, uint32_t from, struct subject *ret,
    struct thaw_error *error)
{
    init(bench, recipe, ret);
    return restore_running(bench, image, options, ref, from, ret, error);
}

int subject_restore_held(struct bench *bench, const struct recipe *recipe, thaw_image *image,
    const struct thaw_restore_options *options, const char *ref, uint32_t from, struct subject *ret,
    struct thaw_error *error)
{
    init(bench, recipe, ret);
    ret->held_first = true;
    return restore_running(bench, image, options, ref, from, ret, error);
}

void subject_let_on(struct subject *subject)
{
    pthread_mutex_lock(&subject->lock);
    subject->held_first = false;
    pthread_cond_broadcast(&subject->more);
    pthread_mutex_unlock(&subject->lock);
}

void subject_forget(struct subject *subject)
{
    pthread_mutex_lock(&subject->lock);
    subject->skipping =
        subject->count > 0 && subject->tail[(subject->count - 1) % SUBJECT_KEPT_BYTES] != '\n';
    subject->count = 0;
    subject->first_ns = 0;
    pthread_mutex_unlock(&subject->lock);
}

static int ended(struct subject *subject, struct thaw_error *error)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    thaw_vm_get_info(subject->vm, &info);
    if (info.state != THAW_VM_STOPPED && info.state != THAW_VM_FAILED)
        return 0;
    return bench_fail(error, THAW_EGUEST, "the guest is %s: %s; it had printed '%.80s'",
        thaw_vm_state_name(info.state), info.detail, subject->head);
}

/* Until there is a byte, or, if ret_position is not NULL, a whole record. */
static int wait_locked(
    struct subject *subject, uint32_t from, uint32_t *ret_position, struct thaw_error *error)
{
    struct timespec when;
    clock_gettime(CLOCK_MONOTONIC, &when);
    time_t last = when.tv_sec + GUEST_TIMEOUT_MS / 1000;
    for (;;) {
        int r = subject->count > 0;
        if (r > 0 && ret_position)
            r = recipe_read(subject->bench, subject->recipe, from, subject->head,
                MIN(subject->count, (size_t)SUBJECT_KEPT_BYTES), ret_position, error);
        if (r == 0)
            r = ended(subject, error);
        if (r != 0)
            return MIN(r, 0);
        if (bench_interrupted)
            return bench_fail(error, -EINTR, "interrupted");
        clock_gettime(CLOCK_MONOTONIC, &when);
        if (when.tv_sec > last)
            return bench_fail(error, -ETIMEDOUT, "the guest prints nothing");
        when.tv_sec++;
        pthread_cond_timedwait(&subject->more, &subject->lock, &when);
    }
}

int subject_await(struct subject *subject, struct thaw_error *error)
{
    pthread_mutex_lock(&subject->lock);
    int r = wait_locked(subject, 0, NULL, error);
    pthread_mutex_unlock(&subject->lock);
    return r;
}

int subject_expect(
    struct subject *subject, uint32_t from, uint32_t *ret_position, struct thaw_error *error)
{
    uint32_t position = 0;
    pthread_mutex_lock(&subject->lock);
    int r = wait_locked(subject, from, &position, error);
    pthread_mutex_unlock(&subject->lock);
    if (r == 0 && ret_position)
        *ret_position = position;
    return r;
}

/* The port takes a few bytes at a time. */
int subject_type(struct subject *subject, const char *text, struct thaw_error *error)
{
    uint64_t end_ns = now_ns() + (uint64_t)GUEST_TIMEOUT_MS * 1000000;
    for (size_t done = 0, count = strlen(text); done < count;) {
        int n = thaw_vm_console_input(subject->vm, text + done, count - done, error);
        if (n < 0)
            return n;
        done += (size_t)n;
        if (n == 0 && now_ns() > end_ns)
            return bench_fail(error, -ETIMEDOUT, "the guest reads no input");
        if (n == 0)
            usleep(100);
    }
    return 0;
}

int subject_tell(struct subject *subject, const char *what, char *ret_answer, size_t bytes,
    struct thaw_error *error)
{
    char text[64];
    subject_forget(subject);
    snprintf(text, sizeof(text), "%s\n", what);
    int r = subject_type(subject, text, error);
    if (r == 0)
        r = subject_expect(subject, 0, NULL, error);
    if (r < 0)
        return r;
    pthread_mutex_lock(&subject->lock);
    size_t skip = strlen("churn: ");
    size_t count = MIN(subject->count, (size_t)SUBJECT_KEPT_BYTES);
    snprintf(ret_answer, bytes, "%.*s", (int)(count - skip), subject->head + skip);
    pthread_mutex_unlock(&subject->lock);
    ret_answer[strcspn(ret_answer, "\n")] = '\0';
    return 0;
}

int subject_position(struct subject *subject, uint32_t *ret_position, struct thaw_error *error)
{
    char bytes[SUBJECT_KEPT_BYTES];
    size_t count = MIN(subject->count, sizeof(bytes));
    for (size_t i = 0; i < count; i++)
        bytes[i] = subject->tail[(subject->count - count + i) % SUBJECT_KEPT_BYTES];
    int r = recipe_position(
        subject->bench, subject->recipe, subject->count, bytes, count, ret_position, error);
    return r == 0 ? bench_fail(error, THAW_EGUEST, "the guest has printed nothing yet") : MIN(r, 0);
}

/* Of a guest that prints lines, and is paused. */
static bool is_inside_line(const struct subject *subject)
{
    return subject->recipe->kind != RECIPE_BEAT &&
           (subject->count == 0 ||
               subject->tail[(subject->count - 1) % SUBJECT_KEPT_BYTES] != '\n');
}

int subject_snapshot(struct subject *subject, const struct thaw_snapshot_options *options,
    struct thaw_snapshot_result *ret, struct thaw_error *error)
{
    struct thaw_snapshot_options own = *options;
    struct thaw_job *job;
    own.size = sizeof(own);
    int r = thaw_vm_snapshot(subject->vm, subject->bench->store, &own, &job, error);
    if (r < 0)
        return r;
    r = thaw_job_wait(job, -1, error);
    ret->size = sizeof(*ret);
    if (r == 0)
        r = thaw_job_get_snapshot(job, ret);
    thaw_job_free(job);
    return r;
}

int subject_warm_up(struct subject *subject, struct thaw_error *error)
{
    int r = thaw_vm_start(subject->vm, error);
    return r < 0 ? r : subject_expect(subject, 0, NULL, error);
}

/* Right behind a record, so that a clone's first output is a whole one. The guest may be far into
 * the next before it is stopped, and is then sent on to its end. */
static int stop_behind_record(struct subject *subject, struct thaw_error *error)
{
    int r = thaw_vm_pause(subject->vm, error);
    for (unsigned i = 0; r == 0 && i < STOP_TRIES && is_inside_line(subject); i++) {
        subject_forget(subject);
        r = thaw_vm_resume(subject->vm, error);
        if (r == 0)
            r = subject_expect(subject, POSITION_UNKNOWN, NULL, error);
        if (r == 0)
            r = thaw_vm_pause(subject->vm, error);
    }
    return r == 0 && is_inside_line(subject)
               ? bench_fail(error, -EAGAIN, "the guest never stopped between two lines")
               : r;
}

int fixture_make(
    struct bench *bench, const struct recipe *recipe, struct fixture *ret, struct thaw_error *error)
{
    struct subject subject;
    *ret = (struct fixture){.recipe = *recipe};
    int r = subject_new(bench, &ret->recipe, &subject, error);
    if (r < 0)
        return r;
    r = subject_warm_up(&subject, error);
    if (r == 0)
        r = stop_behind_record(&subject, error);
    if (r == 0)
        r = subject_position(&subject, &ret->position, error);
    const struct thaw_snapshot_options options = {.name = recipe->name};
    if (r == 0)
        r = subject_snapshot(&subject, &options, &ret->result, error);
    subject_free(&subject);
    return r;
}

int fixture_record(struct bench *bench, const struct fixture *fixture, unsigned order,
    uint64_t *ret_bytes, struct thaw_error *error)
{
    struct thaw_recording recording = {.size = sizeof(recording)};
    const struct thaw_image_options how = {.size = sizeof(how), .flags = THAW_IMAGE_RECORD};
    const struct thaw_restore_options options = {.mode = THAW_RESTORE_LAZY};
    struct subject clone;
    thaw_image *image;
    char text[32], answer[128];
    int r = thaw_image_open(
        bench->env, bench->store, fixture->recipe.name, "thaw-bench", &how, &image, error);
    if (r < 0)
        return r;
    r = subject_restore(
        bench, &fixture->recipe, image, &options, fixture->recipe.name, &clone, error);
    snprintf(text, sizeof(text), "touch %u", order);
    if (r == 0) {
        r = thaw_vm_resume(clone.vm, error);
        if (r == 0)
            r = subject_tell(&clone, text, answer, sizeof(answer), error);
        if (r == 0)
            r = thaw_image_record_end(image, &recording, error);
        subject_free(&clone);
    }
    thaw_image_close(image);
    *ret_bytes = recording.bytes;
    return r;
}

int fixture_open_image(struct bench *bench, struct fixture *fixture, struct thaw_error *error)
{
    const struct thaw_image_options options = {.size = sizeof(options), .mode = THAW_RESTORE_EAGER};
    return thaw_image_open(bench->env, bench->store, fixture->recipe.name, "thaw-bench", &options,
        &fixture->image, error);
}

void fixture_close_image(struct fixture *fixture)
{
    thaw_image_close(fixture->image);
    fixture->image = NULL;
}
