// SPDX-License-Identifier: Apache-2.0
// Turns a VM's state into bytes and back by the tables in state_records.c. Knows no field by name.

#include "state_file.h"
#include "check.h"
#include "file_header.h"
#include "json_build.h"
#include "state_records.h"
#include <inttypes.h>

#define RECORD_HEADER_BYTES 12 /* type u16, instance u16, element bytes u32, elements u32 */
#define FILE_CHECK_BYTES    16

/* --- One element of a record ------------------------------------------------------------------ */

static uint32_t element_wire_bytes(const struct state_record *record)
{
    uint32_t bytes = 0;
    for (size_t i = 0; i < record->field_count; i++)
        bytes += (uint32_t)record->fields[i].width * record->fields[i].count;
    return bytes;
}

static uint64_t load_host(const char *at, unsigned width)
{
    uint64_t value = 0; /* the host is little-endian, which wire.h asserts */
    memcpy(&value, at, width);
    return value;
}

static void put_element(
    struct wire_writer *writer, const struct state_record *record, const char *object)
{
    for (size_t i = 0; i < record->field_count; i++) {
        const struct state_field *field = &record->fields[i];
        wire_put_bytes(writer, object + field->offset, (size_t)field->width * field->count);
    }
}

/* Reads what both sides have: an older file's element is shorter, a newer one's longer. */
static void get_element(struct wire_reader *reader, const struct state_record *record, char *object)
{
    for (size_t i = 0; i < record->field_count && reader->left > 0; i++) {
        const struct state_field *field = &record->fields[i];
        if (field->kind == STATE_BOOL)
            *(bool *)(object + field->offset) = wire_get_u8(reader) != 0;
        else
            wire_get_bytes(reader, object + field->offset, (size_t)field->width * field->count);
    }
}

static uint32_t element_count(const struct state_record *record, const char *object)
{
    return record->is_array ? (uint32_t)load_host(object + record->count_off, 4) : 1;
}

static size_t element_off(const struct state_record *record, uint32_t element)
{
    return record->is_array ? record->array_off + (size_t)element * record->element_bytes : 0;
}

/* --- Encoding --------------------------------------------------------------------------------- */

static void put_header(struct wire_writer *writer, uint32_t type, uint32_t instance,
    uint32_t element_bytes, uint32_t elements)
{
    wire_put_u16(writer, (uint16_t)type);
    wire_put_u16(writer, (uint16_t)instance);
    wire_put_u32(writer, element_bytes);
    wire_put_u32(writer, elements);
}

static void put_record(struct wire_writer *writer, const struct state_record *record,
    const char *object, uint32_t instance)
{
    uint32_t elements = element_count(record, object);
    put_header(writer, record->type, instance, element_wire_bytes(record), elements);
    for (uint32_t i = 0; i < elements; i++)
        put_element(writer, record, object + element_off(record, i));
}

static void put_all(struct wire_writer *writer, struct vm_state *state)
{
    for (size_t i = 0; i < state_record_count; i++) {
        const struct state_record *record = &state_records[i];
        uint32_t instances =
            state_record_instances(record, state->vcpu_count, state->machine.disk_count);
        for (uint32_t n = 0; n < instances; n++)
            put_record(writer, record, state_record_object(record, state, n), n);
    }
    put_header(writer, STATE_END, 0, 0, 0);
}

int state_file_encode(const struct vm_state *state, const struct wire_b16 *id, uint8_t **ret_bytes,
    size_t *ret_count, struct thaw_error *error)
{
    struct wire_writer writer;
    struct file_header header = {.id = *id};
    uint8_t head[FILE_HEADER_BYTES];
    wire_writer_init(&writer);
    file_header_write(FILE_KIND_STATE, &header, head);
    wire_put_bytes(&writer, head, sizeof(head));
    /* The tables' objects are not const since decoding fills them; nothing is written here. */
    put_all(&writer, (struct vm_state *)(uintptr_t)state);
    struct wire_b16 check = check_128(id, sizeof(*id), writer.bytes, writer.used);
    wire_put_b16(&writer, check);
    if (writer.failed) {
        wire_writer_fini(&writer);
        return error_errno(error, ENOMEM, "encoding a VM's state");
    }
    *ret_bytes = take_ptr(writer.bytes);
    *ret_count = writer.used;
    return 0;
}

/* --- Decoding --------------------------------------------------------------------------------- */

