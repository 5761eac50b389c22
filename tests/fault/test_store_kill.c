// SPDX-License-Identifier: Apache-2.0
// Every system call of every operation on a store fails once, or is the last that its process
// makes; and processes that work on one store are killed at random. Afterwards a snapshot is there
// whole or not at all, and nothing is left over.

#include "store_fixture.h"
#include "store_wrap.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static char root[64];

/* What was asked for, and what is to be seen after it: `done` if it was said to have succeeded. */
struct scenario {
    const char *name;
    void (*prepare)(struct thaw_store *store);
    int (*act)(void);
    void (*check)(struct thaw_store *store, enum wrap_mode mode, bool done);
};

/* In memory where possible: nothing here needs a disk, and fsync does not reach it anyway. */
static void make_root(void)
{
    fixture_directory(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", root);
}

static struct thaw_store *open_quietly(void)
{
    struct thaw_store_options options = {
        .size = sizeof(options), .path = root, .flags = THAW_STORE_CREATE};
    struct thaw_store *store = NULL;
    thaw_store_open(&options, &store, NULL);
    return store;
}

static size_t count_state(struct thaw_store *store, enum thaw_snapshot_state state)
{
    struct thaw_snapshot_query query = {.size = sizeof(query), .states = 1u << state};
    thaw_snapshot_list *list;
    cr_assert_eq(thaw_store_list(store, &query, &list, NULL), 0);
    size_t count = thaw_snapshot_list_total(list);
    thaw_snapshot_list_free(list);
    return count;
}

/* What must be so after any recovery, whatever happened before. */
static void check_consistent(struct thaw_store *store, const char *what)
{
    struct thaw_error error = {0};
    thaw_snapshot_list *list;
    cr_assert_eq(thaw_store_recover(store, NULL, &error), 0, "%s: %s", what, error.message);
    cr_assert_eq(thaw_store_list(store, NULL, &list, &error), 0, "%s: %s", what, error.message);
    unsigned ready = 0;
    for (size_t i = 0; i < thaw_snapshot_list_count(list); i++) {
        const struct thaw_snapshot_info *info = thaw_snapshot_list_get(list, i);
        cr_assert(info->state == THAW_SNAPSHOT_READY || info->state == THAW_SNAPSHOT_FAILED,
            "%s: %s is %s: %s", what, info->id, thaw_snapshot_state_name(info->state), info->error);
        if (info->state == THAW_SNAPSHOT_FAILED) {
            cr_assert(info->error[0], "%s: failed without a reason", what);
            continue;
        }
        ready++;
        cr_assert_eq(fixture_check(store, info->id), 0, "%s", what);
        cr_assert_eq(fixture_check(store, info->name), 0, "%s", what);
    }
    cr_assert_eq(thaw_snapshot_list_strays(list), 0, "%s", what);
    thaw_snapshot_list_free(list);
    cr_assert_eq(fixture_count(root, "names"), ready, "%s", what);
    cr_assert_eq(fixture_count(root, "creating"), 0, "%s", what);
    cr_assert_eq(fixture_count(root, "trash"), 0, "%s", what);
    cr_assert_eq(fixture_count(root, "users"), 0, "%s", what);
    cr_assert_leq(fixture_count(root, "hot"), ready, "%s", what);
}

/* Scenarios */

static void prepare_keep(struct thaw_store *store)
{
    cr_assert_eq(fixture_create(store, "keep", NULL), 0);
}

static int act_create(void)
{
    struct thaw_store *store = open_quietly();
    int r = store ? fixture_create(store, "new", NULL) : -EIO;
    thaw_store_close(store);
    return r;
}

static void check_keep(struct thaw_store *store, enum wrap_mode mode, bool done)
{
    (void)mode, (void)done;
    cr_assert_eq(fixture_check(store, "keep"), 0);
}

static void check_created(struct thaw_store *store, enum wrap_mode mode, bool done)
{
    int r = fixture_check(store, "new");
    check_keep(store, mode, done);
    cr_assert(r == 0 || (r == -ENOENT && !done), "%d", r);
    /* What was reported as failed is not there, unless the disk did not even allow taking it back.
     */
    if (!done && (mode == WRAP_FAIL || mode == WRAP_FULL))
        cr_assert_eq(r, -ENOENT);
    if (r < 0)
        cr_assert_eq(fixture_create(store, "new", NULL), 0, "the name was not released");
}

static int act_abort(void)
{
    struct store_request request = {.name = "new", .template_name = "t"};
    struct store_creation *creation;
    struct thaw_store *store = open_quietly();
    int r = store ? store_begin(store, &request, &creation, NULL) : -EIO;
    if (r == 0) {
        fixture_fill(creation);
        r = store_abort(creation, "given up", NULL);
    }
    thaw_store_close(store);
    return r;
}

static void check_aborted(struct thaw_store *store, enum wrap_mode mode, bool done)
{
    check_keep(store, mode, done);
    cr_assert_eq(fixture_check(store, "new"), -ENOENT);
    size_t failed = count_state(store, THAW_SNAPSHOT_FAILED);
    cr_assert(done ? failed == 1 : failed <= 1, "%zu", failed);
}

static void prepare_victim(struct thaw_store *store)
{
    prepare_keep(store);
    cr_assert_eq(fixture_create(store, "victim", NULL), 0);
    struct store_snapshot *snapshot;
    char path[64];
    cr_assert_eq(store_get(store, "victim", NULL, &snapshot, NULL), 0);
    snprintf(path, sizeof(path), "hot/%s", snapshot->manifest.id);
    fixture_write(root, path, "hot");
    store_put(snapshot);
}

static int act_delete(void)
{
    struct thaw_store *store = open_quietly();
    int r = store ? thaw_store_delete(store, "victim", NULL) : -EIO;
    thaw_store_close(store);
    return r;
}

static void check_deleted(struct thaw_store *store, enum wrap_mode mode, bool done)
{
    int r = fixture_check(store, "victim");
    check_keep(store, mode, done);
    cr_assert(r == -ENOENT || (r == 0 && !done), "%d", r);
    cr_assert_eq(fixture_count(root, "hot"), r == 0);
}

static int act_get(void)
{
    struct store_snapshot *snapshot;
    struct thaw_store *store = open_quietly();
    int r = store ? store_get(store, "keep", "VM x", &snapshot, NULL) : -EIO;
    if (r == 0)
        store_put(snapshot);
    thaw_store_close(store);
    return r;
}

static int act_child(void)
{
    struct store_request request = {.name = "new", .template_name = "t"};
    struct store_creation *creation = NULL;
    struct store_snapshot *parent = NULL;
    struct manifest m;
    struct thaw_store *store = open_quietly();
    fixture_manifest(&m);
    int r = store ? store_get(store, "keep", "VM x", &parent, NULL) : -EIO;
    if (r == 0)
        r = store_begin(store, &request, &creation, NULL);
    if (r == 0)
        r = store_link_pack(creation, parent->fd, FIXTURE_PACK, NULL);
    store_put(parent);
    if (r == 0)
        r = fixture_write_at(store_creation_dirfd(creation), "vmstate", FIXTURE_DATA);
    if (r == 0)
        r = store_commit(creation, &m, NULL);
    if (r < 0)
        store_abort(creation, "given up", NULL);
    manifest_fini(&m);
    thaw_store_close(store);
    return r;
}

static void check_child(struct thaw_store *store, enum wrap_mode mode, bool done)
{
    int r = fixture_check(store, "new");
    check_keep(store, mode, done);
    cr_assert(r == 0 || (r == -ENOENT && !done), "%d", r);
    if (r == 0)
        cr_assert_eq(thaw_store_delete(store, "new", NULL), 0);
    check_keep(store, mode, done);
}

/* Moves a finished snapshot back to where one step of it is missing. */
static void move_back(struct thaw_store *store, const char *name, const char *place)
{
    struct store_snapshot *snapshot;
    char from[128], to[128];
    cr_assert_eq(fixture_create(store, name, NULL), 0);
    cr_assert_eq(store_get(store, name, NULL, &snapshot, NULL), 0);
    snprintf(from, sizeof(from), "%s/snapshots/%s", root, snapshot->manifest.id);
    snprintf(to, sizeof(to), "%s/%s/%s", root, place, snapshot->manifest.id);
    store_put(snapshot);
    cr_assert_eq(rename(from, to), 0);
}

static void prepare_orphans(struct thaw_store *store)
{
    struct store_request request = {.name = "dead"};
    struct store_creation *creation;
    prepare_keep(store);
    pid_t child = fork();
    if (child == 0) {
        if (store_begin(store, &request, &creation, NULL) == 0)
            fixture_fill(creation);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    move_back(store, "whole", "creating");
    move_back(store, "gone", "trash");
    fixture_write(root, "hot/0123456789abcdef0123456789abcdef", "x");
    fixture_write(root, "users/0123456789abcdef0123456789abcdef.x", "x");
}

static int act_recover(void)
{
    struct thaw_store *store = open_quietly();
    int r = store ? thaw_store_recover(store, NULL, NULL) : -EIO;
    thaw_store_close(store);
    return r;
}

static void check_recovered(struct thaw_store *store, enum wrap_mode mode, bool done)
{
    check_keep(store, mode, done);
    int r = fixture_check(store, "whole");
    cr_assert_eq(fixture_check(store, "gone"), -ENOENT);
    cr_assert_eq(fixture_check(store, "dead"), -ENOENT);
    cr_assert_eq(fixture_count(root, "hot"), 0);
    size_t failed = count_state(store, THAW_SNAPSHOT_FAILED);
    if (mode == WRAP_KILL)
        cr_assert_eq(r, 0);
    cr_assert_eq(failed, r == 0 ? 1 : 2);
}

static const struct scenario scenarios[] = {
    {"create", prepare_keep, act_create, check_created},
    {"abort", prepare_keep, act_abort, check_aborted},
    {"delete", prepare_victim, act_delete, check_deleted},
    {"get", prepare_keep, act_get, check_keep},
    {"child", prepare_keep, act_child, check_child},
    {"recover", prepare_orphans, act_recover, check_recovered},
};

/* Running them */

static unsigned open_descriptors(void)
{
    return fixture_count("/proc/self", "fd");
}

/* The same as scenario->act, in a process of its own. 0, negative, or 1 if it was killed. */
static int act_and_die(const struct scenario *scenario, enum wrap_mode mode, unsigned at)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        wrap_arm(mode, at);
        _exit(scenario->act() == 0 ? 0 : 1);
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGKILL ? 1 : -EFAULT;
    return WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static bool run(const struct scenario *scenario, enum wrap_mode mode, unsigned at)
{
    char what[128];
    snprintf(what, sizeof(what), "%s, mode %d, call %u", scenario->name, mode, at);
    make_root();
    struct thaw_store *store = fixture_open(root);
    scenario->prepare(store);
    thaw_store_close(store);

    int r;
    bool reached;
    if (mode == WRAP_KILL) {
        r = act_and_die(scenario, mode, at);
        reached = r == 1;
    } else {
        unsigned before = open_descriptors();
        wrap_arm(mode, at);
        r = scenario->act();
        reached = wrap_disarm() >= at;
        cr_assert_eq(open_descriptors(), before, "%s: a descriptor leaked", what);
    }
    cr_assert_neq(r, -EFAULT, "%s: crashed", what);
    cr_assert(r == 0 || reached, "%s: failed by itself (%d)", what, r);

    store = fixture_open(root);
    check_consistent(store, what);
    scenario->check(store, mode, r == 0);
    check_consistent(store, what);
    thaw_store_close(store);
    fixture_remove(root);
    return reached;
}

static void run_all(enum wrap_mode mode)
{
    unsigned total = 0;
    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++)
        for (unsigned at = 1; run(&scenarios[i], mode, at); at++)
            total++;
    cr_assert_gt(total, 100, "only %u calls", total);
}

TestSuite(store_kill, .timeout = 300);

Test(store_kill, a_process_may_die_at_any_call)
{
    run_all(WRAP_KILL);
}

Test(store_kill, any_call_may_fail)
{
    run_all(WRAP_FAIL);
}

Test(store_kill, the_disk_may_break_at_any_call)
{
    run_all(WRAP_BROKEN);
}

Test(store_kill, the_disk_may_be_full_from_any_call_on)
{
    run_all(WRAP_FULL);
}

Test(store_kill, a_copied_pack_is_as_safe_as_a_linked_one)
{
    static const struct scenario child = {"copy", prepare_keep, act_child, check_child};
    wrap_forbid_links(true);
    for (int mode = WRAP_KILL; mode < WRAP_MODES; mode++)
        for (unsigned at = 1; run(&child, (enum wrap_mode)mode, at); at++)
            ;
}

static void prepare_nothing(struct thaw_store *store)
{
    (void)store;
    fixture_remove(root);
    cr_assert_eq(mkdir(root, 0700), 0);
}

static int act_open(void)
{
    struct thaw_store *store = open_quietly();
    thaw_store_close(store);
    return store ? 0 : -EIO;
}

static void check_nothing(struct thaw_store *store, enum wrap_mode mode, bool done)
{
    (void)mode, (void)done;
    prepare_keep(store);
}

Test(store_kill, laying_out_a_store_may_be_interrupted)
{
    static const struct scenario layout = {"layout", prepare_nothing, act_open, check_nothing};
    for (int mode = WRAP_KILL; mode < WRAP_MODES; mode++)
        for (unsigned at = 1; run(&layout, (enum wrap_mode)mode, at); at++)
            ;
}

Test(store_kill, nothing_is_published_or_reported_before_it_is_durable)
{
    static const char *const places[] = {"", "creating", "snapshots", "failed", "trash", "names"};
    for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
        make_root();
        struct thaw_store *store = fixture_open(root);
        scenarios[i].prepare(store);
        thaw_store_close(store);
        wrap_forget();
        cr_assert_eq(scenarios[i].act(), 0);
        for (size_t j = 0; j < ARRAY_SIZE(places); j++) {
            char path[128];
            snprintf(path, sizeof(path), "%s/%s", root, places[j]);
            /* That files in the trash are gone needs not be durable. */
            if (strcmp(places[j], "trash") != 0)
                cr_assert_not(wrap_is_dirty(path), "%s: %s", scenarios[i].name, path);
        }
        fixture_remove(root);
    }
    cr_assert_gt(wrap_published, 6);
    cr_assert_eq(wrap_published_dirty, 0);
}

