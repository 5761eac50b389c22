// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "file_header.h"
#include "wire.h"
#include <criterion/criterion.h>

Test(wire, what_is_put_is_got_back_in_little_endian)
{
    struct wire_writer w;
    wire_writer_init(&w);
    struct wire_b16 id = {{1, 2, 3}};
    wire_put_u8(&w, 0x01);
    wire_put_u16(&w, 0x0203);
    wire_put_u32(&w, 0x04050607);
    wire_put_u64(&w, 0x08090a0b0c0d0e0f);
    wire_put_b16(&w, id);
    wire_put_bytes(&w, "xyz", 3);
    wire_put_zeros(&w, 2);
    cr_assert(!w.failed);
    cr_assert_eq(w.used, 36);
    static const uint8_t begin[] = {1, 3, 2, 7, 6, 5, 4, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 9, 8};
    cr_assert_eq(memcmp(w.bytes, begin, sizeof(begin)), 0);

    struct wire_reader r;
    char text[3];
    wire_reader_init(&r, w.bytes, w.used);
    cr_assert_eq(wire_get_u8(&r), 0x01);
    cr_assert_eq(wire_get_u16(&r), 0x0203);
    cr_assert_eq(wire_get_u32(&r), 0x04050607);
    cr_assert_eq(wire_get_u64(&r), 0x08090a0b0c0d0e0f);
    struct wire_b16 got = wire_get_b16(&r);
    cr_assert(wire_b16_equal(&got, &id));
    wire_get_bytes(&r, text, 3);
    cr_assert_eq(memcmp(text, "xyz", 3), 0);
    cr_assert(!wire_reader_done(&r));
    cr_assert_eq(wire_get_u16(&r), 0);
    cr_assert(wire_reader_done(&r));
    wire_writer_fini(&w);
}