struct decoder {
    struct wire_reader reader;
    const char *name;
    struct vm_state *state;
    uint64_t seen[64]; /* by type: a bit an instance */
    struct thaw_error *error;
};

static int damaged(struct decoder *decoder, const char *what, uint32_t type, uint32_t instance)
{
    return error_set(decoder->error, THAW_ECORRUPT, "VM state '%s' is damaged: record %u/%u %s",
        decoder->name, type, instance, what);
}

static int get_elements(struct decoder *decoder, const struct state_record *record,
    uint32_t instance, uint32_t element_bytes, uint32_t elements)
{
    char *object = state_record_object(record, decoder->state, instance);
    if (elements > (record->is_array ? record->count_max : 1) ||
        (!record->is_array && elements != 1))
        return damaged(decoder, "has too many or too few elements", record->type, instance);
    for (uint32_t i = 0; i < elements; i++) {
        struct wire_reader element;
        const uint8_t *view = wire_get_view(&decoder->reader, element_bytes);
        if (!view)
            return damaged(decoder, "is cut off", record->type, instance);
        wire_reader_init(&element, view, element_bytes);
        get_element(&element, record, object + element_off(record, i));
        if (element.failed)
            return damaged(decoder, "ends within a field", record->type, instance);
    }
    if (record->is_array)
        memcpy(object + record->count_off, &elements, sizeof(elements));
    return 0;
}

/* The first record says how large the state is. */
static int get_machine(struct decoder *decoder, uint32_t element_bytes, uint32_t elements)
{
    struct vm_state counts = {0};
    decoder->state = &counts;
    int r = get_elements(decoder, state_record_find(STATE_MACHINE), 0, element_bytes, elements);
    decoder->state = NULL;
    if (r < 0)
        return r;
    if (counts.vcpu_count < 1 || counts.vcpu_count > THAW_VCPUS_MAX ||
        counts.machine.disk_count > THAW_DISKS_MAX)
        return damaged(decoder, "is of a machine that cannot be", STATE_MACHINE, 0);
    decoder->state = vm_state_new(counts.vcpu_count);
    if (!decoder->state)
        return error_errno(decoder->error, ENOMEM, "allocating a VM's state");
    decoder->state->machine.disk_count = counts.machine.disk_count;
    return 0;
}

/* Reads a record. Returns 1, or 0 at the end. */
static int get_record(struct decoder *decoder)
{
    uint32_t type = wire_get_u16(&decoder->reader);
    uint32_t instance = wire_get_u16(&decoder->reader);
    uint32_t element_bytes = wire_get_u32(&decoder->reader);
    uint32_t elements = wire_get_u32(&decoder->reader);
    if (decoder->reader.failed)
        return damaged(decoder, "is cut off", type, instance);
    if (type == STATE_END)
        return 0;
    if (element_bytes > STATE_RECORD_BYTES_MAX || elements > STATE_RECORD_BYTES_MAX ||
        (uint64_t)element_bytes * elements > STATE_RECORD_BYTES_MAX)
        return damaged(decoder, "is larger than any may be", type, instance);

    const struct state_record *record = state_record_find(type);
    if (!record && (type & STATE_TYPE_IGNORABLE)) {
        wire_get_view(&decoder->reader, (size_t)element_bytes * elements);
        return 1;
    }
    if (!record)
        return error_set(decoder->error, -EOPNOTSUPP,
            "VM state '%s' has a record of type %u, which this version of thaw does not know",
            decoder->name, type);
    if ((type == STATE_MACHINE) != (decoder->state == NULL) ||
        (type == STATE_MACHINE && instance != 0))
        return damaged(decoder, "comes in the wrong place", type, instance);
    int r;
    if (type == STATE_MACHINE) {
        r = get_machine(decoder, element_bytes, elements);
    } else {
        const struct vm_state *state = decoder->state;
        if (instance >=
                state_record_instances(record, state->vcpu_count, state->machine.disk_count) ||
            (decoder->seen[type] >> instance & 1))
            return damaged(decoder, "is one too many", type, instance);
        decoder->seen[type] |= (uint64_t)1 << instance;
        r = get_elements(decoder, record, instance, element_bytes, elements);
    }
    return r < 0 ? r : 1;
}

