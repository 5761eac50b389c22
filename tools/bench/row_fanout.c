// SPDX-License-Identifier: Apache-2.0
// Row `fanout`: so many clones asked for at the same instant, and how long until all run. As
// many threads as CPUs serve the requests; what one waits for its turn counts.

#include "reaper.h"
#include "rows.h"
#include "subject.h"
#include <pthread.h>
#include <stdatomic.h>

#define MEM_MIB     128
#define CLONES_MAX  100
#define CLONES_FEW  4 /* are there in about a millisecond */
#define THREADS_MAX 64

enum gate {
    GATE_SHUT,
    GATE_OPEN,
    GATE_OFF, /* go home */
};

struct clone {
    struct subject subject;
    int result;
    struct thaw_error error;
};

struct fanout {
    struct bench *bench;
    struct fixture *fixtures; /* of one guest, at different times */
    unsigned fixture_count;
    thaw_pool *pool;
    pthread_mutex_t lock; /* guards gate */
    pthread_cond_t changed;
    enum gate gate;
    struct clone clones[CLONES_MAX];
};

struct fanout_case {
    struct fanout *fanout;
    unsigned count;
    bool different; /* snapshots, in turn; else all of the first */
    bool pooled;
};

/* One sample: who takes the next request. */
struct requests {
    const struct fanout_case *how;
    atomic_uint next;
};

static const struct fixture *fixture_of(const struct fanout_case *how, unsigned number)
{
    return &how->fanout->fixtures[how->different ? number % how->fanout->fixture_count : 0];
}

/* A clone that runs stands still until all do: how the host shares processors is not the question.
 */
static int start_clone(const struct fanout_case *how, unsigned number)
{
    struct fanout *fanout = how->fanout;
    struct clone *clone = &fanout->clones[number];
    const struct fixture *fixture = fixture_of(how, number);
    const struct thaw_restore_options options = {.pool = how->pooled ? fanout->pool : NULL};
    return subject_restore_held(fanout->bench, &fixture->recipe, fixture->image, &options,
        fixture->recipe.name, fixture->position, &clone->subject, &clone->error);
}

static void set_gate(struct fanout *fanout, enum gate gate)
{
    pthread_mutex_lock(&fanout->lock);
    fanout->gate = gate;
    pthread_cond_broadcast(&fanout->changed);
    pthread_mutex_unlock(&fanout->lock);
}

static void *serve(void *arg)
{
    struct requests *requests = arg;
    struct fanout *fanout = requests->how->fanout;
    pthread_mutex_lock(&fanout->lock);
    while (fanout->gate == GATE_SHUT)
        pthread_cond_wait(&fanout->changed, &fanout->lock);
    bool open = fanout->gate == GATE_OPEN;
    pthread_mutex_unlock(&fanout->lock);
    for (unsigned i; open && (i = atomic_fetch_add(&requests->next, 1)) < requests->how->count;)
        fanout->clones[i].result = start_clone(requests->how, i);
    return NULL;
}

static int serve_all(
    struct fanout *fanout, struct requests *requests, uint64_t *ret_start, struct thaw_error *error)
{
    pthread_t threads[THREADS_MAX];
    unsigned count = MIN(fanout->bench->cpus, (unsigned)THREADS_MAX), started = 0;
    int err = 0;
    set_gate(fanout, GATE_SHUT);
    while (started < count && err == 0)
        if ((err = pthread_create(&threads[started], NULL, serve, requests)) == 0)
            started++;
    *ret_start = now_ns();
    set_gate(fanout, err == 0 ? GATE_OPEN : GATE_OFF);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    errno = err;
    return err == 0 ? 0 : bench_errno(error, "starting %u threads", count);
}

static int await_all(const struct fanout_case *how, struct thaw_error *error)
{
    struct clone *clones = how->fanout->clones;
    int r = 0;
    for (unsigned i = 0; i < how->count && r == 0; i++)
        r = clones[i].result < 0 ? bench_fail(error, clones[i].result, "clone %u: %.400s", i,
                                       clones[i].error.message)
                                 : subject_await(&clones[i].subject, error);
    return r;
}

static int prove_all(const struct fanout_case *how, struct thaw_error *error)
{
    int r = 0;
    for (unsigned i = 0; i < how->count && r == 0; i++) {
        struct subject *subject = &how->fanout->clones[i].subject;
        subject_let_on(subject);
        r = subject_expect(subject, fixture_of(how, i)->position, NULL, error);
    }
    return r;
}

static void add_results(struct bench *bench, const char *row, const char *mode,
    const struct fanout_case *how, uint64_t start_ns, uint64_t used_cpu_ns)
{
    struct results *results = &bench->results;
    uint64_t last_ns = 0;
    for (unsigned i = 0; i < how->count; i++) {
        uint64_t first_ns = how->fanout->clones[i].subject.first_ns;
        results_add(results, row, mode, "each", "us", (double)(first_ns - start_ns) / 1e3);
        last_ns = MAX(last_ns, first_ns);
    }
    results_add(results, row, mode, "all run", "us", (double)(last_ns - start_ns) / 1e3);
    results_add(results, row, mode, "cpu", "us", (double)used_cpu_ns / 1e3);
}

static void end_clone(void *what)
{
    subject_free(what);
}

static void end_clones(const struct fanout_case *how)
{
    struct reaper reaper = {.count = 0};
    for (unsigned i = 0; i < how->count; i++)
        reaper_add(&reaper, end_clone, &how->fanout->clones[i].subject);
    reaper_wait(&reaper);
}

