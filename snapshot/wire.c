// SPDX-License-Identifier: Apache-2.0
// Bounded cursors over bytes. Knows no record and does no I/O.

#include "wire.h"

#define GROW_BYTES_MIN 256

void wire_reader_init(struct wire_reader *reader, const void *bytes, size_t count)
{
    *reader = (struct wire_reader){.at = bytes, .left = count};
}

const uint8_t *wire_get_view(struct wire_reader *reader, size_t count)
{
    if (reader->failed || count > reader->left) {
        reader->failed = true;
        return NULL;
    }
    const uint8_t *at = reader->at;
    /* An empty reader may have no buffer at all, and NULL + 0 is undefined. */
    if (count > 0)
        reader->at += count;
    reader->left -= count;
    return at;
}

void wire_get_bytes(struct wire_reader *reader, void *dst, size_t count)
{
    if (count == 0)
        return;
    const uint8_t *at = wire_get_view(reader, count);
    if (at)
        memcpy(dst, at, count);
    else
        memset(dst, 0, count);
}

uint8_t wire_get_u8(struct wire_reader *reader)
{
    const uint8_t *at = wire_get_view(reader, sizeof(uint8_t));
    return at ? wire_load_u8(at) : 0;
}

uint16_t wire_get_u16(struct wire_reader *reader)
{
    const uint8_t *at = wire_get_view(reader, sizeof(uint16_t));
    return at ? wire_load_u16(at) : 0;
}

uint32_t wire_get_u32(struct wire_reader *reader)
{
    const uint8_t *at = wire_get_view(reader, sizeof(uint32_t));
    return at ? wire_load_u32(at) : 0;
}

uint64_t wire_get_u64(struct wire_reader *reader)
{
    const uint8_t *at = wire_get_view(reader, sizeof(uint64_t));
    return at ? wire_load_u64(at) : 0;
}

struct wire_b16 wire_get_b16(struct wire_reader *reader)
{
    struct wire_b16 value;
    wire_get_bytes(reader, value.bytes, sizeof(value.bytes));
    return value;
}

bool wire_reader_done(const struct wire_reader *reader)
{
    return !reader->failed && reader->left == 0;
}

void wire_writer_init(struct wire_writer *writer)
{
    *writer = (struct wire_writer){.growing = true};
}

void wire_writer_init_fixed(struct wire_writer *writer, void *bytes, size_t capacity)
{
    *writer = (struct wire_writer){.bytes = bytes, .capacity = capacity};
}

void wire_writer_fini(struct wire_writer *writer)
{
    if (!writer)
        return;
    if (writer->growing)
        free(writer->bytes);
    *writer = (struct wire_writer){.failed = true};
}

static bool grow(struct wire_writer *writer, size_t count)
{
    if (!writer->growing || count > SIZE_MAX / 2 - writer->used)
        return false;
    size_t capacity = MAX(writer->capacity, (size_t)GROW_BYTES_MIN);
    while (capacity - writer->used < count)
        capacity *= 2;
    uint8_t *bytes = realloc(writer->bytes, capacity);
    if (!bytes)
        return false;
    writer->bytes = bytes;
    writer->capacity = capacity;
    return true;
}

uint8_t *wire_put_room(struct wire_writer *writer, size_t count)
{
    if (writer->failed)
        return NULL;
    if (count > writer->capacity - writer->used && !grow(writer, count)) {
        writer->failed = true;
        return NULL;
    }
    uint8_t *at = writer->bytes;
    if (writer->used > 0)
        at += writer->used;
    writer->used += count;
    return at;
}

void wire_put_bytes(struct wire_writer *writer, const void *bytes, size_t count)
{
    uint8_t *at = count > 0 ? wire_put_room(writer, count) : NULL;
    if (at)
        memcpy(at, bytes, count);
}

void wire_put_zeros(struct wire_writer *writer, size_t count)
{
    uint8_t *at = count > 0 ? wire_put_room(writer, count) : NULL;
    if (at)
        memset(at, 0, count);
}

void wire_put_u8(struct wire_writer *writer, uint8_t value)
{
    wire_put_bytes(writer, &value, sizeof(value));
}

void wire_put_u16(struct wire_writer *writer, uint16_t value)
{
    uint8_t *at = wire_put_room(writer, sizeof(value));
    if (at)
        wire_store_u16(at, value);
}

void wire_put_u32(struct wire_writer *writer, uint32_t value)
{
    uint8_t *at = wire_put_room(writer, sizeof(value));
    if (at)
        wire_store_u32(at, value);
}

void wire_put_u64(struct wire_writer *writer, uint64_t value)
{
    uint8_t *at = wire_put_room(writer, sizeof(value));
    if (at)
        wire_store_u64(at, value);
}

void wire_put_b16(struct wire_writer *writer, struct wire_b16 value)
{
    wire_put_bytes(writer, value.bytes, sizeof(value.bytes));
}