static int check_complete(struct decoder *decoder)
{
    for (size_t i = 0; i < state_record_count; i++) {
        const struct state_record *record = &state_records[i];
        uint32_t instances = decoder->state
                                 ? state_record_instances(record, decoder->state->vcpu_count,
                                       decoder->state->machine.disk_count)
                                 : 1;
        uint64_t all = ((uint64_t)1 << instances) - 1;
        if (record->type != STATE_MACHINE && decoder->seen[record->type] != all)
            return damaged(decoder, "is missing", record->type, 0);
    }
    if (!decoder->state || decoder->reader.left != 0)
        return damaged(decoder, "is not where the file ends", STATE_END, 0);
    return 0;
}

static int get_all(struct decoder *decoder)
{
    int r;
    do
        r = get_record(decoder);
    while (r > 0);
    return r < 0 ? r : check_complete(decoder);
}

int state_file_decode(const uint8_t *bytes, size_t count, const char *name, struct vm_state **ret,
    struct thaw_error *error)
{
    struct file_header header;
    int r = file_header_read(FILE_KIND_STATE, bytes, count, name, &header, error);
    if (r < 0)
        return r;
    if (count < header.header_bytes + FILE_CHECK_BYTES)
        return error_set(error, THAW_ECORRUPT, "VM state '%s' is cut off", name);
    size_t checked = count - FILE_CHECK_BYTES;
    struct wire_b16 check = check_128(&header.id, sizeof(header.id), bytes, checked);
    struct wire_b16 stored = wire_load_b16(bytes + checked);
    if (!wire_b16_equal(&check, &stored))
        return error_set(
            error, THAW_ECORRUPT, "VM state '%s' is damaged: its checksum does not match", name);

    struct decoder decoder = {.name = name, .error = error};
    wire_reader_init(&decoder.reader, bytes + header.header_bytes, checked - header.header_bytes);
    r = get_all(&decoder);
    if (r < 0) {
        vm_state_free(decoder.state);
        return r;
    }
    *ret = decoder.state;
    return 0;
}

/* --- Describing ------------------------------------------------------------------------------- */

static json_t *describe_bytes(const uint8_t *bytes, size_t count)
{
    char *text _cleanup_free_ = malloc(2 * count + 1);
    if (!text)
        return NULL;
    text[0] = '\0';
    for (size_t i = 0; i < count; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return json_string(text);
}

static json_t *describe_value(const char *at, unsigned width)
{
    char text[24];
    snprintf(text, sizeof(text), "0x%" PRIx64, load_host(at, width));
    return json_string(text);
}

static json_t *describe_field(const struct state_field *field, const char *object)
{
    const char *at = object + field->offset;
    if (field->kind == STATE_BOOL)
        return json_boolean(*(const bool *)at);
    if (field->count == 1)
        return describe_value(at, field->width);
    if (field->width == 1)
        return describe_bytes((const uint8_t *)at, field->count);
    json_t *values = json_array();
    for (uint16_t i = 0; i < field->count; i++)
        json_build_append(&values, describe_value(at + (size_t)i * field->width, field->width));
    return values;
}

/* "sregs.cs.base" within the record sregs is "cs.base". */
static const char *short_name(const struct state_record *record, const char *name)
{
    size_t length = strlen(record->name);
    return strncmp(name, record->name, length) == 0 && name[length] == '.' ? name + length + 1
                                                                           : name;
}

static json_t *describe_element(const struct state_record *record, const char *object)
{
    json_t *fields = json_object();
    for (size_t i = 0; i < record->field_count; i++)
        json_build_set(&fields, short_name(record, record->fields[i].name),
            describe_field(&record->fields[i], object));
    return fields;
}

static json_t *describe_object(const struct state_record *record, const char *object)
{
    uint32_t elements = element_count(record, object);
    if (!record->is_array)
        return describe_element(record, object);
    if (record->element_bytes == 1)
        return describe_bytes((const uint8_t *)object + record->array_off, elements);
    json_t *list = json_array();
    for (uint32_t i = 0; i < elements; i++)
        json_build_append(&list, describe_element(record, object + element_off(record, i)));
    return list;
}

json_t *state_file_describe(const struct vm_state *state)
{
    struct vm_state *source = (struct vm_state *)(uintptr_t)state;
    json_t *all = json_object();
    for (size_t i = 0; i < state_record_count; i++) {
        const struct state_record *record = &state_records[i];
        uint32_t instances =
            state_record_instances(record, state->vcpu_count, state->machine.disk_count);
        json_t *list = json_array();
        for (uint32_t n = 0; n < instances; n++)
            json_build_append(
                &list, describe_object(record, state_record_object(record, source, n)));
        json_build_set(&all, record->name, list);
    }
    return all;
}
