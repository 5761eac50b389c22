// SPDX-License-Identifier: Apache-2.0
// The file of a VM's state: what is written is read again, other versions' records are handled as
// the format says, and nothing that is damaged or contradicts itself is taken.

#include "check.h"
#include "state_file.h"
#include "state_records.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#define VCPUS 2
#define DISKS 2

static const struct wire_b16 file_id = {{1, 2, 3}};
static uint32_t seed = 1;

static uint8_t next_random(void)
{
    seed = seed * 1664525 + 1013904223;
    return (uint8_t)(seed >> 24);
}

/* --- A state with something everywhere -------------------------------------------------------- */

static void fill_element(const struct state_record *record, char *object)
{
    for (size_t i = 0; i < record->field_count; i++) {
        const struct state_field *field = &record->fields[i];
        for (size_t n = 0; n < (size_t)field->width * field->count; n++)
            object[field->offset + n] =
                (char)(field->kind == STATE_BOOL ? next_random() & 1 : next_random());
    }
}

static void fill(const struct state_record *record, char *object)
{
    uint32_t count = 1;
    if (record->is_array) {
        count = record->count_max < 5 ? record->count_max : 5;
        memcpy(object + record->count_off, &count, sizeof(count));
    }
    for (uint32_t i = 0; i < count; i++)
        fill_element(record,
            object + (record->is_array ? record->array_off + i * record->element_bytes : 0));
}

static struct vm_state *make_state(void)
{
    struct vm_state *state = vm_state_new(VCPUS);
    state->machine.disk_count = DISKS;
    for (size_t i = 0; i < state_record_count; i++) {
        const struct state_record *record = &state_records[i];
        for (uint32_t n = 0;
             record->type != STATE_MACHINE && n < state_record_instances(record, VCPUS, DISKS); n++)
            fill(record, state_record_object(record, state, n));
    }
    return state;
}

/* --- The file's bytes, to be changed ---------------------------------------------------------- */

struct file {
    uint8_t bytes[256 << 10];
    size_t count; /* without the check at the end */
};

static struct file original, file;

static void make_file(void)
{
    struct vm_state *state = make_state();
    uint8_t *bytes;
    size_t count;
    cr_assert_eq(state_file_encode(state, &file_id, &bytes, &count, NULL), 0);
    cr_assert_lt(count, sizeof(file.bytes) / 2);
    memcpy(original.bytes, bytes, count);
    original.count = count - 16;
    file = original;
    free(bytes);
    vm_state_free(state);
}

TestSuite(state_file, .init = make_file);

/* Decodes the changed file under a check that fits. */
static int decode(struct vm_state **ret, struct thaw_error *error)
{
    *ret = NULL;
    struct wire_b16 check = check_128(&file_id, sizeof(file_id), file.bytes, file.count);
    wire_store_b16(file.bytes + file.count, check);
    return state_file_decode(file.bytes, file.count + 16, "vmstate", ret, error);
}

static void expect_refused(int code, const char *text)
{
    struct vm_state *state;
    struct thaw_error error = {0};
    cr_assert_eq(decode(&state, &error), code, "wanted: %s; got: %s", text, error.message);
    cr_assert_eq(error.code, code);
    cr_assert(strstr(error.message, text), "wanted: %s; got: %s", text, error.message);
    cr_assert_null(state);
}

static struct vm_state *expect_taken(void)
{
    struct vm_state *state;
    struct thaw_error error = {0};
    cr_assert_eq(decode(&state, &error), 0, "%s", error.message);
    return state;
}

static size_t record_bytes(size_t at)
{
    return 12 + (size_t)wire_load_u32(file.bytes + at + 4) * wire_load_u32(file.bytes + at + 8);
}

/* Where the record of this type and instance begins. */
static size_t find(unsigned type, unsigned instance)
{
    size_t at = FILE_HEADER_BYTES;
    while (
        wire_load_u16(file.bytes + at) != type || wire_load_u16(file.bytes + at + 2) != instance) {
        cr_assert_lt(at, file.count, "there is no record %u/%u", type, instance);
        at += record_bytes(at);
    }
    return at;
}

static void insert(size_t at, const void *bytes, size_t count)
{
    memmove(file.bytes + at + count, file.bytes + at, file.count - at);
    memcpy(file.bytes + at, bytes, count);
    file.count += count;
}

static void cut_out(size_t at, size_t count)
{
    memmove(file.bytes + at, file.bytes + at + count, file.count - at - count);
    file.count -= count;
}

static void insert_record(size_t at, unsigned type, uint32_t element_bytes, uint32_t elements)
{
    static uint8_t record[12 + 4096];
    wire_store_u16(record, (uint16_t)type);
    wire_store_u32(record + 4, element_bytes);
    wire_store_u32(record + 8, elements);
    insert(at, record, 12 + (size_t)element_bytes * elements);
}