Test(store_kill, network_file_systems_are_refused)
{
    struct thaw_store_options options = {
        .size = sizeof(options), .path = root, .flags = THAW_STORE_CREATE};
    struct thaw_error error = {0};
    struct thaw_store *store;
    make_root();
    wrap_set_file_system(NFS_SUPER_MAGIC);
    cr_assert_eq(thaw_store_open(&options, &store, &error), -EOPNOTSUPP);
    cr_assert(strstr(error.message, "NFS"), "%s", error.message);
    cr_assert_eq(fixture_count(root, ""), 0, "something was made there");
    fixture_remove(root);
}

/* Several processes at once */

static int wait_all(const pid_t *children, size_t count)
{
    int worst = 0;
    for (size_t i = 0; i < count; i++) {
        int status;
        waitpid(children[i], &status, 0);
        worst = MAX(worst, WIFEXITED(status) ? WEXITSTATUS(status) : 255);
    }
    return worst;
}

Test(store_kill, several_processes_recover_at_once)
{
    for (int round = 0; round < 10; round++) {
        pid_t children[4];
        make_root();
        struct thaw_store *store = fixture_open(root);
        prepare_orphans(store);
        struct store_request request = {.name = "living"};
        struct store_creation *living;
        cr_assert_eq(store_begin(store, &request, &living, NULL), 0);
        for (size_t i = 0; i < ARRAY_SIZE(children); i++)
            if ((children[i] = fork()) == 0)
                _exit(act_recover() == 0 ? 0 : 1);
        cr_assert_eq(wait_all(children, ARRAY_SIZE(children)), 0);
        cr_assert_eq(count_state(store, THAW_SNAPSHOT_CREATING), 1);
        cr_assert_eq(count_state(store, THAW_SNAPSHOT_FAILED), 1);
        cr_assert_eq(fixture_check(store, "whole"), 0);
        store_abort(living, "given up", NULL);
        check_consistent(store, "recoveries");
        thaw_store_close(store);
        fixture_remove(root);
    }
}

