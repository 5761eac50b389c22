// SPDX-License-Identifier: Apache-2.0
// Packs are untrusted. Any bytes are refused, or every frame that opening admitted can be read or
// is refused. The last byte chooses: even, the file is as it stands; odd, its checksums are made
// good first, so that what lies behind them is reached too.

#include "check.h"
#include "fuzz.h"
#include "pack.h"
#include <stdio.h>
#include <sys/mman.h>

static void make_checksums_good(uint8_t *bytes, size_t count)
{
    if (count < FILE_HEADER_BYTES + PACK_FOOTER_BYTES)
        return;
    size_t header_bytes = wire_load_u32(bytes + 12);
    if (header_bytes >= FILE_HEADER_BYTES && header_bytes <= count)
        wire_store_u64(bytes + header_bytes - 8, check_64(bytes, header_bytes - 8));
    struct pack_footer footer;
    uint8_t *at = bytes + count - PACK_FOOTER_BYTES;
    memcpy(at + 8, bytes + 32, 16); /* the pack's id */
    pack_footer_decode(&footer, at);
    size_t table_end = count - PACK_FOOTER_BYTES;
    if (footer.table_off > table_end)
        return;
    for (uint64_t frame = 0; frame < footer.frame_count; frame++) {
        uint64_t off = footer.table_off + frame * FRAME_ENTRY_BYTES;
        if (!range_fits(off, FRAME_ENTRY_BYTES, table_end))
            break;
        struct frame_entry entry;
        frame_entry_decode(&entry, bytes + off);
        if (!range_fits(entry.file_off, entry.stored_bytes, count))
            continue;
        entry.check = frame_compute_check(&footer.pack_id, frame, &entry, bytes + entry.file_off);
        frame_entry_encode(&entry, bytes + off);
    }
    footer.table_check = check_128(footer.pack_id.bytes, sizeof(footer.pack_id.bytes),
        bytes + footer.table_off, table_end - footer.table_off);
    pack_footer_encode(&footer, at);
    wire_store_u64(at + PACK_FOOTER_CHECKED_BYTES, check_64(at, PACK_FOOTER_CHECKED_BYTES));
}

static void read_all(const struct pack_reader *reader)
{
    static struct frame_scratch scratch; /* kept: allocating it dominates otherwise */
    struct thaw_error error;
    unsigned sum = 0;
    for (uint64_t frame = 0; frame < pack_reader_frame_count(reader); frame++) {
        int slots = pack_read_frame(reader, frame, &scratch, &error);
        for (int i = 0; i < slots; i++)
            sum += scratch.pages[i * (int)FORMAT_PAGE_BYTES];
    }
    for (uint64_t page = 0; page < pack_reader_page_count(reader); page++)
        sum += SLOT_SPACE(pack_reader_slot(reader, page));
    fuzz_use(sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    if (count == 0)
        return 0;
    uint8_t *bytes = fuzz_copy(data, --count);
    if (data[count] % 2)
        make_checksums_good(bytes, count);
    int fd = memfd_create("pack", MFD_CLOEXEC);
    struct pack_reader *reader;
    struct thaw_error error;
    if (fd >= 0 && pwrite(fd, bytes, count, 0) == (ssize_t)count &&
        pack_reader_open_fd(fd, "fuzz", NULL, &reader, &error) == 0) {
        read_all(reader);
        pack_reader_close(reader);
    }
    close(fd);
    free(bytes);
    return 0;
}