Test(wire, a_reader_past_its_end_gives_zeros_from_then_on)
{
    static const uint8_t bytes[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct wire_reader r;
    wire_reader_init(&r, bytes, sizeof(bytes));
    cr_assert_eq(wire_get_u32(&r), UINT32_MAX);
    cr_assert_eq(wire_get_u32(&r), 0);
    cr_assert(r.failed);
    cr_assert_eq(wire_get_u8(&r), 0, "what is left is not handed out after a failure");
    char text[4] = "abc";
    wire_get_bytes(&r, text, sizeof(text));
    cr_assert_eq(memcmp(text, "\0\0\0\0", 4), 0);
    cr_assert_null(wire_get_view(&r, 1));
    cr_assert(!wire_reader_done(&r));
}

Test(wire, huge_counts_do_not_wrap)
{
    static const uint8_t bytes[8] = {0};
    struct wire_reader r;
    wire_reader_init(&r, bytes, sizeof(bytes));
    wire_get_u8(&r);
    cr_assert_null(wire_get_view(&r, SIZE_MAX));
    cr_assert(r.failed);

    struct wire_writer w;
    wire_writer_init(&w);
    wire_put_u8(&w, 1);
    cr_assert_null(wire_put_room(&w, SIZE_MAX));
    cr_assert(w.failed);
    wire_writer_fini(&w);
}

Test(wire, an_empty_reader_and_an_empty_writer_are_fine)
{
    struct wire_reader r;
    wire_reader_init(&r, NULL, 0);
    cr_assert(wire_reader_done(&r));
    cr_assert_null(wire_get_view(&r, 0));
    cr_assert(wire_reader_done(&r));
    cr_assert_eq(wire_get_u64(&r), 0);
    cr_assert(!wire_reader_done(&r));

    struct wire_writer w;
    wire_writer_init(&w);
    wire_put_bytes(&w, NULL, 0);
    cr_assert(!w.failed);
    wire_writer_fini(&w);
    wire_writer_fini(NULL);
}

Test(wire, a_fixed_writer_never_leaves_its_buffer)
{
    uint8_t buffer[8] = {0, 0, 0, 0, 0, 0, 0, 0xee};
    struct wire_writer w;
    wire_writer_init_fixed(&w, buffer, 7);
    wire_put_u32(&w, 1);
    wire_put_u32(&w, 2);
    cr_assert(w.failed);
    wire_put_u8(&w, 3);
    cr_assert_eq(w.used, 4);
    cr_assert_eq(buffer[4], 0);
    cr_assert_eq(buffer[7], 0xee);
    wire_writer_fini(&w);
}

Test(wire, a_growing_writer_keeps_what_it_has)
{
    struct wire_writer w;
    wire_writer_init(&w);
    for (uint32_t i = 0; i < 100000; i++)
        wire_put_u32(&w, i);
    cr_assert(!w.failed);
    for (uint32_t i = 0; i < 100000; i++)
        cr_assert_eq(wire_load_u32(w.bytes + 4 * i), i);
    wire_writer_fini(&w);
}

Test(wire, a_record_is_encoded_at_its_offsets)
{
    const struct frame_entry entry = {
        .file_off = 0x1122334455667788,
        .stored_bytes = 1,
        .raw_bytes = 2,
        .codec = 3,
        .slots = 4,
        .first_slot = 5,
        .check = {{0xaa}},
    };
    uint8_t bytes[FRAME_ENTRY_BYTES];
    frame_entry_encode(&entry, bytes);
    cr_assert_eq(wire_load_u64(bytes), 0x1122334455667788);
    cr_assert_eq(bytes[8], 1);
    cr_assert_eq(bytes[12], 2);
    cr_assert_eq(bytes[16], 3);
    cr_assert_eq(bytes[18], 4);
    cr_assert_eq(bytes[32], 5);
    cr_assert_eq(bytes[48], 0xaa);
    struct frame_entry back;
    frame_entry_decode(&back, bytes);
    cr_assert_eq(back.file_off, entry.file_off);
    cr_assert(wire_b16_equal(&back.check, &entry.check));
}

/* --- The header that files begin with --------------------------------------------------------- */

static void write_header(uint8_t *bytes)
{
    struct file_header header = {.id = {{7}}, .page_shift = 12, .frame_pages = 16};
    file_header_write(FILE_KIND_PACK, &header, bytes);
}

static void reseal(uint8_t *bytes, size_t count)
{
    wire_store_u64(bytes + count - 8, check_64(bytes, count - 8));
}

Test(file_header, is_read_back)
{
    uint8_t bytes[FILE_HEADER_BYTES];
    struct file_header header;
    struct thaw_error error;
    write_header(bytes);
    cr_assert_eq(memcmp(bytes, "THAWpack", 8), 0);
    cr_assert_eq(file_header_read(FILE_KIND_PACK, bytes, sizeof(bytes), "p", &header, &error), 0);
    cr_assert_eq(header.id.bytes[0], 7);
    cr_assert_eq(header.major, PACK_MAJOR);
    cr_assert_eq(header.header_bytes, FILE_HEADER_BYTES);
    cr_assert_eq(file_header_read(FILE_KIND_INDEX, bytes, sizeof(bytes), "p", &header, &error),
        THAW_ECORRUPT);
    cr_assert_not_null(strstr(error.message, "page index"));
}

Test(file_header, any_flipped_bit_and_any_truncation_is_damage)
{
    uint8_t bytes[FILE_HEADER_BYTES];
    struct file_header header;
    for (unsigned bit = 0; bit < 8 * FILE_HEADER_BYTES; bit++) {
        write_header(bytes);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(file_header_read(FILE_KIND_PACK, bytes, sizeof(bytes), "p", &header, NULL),
            THAW_ECORRUPT, "bit %u", bit);
    }
    write_header(bytes);
    for (size_t count = 0; count < sizeof(bytes); count++)
        cr_assert_eq(
            file_header_read(FILE_KIND_PACK, bytes, count, "p", &header, NULL), THAW_ECORRUPT);
}

Test(file_header, a_newer_minor_with_a_longer_header_is_read)
{
    uint8_t bytes[128] = {0};
    struct file_header header;
    write_header(bytes);
    memset(bytes + 56, 0xab, 64);
    wire_store_u16(bytes + 10, 99);
    wire_store_u32(bytes + 12, 128);
    wire_store_u64(bytes + 24, UINT64_MAX); /* ignorable features */
    reseal(bytes, 128);
    cr_assert_eq(file_header_read(FILE_KIND_PACK, bytes, 128, "p", &header, NULL), 0);
    cr_assert_eq(header.minor, 99);
    cr_assert_eq(header.header_bytes, 128);
    cr_assert_eq(file_header_read(FILE_KIND_PACK, bytes, 127, "p", &header, NULL), THAW_ECORRUPT);
}

Test(file_header, a_newer_major_is_refused_and_named)
{
    uint8_t bytes[FILE_HEADER_BYTES];
    struct file_header header;
    struct thaw_error error;
    write_header(bytes);
    wire_store_u16(bytes + 8, 2);
    reseal(bytes, sizeof(bytes));
    cr_assert_eq(
        file_header_read(FILE_KIND_PACK, bytes, sizeof(bytes), "p", &header, &error), -EOPNOTSUPP);
    cr_assert_not_null(
        strstr(error.message, "pack 'p' has format version 2.0"), "%s", error.message);
}

Test(file_header, incompatible_features_are_refused_by_name_or_number)
{
    uint8_t bytes[FILE_HEADER_BYTES];
    struct file_header header;
    struct thaw_error error;
    write_header(bytes);
    wire_store_u64(bytes + 16, PACK_INCOMPAT_ENCRYPTED | 1ull << 40);
    reseal(bytes, sizeof(bytes));
    cr_assert_eq(
        file_header_read(FILE_KIND_PACK, bytes, sizeof(bytes), "p", &header, &error), -EOPNOTSUPP);
    cr_assert_not_null(strstr(error.message, "encrypted frames, feature 40"), "%s", error.message);

    wire_store_u64(bytes + 16, UINT64_MAX);
    reseal(bytes, sizeof(bytes));
    cr_assert_eq(
        file_header_read(FILE_KIND_PACK, bytes, sizeof(bytes), "p", &header, &error), -EOPNOTSUPP);
}

Test(file_header, impossible_sizes_are_damage_even_with_a_good_checksum)
{
    static const uint32_t sizes[] = {0, 8, 56, 63, 65, 68, 4104, UINT32_MAX};
    uint8_t bytes[FILE_HEADER_BYTES_MAX + 64] = {0};
    struct file_header header;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        write_header(bytes);
        wire_store_u32(bytes + 12, sizes[i]);
        if (sizes[i] >= 24 && sizes[i] <= sizeof(bytes))
            reseal(bytes, sizes[i]);
        cr_assert_eq(file_header_read(FILE_KIND_PACK, bytes, sizeof(bytes), "p", &header, NULL),
            THAW_ECORRUPT, "%u", sizes[i]);
    }
}