/* --- Reading what was written ----------------------------------------------------------------- */

Test(state_file, what_is_written_is_read_again)
{
    struct vm_state *state = expect_taken();
    uint8_t *bytes;
    size_t count;
    cr_assert_eq(state->vcpu_count, VCPUS);
    cr_assert_eq(state->machine.disk_count, DISKS);
    cr_assert_eq(state_file_encode(state, &file_id, &bytes, &count, NULL), 0);
    cr_assert_eq(count, file.count + 16);
    cr_assert_arr_eq(bytes, file.bytes, count);
    free(bytes);

    seed = 1;
    struct vm_state *wanted = make_state();
    cr_assert_arr_eq(&state->vcpus[1].regs, &wanted->vcpus[1].regs, sizeof(struct kvm_regs));
    cr_assert_eq(state->vcpus[0].msrs[4].data, wanted->vcpus[0].msrs[4].data);
    cr_assert_eq(state->machine.disks[1].parked[3], wanted->machine.disks[1].parked[3]);
    vm_state_free(wanted);
    vm_state_free(state);
}

Test(state_file, every_flipped_bit_is_found)
{
    struct vm_state *state = expect_taken();
    vm_state_free(state);
    for (size_t bit = 0; bit < 8 * (file.count + 16); bit += bit < 8192 ? 1 : 7) {
        struct thaw_error error;
        file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int r = state_file_decode(file.bytes, file.count + 16, "vmstate", &state, &error);
        cr_assert(r == THAW_ECORRUPT || r == -EOPNOTSUPP, "bit %zu: %d", bit, r);
        cr_assert(strstr(error.message, "'vmstate'"), "%s", error.message);
        file.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(state_file, every_end_that_is_missing_is_found)
{
    struct vm_state *state = expect_taken();
    vm_state_free(state);
    for (size_t count = 0; count < file.count + 16; count++) {
        uint8_t *exact = malloc(count ? count : 1); /* for the sanitizer to watch over */
        memcpy(exact, file.bytes, count);
        cr_assert_eq(state_file_decode(exact, count, "vmstate", &state, NULL), THAW_ECORRUPT,
            "%zu bytes", count);
        free(exact);
    }
}

/* With a check that fits, too: the records themselves say that something is missing. */
Test(state_file, records_that_are_cut_off_are_refused)
{
    struct vm_state *state;
    size_t whole = file.count;
    for (file.count = FILE_HEADER_BYTES; file.count < whole; file.count++) {
        uint8_t saved[16];
        memcpy(saved, file.bytes + file.count, sizeof(saved));
        cr_assert_eq(decode(&state, NULL), THAW_ECORRUPT, "%zu bytes", file.count);
        memcpy(file.bytes + file.count, saved, sizeof(saved));
    }
}

/* --- Other versions --------------------------------------------------------------------------- */

Test(state_file, unknown_records_are_passed_over_only_if_they_say_so)
{
    insert_record(find(STATE_CLOCK, 0), STATE_TYPE_IGNORABLE | 77, 24, 3);
    insert_record(find(STATE_MACHINE, 0), STATE_TYPE_IGNORABLE | 78, 0, 9);
    vm_state_free(expect_taken());
    insert_record(find(STATE_CLOCK, 0), 77, 24, 3);
    expect_refused(-EOPNOTSUPP, "type 77");
    file = original;
    insert_record(find(STATE_END, 0), 63, 0, 0);
    expect_refused(-EOPNOTSUPP, "type 63");
}

Test(state_file, elements_of_an_older_version_are_shorter)
{
    size_t at = find(STATE_CLOCK, 0);
    wire_store_u32(file.bytes + at + 4, 16);
    cut_out(at + 12 + 16, 8);
    struct vm_state *state = expect_taken();
    cr_assert_neq(state->clock.realtime_ns, 0);
    cr_assert_eq(state->clock.host_tsc, 0);
    vm_state_free(state);
    /* But not by part of a field. */
    wire_store_u32(file.bytes + at + 4, 12);
    cut_out(at + 12 + 12, 4);
    expect_refused(THAW_ECORRUPT, "within a field");
}

Test(state_file, elements_of_a_newer_version_are_longer)
{
    static const uint8_t more[4] = {1, 2, 3, 4};
    size_t at = find(STATE_MSRS, 1);
    uint32_t bytes = wire_load_u32(file.bytes + at + 4), n = wire_load_u32(file.bytes + at + 8);
    for (uint32_t i = 0; i < n; i++)
        insert(at + 12 + (size_t)(i + 1) * bytes + i * sizeof(more), more, sizeof(more));
    wire_store_u32(file.bytes + at + 4, bytes + sizeof(more));
    struct vm_state *state = expect_taken();
    seed = 1;
    struct vm_state *wanted = make_state();
    for (uint32_t i = 0; i < n; i++)
        cr_assert_eq(state->vcpus[1].msrs[i].data, wanted->vcpus[1].msrs[i].data);
    vm_state_free(wanted);
    vm_state_free(state);
}

/* --- Contradictions --------------------------------------------------------------------------- */

Test(state_file, counts_are_within_bounds)
{
    static const struct {
        unsigned type;
        uint32_t elements;
    } cases[] = {{STATE_CLOCK, 0}, {STATE_CLOCK, 2}, {STATE_CPUID, UINT32_MAX}, {STATE_MSRS, 2048},
        {STATE_XSAVE, VCPU_STATE_XSAVE_MAX + 1}, {STATE_QUEUES, VIRTIO_QUEUES_MAX + 1},
        {STATE_PARKED, BLK_QUEUE_SIZE + 1}, {STATE_MACHINE, 2}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vm_state *state;
        file = original;
        wire_store_u32(file.bytes + find(cases[i].type, 0) + 8, cases[i].elements);
        cr_assert_eq(decode(&state, NULL), THAW_ECORRUPT, "case %zu", i);
        file = original;
        wire_store_u32(file.bytes + find(cases[i].type, 0) + 4, UINT32_MAX);
        cr_assert_eq(decode(&state, NULL), THAW_ECORRUPT, "case %zu", i);
    }
    /* Even one that could be passed over. */
    file = original;
    size_t at = find(STATE_CLOCK, 0);
    insert_record(at, STATE_TYPE_IGNORABLE | 77, 0, 0);
    wire_store_u32(file.bytes + at + 4, 1 << 16);
    wire_store_u32(file.bytes + at + 8, 1 << 16);
    expect_refused(THAW_ECORRUPT, "larger than any");
}

Test(state_file, machines_that_cannot_be_are_refused)
{
    static const uint32_t counts[][2] = {
        {0, 0}, {THAW_VCPUS_MAX + 1, 0}, {1, THAW_DISKS_MAX + 1}, {UINT32_MAX, UINT32_MAX}};
    size_t at = find(STATE_MACHINE, 0) + 12;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        wire_store_u32(file.bytes + at, counts[i][0]);
        wire_store_u32(file.bytes + at + 4, counts[i][1]);
        expect_refused(THAW_ECORRUPT, "cannot be");
    }
    /* More or less than there are records of. */
    wire_store_u32(file.bytes + at, VCPUS + 1);
    wire_store_u32(file.bytes + at + 4, DISKS);
    expect_refused(THAW_ECORRUPT, "missing");
    wire_store_u32(file.bytes + at, VCPUS - 1);
    expect_refused(THAW_ECORRUPT, "one too many");
}

Test(state_file, each_record_is_there_once)
{
    static uint8_t copy[64 << 10];
    for (size_t i = 0; i < state_record_count; i++) {
        unsigned type = state_records[i].type;
        file = original;
        size_t at = find(type, 0), bytes = record_bytes(at);
        memcpy(copy, file.bytes + at, bytes);
        insert(at + bytes, copy, bytes);
        expect_refused(THAW_ECORRUPT, type == STATE_MACHINE ? "wrong place" : "one too many");
        file = original;
        cut_out(at, bytes);
        expect_refused(THAW_ECORRUPT, type == STATE_MACHINE ? "wrong place" : "missing");
    }
}

Test(state_file, instances_that_the_machine_lacks_are_refused)
{
    for (size_t i = 0; i < state_record_count; i++) {
        file = original;
        wire_store_u16(file.bytes + find(state_records[i].type, 0) + 2, 64);
        expect_refused(
            THAW_ECORRUPT, state_records[i].type == STATE_MACHINE ? "wrong place" : "one too many");
    }
}

Test(state_file, nothing_follows_the_end)
{
    insert(file.count, "x", 1);
    expect_refused(THAW_ECORRUPT, "not where the file ends");
    file = original;
    cut_out(FILE_HEADER_BYTES, file.count - FILE_HEADER_BYTES);
    expect_refused(THAW_ECORRUPT, "cut off");
}

Test(state_file, describing_shows_every_record)
{
    struct vm_state *state = expect_taken();
    json_t *all = state_file_describe(state);
    for (size_t i = 0; i < state_record_count; i++)
        cr_assert_eq(json_array_size(json_object_get(all, state_records[i].name)),
            state_record_instances(&state_records[i], VCPUS, DISKS), "%s", state_records[i].name);
    json_decref(all);
    vm_state_free(state);
}