Test(store_kill, one_of_many_deleters_succeeds)
{
    for (int round = 0; round < 10; round++) {
        pid_t children[4];
        unsigned deleted = 0;
        make_root();
        struct thaw_store *store = fixture_open(root);
        prepare_victim(store);
        for (size_t i = 0; i < ARRAY_SIZE(children); i++)
            if ((children[i] = fork()) == 0)
                _exit(act_delete() == 0 ? 0 : 1);
        for (size_t i = 0; i < ARRAY_SIZE(children); i++) {
            int status;
            waitpid(children[i], &status, 0);
            deleted += WIFEXITED(status) && WEXITSTATUS(status) == 0;
        }
        cr_assert_eq(deleted, 1, "%u", deleted);
        check_consistent(store, "deleters");
        thaw_store_close(store);
        fixture_remove(root);
    }
}

static bool is_expected(int r)
{
    return r == 0 || r == -EEXIST || r == -ENOENT || r == -EBUSY || r == THAW_ESTATE;
}

static int work_once(struct thaw_store *store, unsigned *seed)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    const char *name = names[(unsigned)rand_r(seed) % ARRAY_SIZE(names)];
    thaw_snapshot_list *list;
    int r;
    switch (rand_r(seed) % 8) {
    case 0:
    case 1:
    case 2:
        return fixture_create(store, name, NULL);
    case 3:
        return thaw_store_delete(store, name, NULL);
    case 4:
        return thaw_store_recover(store, NULL, NULL);
    case 5:
        r = thaw_store_list(store, NULL, &list, NULL);
        for (size_t i = 0; r == 0 && i < thaw_snapshot_list_count(list); i++)
            if (thaw_snapshot_list_get(list, i)->state == THAW_SNAPSHOT_DAMAGED)
                r = THAW_ECORRUPT;
        if (r != -ENOMEM)
            thaw_snapshot_list_free(list);
        return r;
    }
    return fixture_check(store, name);
}

