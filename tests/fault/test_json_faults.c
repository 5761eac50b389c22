// SPDX-License-Identifier: Apache-2.0
// Every allocation that JSON needs, made to fail once: it is never taken for damage, nor is
// anything left out.

#include "fault.h"
#include "state_file.h"
#include "store_fixture.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* The parser can't tell every lack of memory, so what seems wrong is looked at again. */
static const struct fault_tolerated looked_at_again[] = {
    {"malloc", "the second look went well"},
    {NULL, NULL},
};

static struct manifest m;
static char *text;
static size_t bytes;

static void set_up(void)
{
    struct thaw_error error;
    fixture_manifest(&m);
    /* Longer than what the parser has room for to begin with. */
    free(m.metadata);
    m.metadata = strdup("{\"a key of more than sixteen bytes\":[\"a text of more than them, too\","
                        "123456789012345678,0.12345678901234567890123]}");
    cr_assert_eq(manifest_encode(&m, &text, &bytes, &error), 0, "%s", error.message);
}

static void clean_up(void)
{
    manifest_fini(&m);
    free(text);
}

TestSuite(json_faults, .init = set_up, .fini = clean_up);

static void encode(void)
{
    struct thaw_error error = {0};
    char *again = NULL;
    size_t again_bytes = 0;
    int r = manifest_encode(&m, &again, &again_bytes, &error);
    if (!fault_failed("encoding", r, &error))
        cr_assert_str_eq(again, text);
    free(again);
}

static void decode(void)
{
    struct thaw_error error = {0};
    struct manifest got;
    int r = manifest_decode(&got, text, bytes, &error);
    if (fault_failed("decoding", r, &error))
        return;
    char *again = NULL;
    size_t again_bytes = 0;
    fault_suspend(true);
    cr_assert_eq(manifest_encode(&got, &again, &again_bytes, &error), 0, "%s", error.message);
    fault_suspend(false);
    cr_assert_str_eq(again, text, "after %s failed", fault_hit());
    free(again);
    manifest_fini(&got);
}

static void decode_damaged(void)
{
    struct thaw_error error = {0};
    struct manifest got;
    int r = manifest_decode(&got, text, bytes - 1, &error);
    cr_assert(r == THAW_ECORRUPT || (fault_hit() && r == -ENOMEM), "%d: %s", r, error.message);
}

static void describe_state(void)
{
    static size_t count;
    fault_suspend(true);
    struct vm_state *state = vm_state_new(1);
    cr_assert_not_null(state);
    fault_suspend(false);
    json_t *all = state_file_describe(state);
    fault_suspend(true);
    char *described = json_dumps(all, JSON_COMPACT);
    cr_assert(all || fault_hit(), "nothing described");
    if (all && !count)
        count = strlen(described);
    cr_assert(
        !all || strlen(described) == count, "after %s failed, something is left out", fault_hit());
    cr_assert(!all || !fault_hit());
    free(described);
    json_decref(all);
    vm_state_free(state);
    fault_suspend(false);
}

static void every_call(
    void (*run)(void), const struct fault_tolerated *tolerated, unsigned at_least)
{
    const struct fault_scenario scenario = {
        .side = FAULT_CALLER, .run = run, .tolerated = tolerated};
    unsigned calls = fault_for_every_call(&scenario);
    cr_assert_gt(calls, at_least, "%u", calls);
}

Test(json_faults, writing_a_manifest)
{
    every_call(encode, looked_at_again, 300);
}

Test(json_faults, reading_a_manifest)
{
    every_call(decode, looked_at_again, 200);
}

Test(json_faults, reading_a_damaged_manifest)
{
    every_call(decode_damaged, looked_at_again, 200);
}

Test(json_faults, describing_a_state)
{
    every_call(describe_state, NULL, 500);
}