static int sample_fanout(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct fanout_case *how = mode->data;
    struct fanout *fanout = how->fanout;
    struct requests requests = {.how = how};
    uint64_t start_ns = 0;
    int r = thaw_pool_set_target(fanout->pool, how->pooled ? how->count : 0, error);
    if (r == 0)
        r = thaw_pool_wait(fanout->pool, GUEST_TIMEOUT_MS, error);
    /* The pool refills itself meanwhile, as it would for anybody. */
    uint64_t cpu = cpu_ns();
    if (r == 0)
        r = serve_all(fanout, &requests, &start_ns, error);
    if (r == 0)
        r = await_all(how, error);
    cpu = cpu_ns() - cpu;
    if (r == 0)
        r = prove_all(how, error);
    if (r == 0)
        add_results(bench, row, mode->name, how, start_ns, cpu);
    end_clones(how);
    return r;
}

/* --- Making ----------------------------------------------------------------------------------- */

/* Snapshots of one running guest, a little further on each time. */
static int make_fixtures(struct bench *bench, struct fanout *fanout, const struct recipe *recipe,
    struct subject *subject, struct thaw_error *error)
{
    int r = subject_warm_up(subject, error);
    for (unsigned i = 0; i < fanout->fixture_count && r == 0; i++) {
        struct fixture *fixture = &fanout->fixtures[i];
        fixture->recipe = *recipe;
        snprintf(fixture->recipe.name, sizeof(fixture->recipe.name), "fanout-%u", i);
        const struct thaw_snapshot_options options = {
            .name = fixture->recipe.name, .flags = THAW_SNAPSHOT_FULL};
        r = thaw_vm_pause(subject->vm, error);
        if (r == 0)
            r = subject_position(subject, &fixture->position, error);
        if (r == 0)
            r = subject_snapshot(subject, &options, &fixture->result, error);
        if (r == 0)
            r = fixture_open_image(bench, fixture, error);
        if (r == 0)
            r = thaw_vm_resume(subject->vm, error);
    }
    return r;
}

static int prepare(struct bench *bench, struct fanout *fanout, struct thaw_error *error)
{
    struct recipe recipe;
    struct subject subject;
    const struct thaw_pool_options options = {
        .size = sizeof(options), .mem_bytes = (uint64_t)MEM_MIB * MIB, .target = 1};
    fanout->fixture_count = bench->options.quick ? 1 : CLONES_MAX;
    fanout->fixtures = calloc(fanout->fixture_count, sizeof(*fanout->fixtures));
    if (!fanout->fixtures)
        return bench_fail(error, -ENOMEM, "no memory for snapshots");
    int r = recipe_beat(bench, MEM_MIB, &recipe, error);
    if (r == 0)
        r = thaw_pool_new(bench->env, &options, &fanout->pool, error);
    if (r == 0)
        r = subject_new(bench, &recipe, &subject, error);
    if (r < 0)
        return r;
    r = make_fixtures(bench, fanout, &recipe, &subject, error);
    subject_free(&subject);
    return r;
}

#define MODES_MAX 12

/* Those of few clones, or of many. */
static size_t fill_modes(struct fanout *fanout, bool few, struct fanout_case *cases,
    struct mode *modes, char (*names)[48], bool quick)
{
    static const unsigned counts[] = {1, 4, 16, 64, CLONES_MAX};
    static const char *const kinds[] = {"", ", different snapshots", ", new VMs"};
    size_t count = 0;
    for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++)
        for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
            bool most = counts[i] == CLONES_MAX;
            if ((counts[i] <= CLONES_FEW) != few || (kind == 1 && counts[i] == 1) ||
                (kind == 2 && !most) || (quick && (kind > 0 || (!few && !most))))
                continue;
            cases[count] = (struct fanout_case){fanout, counts[i], kind == 1, kind != 2};
            snprintf(names[count], sizeof(names[0]), "%u at once%s", counts[i], kinds[kind]);
            modes[count] = (struct mode){names[count], sample_fanout, &cases[count]};
            count++;
        }
    return count;
}

static int run_modes(struct bench *bench, const char *row, struct fanout *fanout, bool few,
    const struct rounds *rounds, struct thaw_error *error)
{
    struct fanout_case cases[MODES_MAX];
    struct mode modes[MODES_MAX];
    char names[MODES_MAX][48];
    size_t count = fill_modes(fanout, few, cases, modes, names, bench->options.quick);
    return rows_run_modes(bench, row, modes, count, rounds, error);
}

int row_fanout(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct fanout *fanout = calloc(1, sizeof(*fanout));
    const struct rounds few = {.samples = 1000, .quick_samples = 20, .quick_s = 2};
    const struct rounds many = {.samples = 100, .quick_samples = 20, .quick_s = 8};
    if (!fanout)
        return bench_fail(error, -ENOMEM, "no memory for row %s", row);
    fanout->bench = bench;
    pthread_mutex_init(&fanout->lock, NULL);
    pthread_cond_init(&fanout->changed, NULL);
    int r = prepare(bench, fanout, error);
    if (r == 0)
        r = run_modes(bench, row, fanout, true, &few, error);
    if (r == 0)
        r = run_modes(bench, row, fanout, false, &many, error);
    thaw_pool_free(fanout->pool);
    for (unsigned i = 0; fanout->fixtures && i < fanout->fixture_count; i++)
        fixture_close_image(&fanout->fixtures[i]);
    pthread_cond_destroy(&fanout->changed);
    pthread_mutex_destroy(&fanout->lock);
    free(fanout->fixtures);
    free(fanout);
    return r;
}