/* Never returns; ends by itself only if something is wrong. */
static void work(unsigned seed)
{
    struct thaw_store *store = fixture_open(root);
    for (;;) {
        int r = work_once(store, &seed);
        if (!is_expected(r)) {
            fprintf(stderr, "unexpected: %d (%s)\n", r, thaw_strerror(r));
            _exit(3);
        }
    }
}

Test(store_kill, processes_die_at_random_while_others_work)
{
    const unsigned kills = 250;
    pid_t workers[4] = {0};
    unsigned seed = 1;
    make_root();
    struct thaw_store *store = fixture_open(root);
    for (unsigned i = 0; i < kills + ARRAY_SIZE(workers); i++) {
        size_t victim = i % ARRAY_SIZE(workers);
        if (workers[victim]) {
            int status;
            nanosleep(&(struct timespec){.tv_nsec = rand_r(&seed) % 20000000}, NULL);
            kill(workers[victim], SIGKILL);
            waitpid(workers[victim], &status, 0);
            cr_assert(WIFSIGNALED(status), "a worker ended by itself");
            workers[victim] = 0;
        }
        if (i < kills && (workers[victim] = fork()) == 0)
            work(i + 1);
    }
    check_consistent(store, "random deaths");
    thaw_store_close(store);
    fixture_remove(root);
}
