/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of files: little-endian loads and stores, bounded cursors, and records described once.
 *
 * A cursor that would leave its bounds becomes `failed` and stays so; a reader then returns zeros
 * and a writer drops what it is given. Callers check once, at the end.
 */
#ifndef SNAPSHOT_WIRE_H
#define SNAPSHOT_WIRE_H

#include "util.h"
#include <endian.h>
#include <string.h>

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "arrays of files are used in place");

/* Sixteen bytes without an inner order: an identity or a 128-bit check in canonical form. */
struct wire_b16 {
    uint8_t bytes[16];
};

static inline bool wire_b16_equal(const struct wire_b16 *a, const struct wire_b16 *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

static inline uint8_t wire_load_u8(const uint8_t *at)
{
    return *at;
}

static inline uint16_t wire_load_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return le16toh(value);
}

static inline uint32_t wire_load_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

static inline uint64_t wire_load_u64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

static inline struct wire_b16 wire_load_b16(const uint8_t *at)
{
    struct wire_b16 value;
    memcpy(value.bytes, at, sizeof(value.bytes));
    return value;
}

static inline void wire_store_u8(uint8_t *at, uint8_t value)
{
    *at = value;
}

static inline void wire_store_u16(uint8_t *at, uint16_t value)
{
    value = htole16(value);
    memcpy(at, &value, sizeof(value));
}

static inline void wire_store_u32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
}

static inline void wire_store_u64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
}

static inline void wire_store_b16(uint8_t *at, struct wire_b16 value)
{
    memcpy(at, value.bytes, sizeof(value.bytes));
}

/*
 * WIRE_RECORD(x, X_BYTES, X_FIELDS) makes struct x, x_encode() and x_decode() from one table:
 *
 *     #define X_FIELDS(FIELD) FIELD(u64, offset, 0) FIELD(u32, bytes, 8) FIELD(u32, reserved, 12)
 *
 * Types are u8, u16, u32, u64 and b16. A table names every byte of the record once, in order:
 * reserved bytes are fields that encoders leave zero and decoders ignore. The same table can be
 * given another macro, for instance to print the record.
 */
#define WIRE_CTYPE_u8                   uint8_t
#define WIRE_CTYPE_u16                  uint16_t
#define WIRE_CTYPE_u32                  uint32_t
#define WIRE_CTYPE_u64                  uint64_t
#define WIRE_CTYPE_b16                  struct wire_b16

#define WIRE_MEMBER(type, name, offset) WIRE_CTYPE_##type name;
#define WIRE_SIZE(type, name, offset)   +sizeof(WIRE_CTYPE_##type)
#define WIRE_STORE(type, name, offset)  wire_store_##type(bytes + (offset), record->name);
#define WIRE_LOAD(type, name, offset)   record->name = wire_load_##type(bytes + (offset));

#define WIRE_RECORD(record_name, total_bytes, FIELDS)                                              \
    struct record_name {                                                                           \
        FIELDS(WIRE_MEMBER)                                                                        \
    };                                                                                             \
    _Static_assert((0 FIELDS(WIRE_SIZE)) == (total_bytes), #record_name " has gaps");              \
    static inline void record_name##_encode(const struct record_name *record, uint8_t *bytes)      \
    {                                                                                              \
        FIELDS(WIRE_STORE)                                                                         \
    }                                                                                              \
    static inline void record_name##_decode(struct record_name *record, const uint8_t *bytes)      \
    {                                                                                              \
        FIELDS(WIRE_LOAD)                                                                          \
    }                                                                                              \
    struct record_name

struct wire_reader {
    const uint8_t *at;
    size_t left;
    bool failed;
};

void wire_reader_init(struct wire_reader *reader, const void *bytes, size_t count);

uint8_t wire_get_u8(struct wire_reader *reader);
uint16_t wire_get_u16(struct wire_reader *reader);
uint32_t wire_get_u32(struct wire_reader *reader);
uint64_t wire_get_u64(struct wire_reader *reader);
struct wire_b16 wire_get_b16(struct wire_reader *reader);

/* Copies `count` bytes to dst, or zeros where they are not there. */
void wire_get_bytes(struct wire_reader *reader, void *dst, size_t count);

/* Steps over `count` bytes and returns where they begin, borrowed from the reader's buffer; NULL
 * where they are not there. */
const uint8_t *wire_get_view(struct wire_reader *reader, size_t count);

/* True if everything was there and nothing is left over. */
bool wire_reader_done(const struct wire_reader *reader);

struct wire_writer {
    uint8_t *bytes; /* owned if `growing` */
    size_t used;
    size_t capacity;
    bool growing;
    bool failed;
};

/* A writer into a buffer that grows, and belongs to the writer until wire_writer_fini. It fails
 * when memory runs out. */
void wire_writer_init(struct wire_writer *writer);
/* A writer into the caller's buffer. It fails where that ends. */
void wire_writer_init_fixed(struct wire_writer *writer, void *bytes, size_t capacity);
void wire_writer_fini(struct wire_writer *writer);

void wire_put_u8(struct wire_writer *writer, uint8_t value);
void wire_put_u16(struct wire_writer *writer, uint16_t value);
void wire_put_u32(struct wire_writer *writer, uint32_t value);
void wire_put_u64(struct wire_writer *writer, uint64_t value);
void wire_put_b16(struct wire_writer *writer, struct wire_b16 value);
void wire_put_bytes(struct wire_writer *writer, const void *bytes, size_t count);
void wire_put_zeros(struct wire_writer *writer, size_t count);

/* Makes room for `count` bytes to be filled in by the caller, valid until the next call; NULL when
 * failed. */
uint8_t *wire_put_room(struct wire_writer *writer, size_t count);

#endif
