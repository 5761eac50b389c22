// SPDX-License-Identifier: Apache-2.0
// Snapshots that released versions wrote (tests/golden/): this one must read them, restore them to
// the same bytes, and run them.

#include "check.h"
#include "guest.h"
#include "snapshots.h"
#include "vm.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct snapshots snapshots;

static void open_store(void)
{
    snapshots_init(&snapshots);
}

static void close_store(void)
{
    snapshots_fini(&snapshots);
}

TestSuite(golden, .init = open_store, .fini = close_store);

struct golden {
    const char *directory;
    char id[33], name[65];
    unsigned tick;
    char memory[33];
};

/* Puts one into the store, as if it had been taken here. */
static void import(struct golden *golden, const char *directory)
{
    char text[4096];
    *golden = (struct golden){.directory = directory};
    snprintf(text, sizeof(text), "%s/snapshot/manifest.json", directory);
    json_t *manifest = json_load_file(text, 0, NULL);
    cr_assert_not_null(manifest, "%s", text);
    snprintf(
        golden->id, sizeof(golden->id), "%s", json_string_value(json_object_get(manifest, "id")));
    snprintf(golden->name, sizeof(golden->name), "%s",
        json_string_value(json_object_get(manifest, "name")));
    json_decref(manifest);
    snprintf(text, sizeof(text), "%s/expected", directory);
    FILE *expected = fopen(text, "r");
    cr_assert_not_null(expected, "%s", text);
    cr_assert_eq(fscanf(expected, "tick %u memory %32s", &golden->tick, golden->memory), 2);
    fclose(expected);
    snprintf(text, sizeof(text), "cp -r '%s/snapshot' %s/snapshots/%s && ln -s %s %s/names/%s",
        directory, snapshots.path, golden->id, golden->id, snapshots.path, golden->name);
    cr_assert_eq(system(text), 0, "%s", text);
}

static void look(const struct golden *golden)
{
    struct thaw_error error;
    thaw_snapshot_list *list;
    char *text;
    int r = thaw_store_find(snapshots.store, golden->name, &list, &error);
    cr_assert_eq(r, 0, "%s: %s", golden->directory, error.message);
    const struct thaw_snapshot_info *info = thaw_snapshot_list_get(list, 0);
    cr_assert_eq(info->state, THAW_SNAPSHOT_READY, "%s", info->error);
    cr_assert_str_eq(info->id, golden->id);
    cr_assert_str_eq(info->template_name, "golden");
    cr_assert_eq(info->mem_bytes, 16 << 20);
    thaw_snapshot_list_free(list);
    r = thaw_snapshot_inspect(snapshots.store, golden->id, &text, &error);
    cr_assert_eq(r, 0, "%s: %s", golden->directory, error.message);
    cr_assert(strstr(text, "\"vmstate\"") && strstr(text, "\"rip\""));
    thaw_text_free(text);
    r = snapshots_verify(&snapshots, golden->id, &error);
    cr_assert_eq(r, 0, "%s: %s", golden->directory, error.message);
}

static void sum_memory(thaw_vm *vm, char ret[33])
{
    struct check_stream *stream = check_stream_new();
    uint64_t behind = MACHINE_VMGENID_GPA + PAGE_BYTES;
    cr_assert_eq(mem_make_present(&vm->mem, 0, vm->mem.bytes), 0);
    check_stream_add(stream, vm->mem.base, MACHINE_VMGENID_GPA);
    check_stream_add(stream, vm->mem.base + behind, vm->mem.bytes - behind);
    struct wire_b16 sum = check_stream_result(stream);
    check_stream_free(stream);
    for (size_t i = 0; i < sizeof(sum.bytes); i++)
        snprintf(ret + 2 * i, 3, "%02x", sum.bytes[i]);
}

/* Forced only where this host is another than it was made on. *ret_runs: what waits for the TSC
 * does not wait for hours. */
static uint32_t flags_for(const struct golden *golden, bool *ret_runs)
{
    struct thaw_error error;
    thaw_env *env;
    thaw_vm *vm;
    int r = thaw_env_new(NULL, &env, &error);
    if (r == THAW_EHOST)
        cr_skip_test("%s", error.message);
    cr_assert_eq(r, 0, "%s", error.message);
    r = thaw_restore(env, snapshots.store, golden->name, NULL, &vm, &error);
    cr_assert(r == 0 || r == THAW_EHOST, "%s: %s", golden->directory, error.message);
    if (r == 0)
        thaw_vm_free(vm);
    thaw_env_free(env);
    *ret_runs = r == 0 || !strstr(error.message, "a TSC that is further on");
    return r == 0 ? 0 : THAW_RESTORE_FORCE;
}

static void restore_and_run(const struct golden *golden, enum thaw_restore_mode mode)
{
    static struct guest copy;
    struct thaw_error error;
    char sum[33], next[32];
    bool runs;
    uint32_t flags = flags_for(golden, &runs);
    guest_restore(&copy, snapshots.store,
        (struct thaw_restore_options){.mode = mode, .flags = flags}, golden->name);
    sum_memory(copy.vm, sum);
    cr_assert_str_eq(sum, golden->memory, "%s", golden->directory);
    cr_assert_eq(thaw_vm_resume(copy.vm, &error), 0, "%s", error.message);
    snprintf(next, sizeof(next), "tick %u golden\n", golden->tick + 2);
    if (runs)
        guest_expect(&copy, next, 0);
    guest_free(&copy);
}

/* How many there are. */
static size_t for_all(void (*check)(const struct golden *golden))
{
    glob_t found;
    struct golden golden;
    cr_assert_eq(glob(THAW_GOLDEN_DIR "/*/expected", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        *strrchr(found.gl_pathv[i], '/') = '\0';
        import(&golden, found.gl_pathv[i]);
        check(&golden);
        cr_assert_eq(thaw_store_delete(snapshots.store, golden.id, NULL), 0);
    }
    size_t count = found.gl_pathc;
    globfree(&found);
    return count;
}

Test(golden, snapshots_are_listed_inspected_and_verified)
{
    cr_assert_gt(for_all(look), 0);
}

static void run_eagerly(const struct golden *golden)
{
    restore_and_run(golden, THAW_RESTORE_EAGER);
}

static void run_lazily(const struct golden *golden)
{
    restore_and_run(golden, THAW_RESTORE_LAZY);
}

Test(golden, snapshots_run_eagerly)
{
    cr_assert_gt(for_all(run_eagerly), 0);
}

Test(golden, snapshots_run_lazily)
{
    cr_assert_gt(for_all(run_lazily), 0);
}
