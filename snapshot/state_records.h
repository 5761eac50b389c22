/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records of a VM state file: for each, one table of fields that encoding, decoding and
 * inspecting all follow. docs/format.md lists the same, and changes with it.
 */
#ifndef SNAPSHOT_STATE_RECORDS_H
#define SNAPSHOT_STATE_RECORDS_H

#include "vm_state.h"

enum state_type {
    STATE_END = 0,
    STATE_MACHINE = 1, /* first: how many vCPUs and disks there are */
    STATE_CLOCK = 2,
    STATE_PIT = 3,
    STATE_PIC = 4, /* instance 0 master, 1 slave */
    STATE_IOAPIC = 5,
    STATE_SERIAL = 6,
    /* instance: the vCPU's index */
    STATE_VCPU = 16,
    STATE_REGS = 17,
    STATE_SREGS = 18,
    STATE_XCRS = 19,
    STATE_DEBUGREGS = 20,
    STATE_LAPIC = 21,
    STATE_EVENTS = 22,
    STATE_CPUID = 23,
    STATE_MSRS = 24,
    STATE_XSAVE = 25,
    /* instance: 0 the entropy device, 1 + k disk k */
    STATE_VIRTIO = 32,
    STATE_QUEUES = 33,
    /* instance: k of disk k */
    STATE_PARKED = 34, /* requests that wait for room on the host */
};

/* A reader that does not know a type with this bit may pass over the record. */
#define STATE_TYPE_IGNORABLE   0x8000u

#define STATE_RECORD_BYTES_MAX (64u << 10)
#define STATE_FILE_BYTES_MAX   (16u << 20)

enum state_field_kind {
    STATE_UINT, /* `width` bytes, little-endian; `count` of them in a row */
    STATE_BOOL, /* one byte, 0 or 1 */
};

/* A member of a host struct, and so many bytes of the record. */
struct state_field {
    const char *name;
    enum state_field_kind kind;
    uint8_t width;
    uint16_t count;
    size_t offset;
};

struct state_record {
    enum state_type type;
    const char *name;
    const struct state_field *fields;
    size_t field_count;
    /* An array: the record holds elements, as many as the uint32_t at count_off of the object says
     * (at most count_max), that begin at array_off and are element_bytes apart. */
    bool is_array;
    size_t element_bytes, array_off, count_off;
    uint32_t count_max;
};

extern const struct state_record state_records[];
extern const size_t state_record_count;

/* NULL: unknown. */
const struct state_record *state_record_find(uint32_t type);

/* How many instances of a record a machine with so many vCPUs and disks has. */
uint32_t state_record_instances(
    const struct state_record *record, uint32_t vcpu_count, uint32_t disk_count);

/* The object in *state that an instance of a record describes. */
void *state_record_object(
    const struct state_record *record, struct vm_state *state, uint32_t instance);

#endif
