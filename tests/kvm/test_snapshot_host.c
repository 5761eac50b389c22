// SPDX-License-Identifier: Apache-2.0
// Snapshots that were taken on a host which had something that this one lacks: they are refused,
// saying what it is, unless forced. other_host.c makes them.

#include "guest.h"
#include "snapshots.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEATURE "cpuid 0x7.0 ebx bit 22"
#define BACKEND "KVM backend kvm_other (this is "

static struct snapshots snapshots;

static void take_one(void)
{
    static struct guest source;
    snapshots_init(&snapshots);
    guest_new(&source,
        (struct thaw_vm_options){.name = "source", .kernel_path = "tick", .mem_bytes = 16 << 20});
    guest_start(&source);
    guest_expect(&source, "tick 3", 0);
    snapshots_take(&snapshots, source.vm, "s", 0);
    guest_free(&source);
}

static void clean_up(void)
{
    snapshots_fini(&snapshots);
}

TestSuite(host, .init = take_one, .fini = clean_up);

static void was_taken_on_a_host_with(const char *what)
{
    char command[512];
    struct thaw_error error;
    snprintf(command, sizeof(command), "%s %s/snapshots/????????* %s", THAW_OTHER_HOST,
        snapshots.path, what);
    cr_assert_eq(system(command), 0, "%s", command);
    cr_assert_eq(snapshots_verify(&snapshots, "s", &error), 0, "%s", error.message);
}

static thaw_image *open_image(thaw_env *env, enum thaw_restore_mode mode)
{
    struct thaw_image_options options = {.size = sizeof(options), .mode = mode};
    struct thaw_error error;
    thaw_image *image;
    int r = thaw_image_open(env, snapshots.store, "s", NULL, &options, &image, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return image;
}

static int try_restore(thaw_image *image, uint32_t flags, struct thaw_error *error)
{
    struct thaw_restore_options options = {.size = sizeof(options), .flags = flags};
    thaw_vm *vm = NULL;
    int r = thaw_image_restore(image, &options, &vm, error);
    cr_assert_eq(!!vm, r == 0);
    thaw_vm_free(vm);
    return r;
}

/* Both texts are said. Forcing one clone lets no other through. */
static void is_refused_unless_forced(const char *what, const char *also)
{
    static struct guest clone;
    struct thaw_error error = {0};
    thaw_vm *vm = NULL;
    thaw_env *env;
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_restore(env, snapshots.store, "s", NULL, &vm, &error), THAW_EHOST);
    cr_assert_null(vm);
    cr_assert(strstr(error.message, what) && strstr(error.message, also), "%s", error.message);

    thaw_image *image = open_image(env, THAW_RESTORE_EAGER);
    cr_assert_eq(try_restore(image, 0, &error), THAW_EHOST);
    cr_assert_eq(try_restore(image, THAW_RESTORE_FORCE, &error), 0, "%s", error.message);
    cr_assert_eq(try_restore(image, 0, &error), THAW_EHOST);
    thaw_image_close(image);
    thaw_env_free(env);

    guest_restore(
        &clone, snapshots.store, (struct thaw_restore_options){.flags = THAW_RESTORE_FORCE}, "s");
    cr_assert_eq(thaw_vm_resume(clone.vm, &error), 0, "%s", error.message);
    guest_expect(&clone, "tick ", 0);
    guest_free(&clone);
}

Test(host, one_that_lacks_a_feature)
{
    was_taken_on_a_host_with("feature");
    is_refused_unless_forced(FEATURE, "this host lacks");
}

Test(host, one_with_another_kvm)
{
    was_taken_on_a_host_with("backend");
    is_refused_unless_forced(BACKEND, "this host lacks");
}

Test(host, all_that_is_missing_is_listed)
{
    was_taken_on_a_host_with("backend feature");
    is_refused_unless_forced(FEATURE, BACKEND);
}

Test(host, vms_of_a_pool_are_no_way_around_it)
{
    struct thaw_pool_options options = {
        .size = sizeof(options), .vcpu_count = 1, .mem_bytes = 16 << 20, .target = 1};
    struct thaw_restore_options restore = {.size = sizeof(restore)};
    struct thaw_error error;
    thaw_env *env;
    thaw_vm *vm = NULL;
    was_taken_on_a_host_with("feature");
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    cr_assert_eq(thaw_pool_new(env, &options, &restore.pool, &error), 0, "%s", error.message);
    int r = thaw_restore(env, snapshots.store, "s", &restore, &vm, &error);
    cr_assert_eq(r, THAW_EHOST);
    cr_assert(strstr(error.message, FEATURE), "%s", error.message);
    restore.flags = THAW_RESTORE_FORCE;
    r = thaw_restore(env, snapshots.store, "s", &restore, &vm, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    thaw_vm_free(vm);
    thaw_pool_free(restore.pool);
    thaw_env_free(env);
}

/* Where KVM shows guests the host's TSC whatever is set, theirs would go back. */
static bool tsc_can_be_set(void)
{
    thaw_host_report *report;
    struct thaw_error error;
    bool can = true;
    cr_assert_eq(thaw_host_probe(&report, &error), 0, "%s", error.message);
    for (size_t i = 0; i < thaw_host_report_count(report); i++) {
        const struct thaw_host_check *check = thaw_host_report_get(report, i);
        if (strcmp(check->name, "kvm-tsc-offset") == 0)
            can = check->status == THAW_CHECK_OK;
    }
    thaw_host_report_free(report);
    return can;
}

Test(host, a_tsc_does_not_go_back)
{
    thaw_env *env;
    thaw_vm *vm = NULL;
    struct thaw_error error = {0};
    const struct thaw_restore_options forced = {
        .size = sizeof(forced), .flags = THAW_RESTORE_FORCE};
    was_taken_on_a_host_with("tsc");
    cr_assert_eq(thaw_env_new(NULL, &env, &error), 0, "%s", error.message);
    int r = thaw_restore(env, snapshots.store, "s", NULL, &vm, &error);
    if (tsc_can_be_set()) {
        cr_assert_eq(r, 0, "%s", error.message);
        thaw_vm_free(vm);
    } else {
        cr_assert_eq(r, THAW_EHOST);
        cr_assert(strstr(error.message, "a TSC that is further on"), "%s", error.message);
    }
    cr_assert_eq(
        thaw_restore(env, snapshots.store, "s", &forced, &vm, &error), 0, "%s", error.message);
    thaw_vm_free(vm);
    thaw_env_free(env);
}
