// SPDX-License-Identifier: Apache-2.0
// Row `fanout`: so many clones of one snapshot asked for at the same instant, each by a thread, and
// how long until all have proved that they run.

#include "rows.h"
#include "subject.h"
#include "terminal.h"
#include <pthread.h>

#define MEM_MIB    128
#define CLONES_MAX 100

static const unsigned counts[] = {1, 4, 16, 64, CLONES_MAX};

enum gate {
    GATE_SHUT,
    GATE_OPEN,
    GATE_OFF, /* go home */
};

struct fanout {
    struct bench *bench;
    struct fixture fixture;
    enum thaw_restore_mode mode;
    pthread_mutex_t lock; /* guards gate */
    pthread_cond_t changed;
    enum gate gate;
};

struct clone {
    struct fanout *fanout;
    pthread_t thread;
    struct subject subject;
    uint64_t first_ns;
    int result;
    struct thaw_error error;
};

/* A clone that has proved itself rests, as it would not matter who runs it then. */
static int run_clone(struct clone *clone)
{
    const struct fanout *fanout = clone->fanout;
    const struct recipe *recipe = &fanout->fixture.recipe;
    const struct thaw_restore_options options = {.mode = fanout->mode};
    int r = subject_restore(
        fanout->bench, recipe, NULL, &options, recipe->name, &clone->subject, &clone->error);
    if (r == 0)
        r = thaw_vm_resume(clone->subject.vm, &clone->error);
    if (r == 0)
        r = subject_expect(&clone->subject, fanout->fixture.position, NULL, &clone->error);
    if (r == 0)
        r = thaw_vm_pause(clone->subject.vm, &clone->error);
    clone->first_ns = clone->subject.first_ns;
    return r;
}

static void set_gate(struct fanout *fanout, enum gate gate)
{
    pthread_mutex_lock(&fanout->lock);
    fanout->gate = gate;
    pthread_cond_broadcast(&fanout->changed);
    pthread_mutex_unlock(&fanout->lock);
}

static void *clone_thread(void *arg)
{
    struct clone *clone = arg;
    struct fanout *fanout = clone->fanout;
    pthread_mutex_lock(&fanout->lock);
    while (fanout->gate == GATE_SHUT)
        pthread_cond_wait(&fanout->changed, &fanout->lock);
    bool open = fanout->gate == GATE_OPEN;
    pthread_mutex_unlock(&fanout->lock);
    if (open)
        clone->result = run_clone(clone);
    return NULL;
}

static int start_threads(
    struct fanout *fanout, struct clone *clones, unsigned count, struct thaw_error *error)
{
    set_gate(fanout, GATE_SHUT);
    for (unsigned i = 0; i < count; i++) {
        clones[i] = (struct clone){.fanout = fanout};
        int err = pthread_create(&clones[i].thread, NULL, clone_thread, &clones[i]);
        if (err == 0)
            continue;
        set_gate(fanout, GATE_OFF);
        while (i-- > 0)
            pthread_join(clones[i].thread, NULL);
        errno = err;
        return bench_errno(error, "starting %u threads", count);
    }
    return 0;
}

static int fan_out(struct fanout *fanout, const char *row, unsigned count, const char *name,
    struct thaw_error *error)
{
    static struct clone clones[CLONES_MAX];
    struct results *results = &fanout->bench->results;
    uint64_t last_ns = 0, cpu = cpu_ns();
    int r = start_threads(fanout, clones, count, error);
    if (r < 0)
        return r;
    uint64_t start_ns = now_ns();
    set_gate(fanout, GATE_OPEN);
    for (unsigned i = 0; i < count; i++) {
        pthread_join(clones[i].thread, NULL);
        last_ns = MAX(last_ns, clones[i].first_ns);
        if (clones[i].result < 0 && r == 0)
            r = bench_fail(error, clones[i].result, "clone %u: %s", i, clones[i].error.message);
    }
    cpu = cpu_ns() - cpu;
    for (unsigned i = 0; i < count && r == 0; i++)
        results_add(
            results, row, name, "each", "us", (double)(clones[i].first_ns - start_ns) / 1e3);
    if (r == 0) {
        results_add(results, row, name, "all run", "us", (double)(last_ns - start_ns) / 1e3);
        results_add(results, row, name, "cpu", "us", (double)cpu / 1e3);
    }
    for (unsigned i = 0; i < count; i++)
        subject_free(&clones[i].subject);
    return r;
}

struct fanout_case {
    struct fanout *fanout;
    unsigned count;
};

static int sample_fanout(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct fanout_case *how = mode->data;
    (void)bench;
    return fan_out(how->fanout, row, how->count, mode->name, error);
}

int row_fanout(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct recipe recipe;
    struct fanout fanout = {
        .bench = bench,
        .mode = THAW_RESTORE_LAZY,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
    };
    struct fanout_case cases[ARRAY_SIZE(counts)];
    struct mode modes[ARRAY_SIZE(counts)];
    char names[ARRAY_SIZE(counts)][32];
    const struct rounds rounds = {.samples = 20, .quick_samples = 2, .quick_s = 4};
    int r = recipe_beat(bench, MEM_MIB, &recipe, error);
    snprintf(recipe.name, sizeof(recipe.name), "fanout");
    if (r == 0)
        r = fixture_make(bench, &recipe, &fanout.fixture, error);
    for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
        cases[i] = (struct fanout_case){&fanout, counts[i]};
        snprintf(names[i], sizeof(names[i]), "%u at once", counts[i]);
        modes[i] = (struct mode){names[i], sample_fanout, &cases[i]};
    }
    return r < 0 ? r : rows_run_modes(bench, row, modes, ARRAY_SIZE(modes), &rounds, error);
}
