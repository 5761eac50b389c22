// SPDX-License-Identifier: Apache-2.0
#include "frame.h"
#include <criterion/criterion.h>
#include <zstd.h>

static const struct wire_b16 pack_id = {{0x42}};

struct encoded {
    struct frame_entry entry;
    const uint8_t *stored;
    uint8_t *raw, *packed;
};

static void fill_random(uint8_t *bytes, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        bytes[i] = (uint8_t)(seed >> 56);
    }
}

static struct encoded encode(unsigned slots, bool compressible)
{
    struct encoded e = {0};
    size_t bytes = slots * FORMAT_PAGE_BYTES;
    e.raw = malloc(bytes);
    e.packed = malloc(frame_encode_bound(slots));
    fill_random(e.raw, bytes, slots);
    if (compressible)
        for (size_t i = 0; i < bytes; i++)
            e.raw[i] &= 3;
    ZSTD_CCtx *context = ZSTD_createCCtx();
    cr_assert_eq(
        frame_encode(context, &pack_id, 5, e.raw, slots, e.packed, &e.entry, &e.stored, NULL), 0);
    ZSTD_freeCCtx(context);
    return e;
}

static void encoded_fini(struct encoded *e)
{
    free(e->raw);
    free(e->packed);
}

static int decode(const struct encoded *e, struct frame_scratch *scratch)
{
    cr_assert_eq(frame_scratch_reserve(scratch, e->entry.slots, NULL), 0);
    return frame_decode(scratch, &pack_id, 5, &e->entry, e->stored, NULL);
}

Test(frame, a_page_is_zero_only_if_every_byte_is)
{
    static uint8_t page[FORMAT_PAGE_BYTES];
    cr_assert(frame_page_is_zero(page));
    for (size_t i = 0; i < sizeof(page); i++) {
        page[i] = 0x10;
        cr_assert(!frame_page_is_zero(page), "byte %zu", i);
        page[i] = 0;
    }
    memset(page, 0xff, sizeof(page));
    cr_assert(!frame_page_is_zero(page));
}

Test(frame, pages_that_shrink_are_compressed_and_come_back)
{
    struct frame_scratch scratch = {0};
    static const unsigned sizes[] = {1, 16, 255, FRAME_PAGES_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct encoded e = encode(sizes[i], true);
        cr_assert_eq(e.entry.codec, FRAME_CODEC_ZSTD);
        cr_assert_lt(e.entry.stored_bytes, e.entry.raw_bytes);
        cr_assert_eq(e.entry.raw_bytes, sizes[i] * FORMAT_PAGE_BYTES);
        cr_assert_eq(decode(&e, &scratch), 0);
        cr_assert_eq(memcmp(scratch.pages, e.raw, e.entry.raw_bytes), 0);
        encoded_fini(&e);
    }
    frame_scratch_fini(&scratch);
}

Test(frame, pages_that_do_not_shrink_are_stored_as_they_are)
{
    struct frame_scratch scratch = {0};
    struct encoded e = encode(16, false);
    cr_assert_eq(e.entry.codec, FRAME_CODEC_RAW);
    cr_assert_eq(e.entry.stored_bytes, e.entry.raw_bytes);
    cr_assert_eq(e.stored, e.raw);
    cr_assert_eq(decode(&e, &scratch), 0);
    cr_assert_eq(memcmp(scratch.pages, e.raw, e.entry.raw_bytes), 0);
    encoded_fini(&e);
    frame_scratch_fini(&scratch);
}

Test(frame, damage_is_found_before_decompression)
{
    struct frame_scratch scratch = {0};
    struct encoded e = encode(2, true);
    cr_assert_eq(decode(&e, &scratch), 0);
    memset(scratch.pages, 0x77, FORMAT_PAGE_BYTES);
    for (size_t bit = 0; bit < (size_t)e.entry.stored_bytes * 8; bit += 7) {
        e.packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(decode(&e, &scratch), THAW_ECORRUPT, "bit %zu", bit);
        cr_assert_eq(scratch.pages[0], 0x77);
        e.packed[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    encoded_fini(&e);
    frame_scratch_fini(&scratch);
}

Test(frame, a_frame_in_another_place_is_damage)
{
    struct frame_scratch scratch = {0};
    struct encoded e = encode(3, true);
    struct wire_b16 other_pack = {{0x43}};
    cr_assert_eq(decode(&e, &scratch), 0);
    cr_assert_eq(frame_decode(&scratch, &other_pack, 5, &e.entry, e.stored, NULL), THAW_ECORRUPT);
    cr_assert_eq(frame_decode(&scratch, &pack_id, 6, &e.entry, e.stored, NULL), THAW_ECORRUPT);
    struct frame_entry entry = e.entry;
    entry.slots--;
    entry.raw_bytes -= FORMAT_PAGE_BYTES;
    cr_assert_eq(frame_decode(&scratch, &pack_id, 5, &entry, e.stored, NULL), THAW_ECORRUPT);
    encoded_fini(&e);
    frame_scratch_fini(&scratch);
}

/* Whoever makes a file can compute its checks. */
static void assert_hostile(struct frame_entry entry, const uint8_t *stored, const char *expected)
{
    struct frame_scratch scratch = {0};
    struct thaw_error error;
    entry.check = frame_compute_check(&pack_id, 5, &entry, stored);
    cr_assert_eq(frame_scratch_reserve(&scratch, 16, NULL), 0);
    cr_assert_eq(frame_decode(&scratch, &pack_id, 5, &entry, stored, &error), THAW_ECORRUPT);
    cr_assert_not_null(strstr(error.message, expected), "%s", error.message);
    frame_scratch_fini(&scratch);
}

Test(frame, hostile_contents_with_good_checks_are_refused)
{
    struct encoded e = encode(4, true);
    struct frame_entry entry = e.entry;
    entry.slots = 3; /* decompresses to more than it says */
    entry.raw_bytes = 3 * FORMAT_PAGE_BYTES;
    assert_hostile(entry, e.stored, "do not decompress");
    entry.slots = 5; /* to less */
    entry.raw_bytes = 5 * FORMAT_PAGE_BYTES;
    assert_hostile(entry, e.stored, "instead of");
    entry = e.entry;
    entry.stored_bytes--; /* cut short */
    assert_hostile(entry, e.stored, "do not decompress");
    entry = e.entry; /* no compressed data at all */
    assert_hostile(entry, e.raw, "do not decompress");
    encoded_fini(&e);
}

Test(frame, a_scratch_grows_and_can_be_given_back_twice)
{
    struct frame_scratch scratch = {0};
    cr_assert_eq(frame_scratch_reserve(&scratch, 1, NULL), 0);
    cr_assert_eq(frame_scratch_reserve(&scratch, 64, NULL), 0);
    memset(scratch.pages, 1, 64 * FORMAT_PAGE_BYTES);
    cr_assert_eq(frame_scratch_reserve(&scratch, 2, NULL), 0);
    cr_assert_eq(scratch.frame_pages, 64);
    frame_scratch_fini(&scratch);
    frame_scratch_fini(&scratch);
    frame_scratch_fini(NULL);
}
