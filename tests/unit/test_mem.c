// SPDX-License-Identifier: Apache-2.0
#include "mem.h"
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

static struct mem ram(uint64_t bytes)
{
    struct mem mem;
    struct thaw_error error;
    cr_assert_eq(mem_init(&mem, bytes, &error), 0, "%s", error.message);
    cr_assert_eq(mem_map_anonymous(&mem, &error), 0, "%s", error.message);
    return mem;
}

static bool is_dirty(const struct mem *mem, uint64_t ram_off)
{
    uint64_t page = ram_off / PAGE_BYTES;
    return mem->host_dirty[page / 64] >> (page % 64) & 1;
}

Test(mem, small_ram_is_one_region)
{
    struct mem mem = ram(16 * MIB);
    cr_assert_eq(mem.region_count, 1);
    cr_assert_eq(mem.regions[0].bytes, 16 * MIB);
    mem_fini(&mem);
}

Test(mem, ram_above_the_hole_starts_at_4_gib_and_is_contiguous_on_the_host)
{
    struct mem mem = ram(8 * GIB);
    cr_assert_eq(mem.region_count, 2);
    cr_assert_eq(mem.regions[0].bytes, 3 * GIB);
    cr_assert_eq(mem.regions[1].gpa, 4 * GIB);
    cr_assert_eq(mem.regions[1].bytes, 5 * GIB);

    void *below, *above;
    cr_assert_eq(mem_hva(&mem, 3 * GIB - 8, 8, &below), 0);
    cr_assert_eq(mem_hva(&mem, 4 * GIB, 8, &above), 0);
    cr_assert_eq((char *)above - (char *)below, 8);
    cr_assert_eq(mem_hva(&mem, 9 * GIB - 1, 1, &above), 0);
    cr_assert_eq(mem_hva(&mem, 9 * GIB, 1, &above), -EFAULT);
    mem_fini(&mem);
}

Test(mem, exactly_3_gib_has_no_second_region)
{
    struct mem mem = ram(3 * GIB);
    cr_assert_eq(mem.region_count, 1);
    mem_fini(&mem);
}

Test(mem, sizes_out_of_bounds_or_not_whole_mib_are_refused)
{
    struct mem mem;
    struct thaw_error error;
    static const uint64_t sizes[] = {
        0, 1, 15 * 1048576ull, 16 * 1048576ull + 4096, 2ull << 40, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        cr_assert_eq(mem_init(&mem, sizes[i], &error), -EINVAL);
}

Test(mem, ranges_that_are_not_all_ram_are_refused)
{
    struct mem mem = ram(4 * GIB);
    char byte[16];
    static const struct {
        uint64_t gpa, bytes;
    } bad[] = {
        {3ull << 30, 1},
        {(3ull << 30) - 8, 16},
        {(4ull << 30) - 1, 2},
        {(5ull << 30) - 8, 16},
        {5ull << 30, 1},
        {UINT64_MAX, 1},
        {UINT64_MAX - 7, 16},
        {0, UINT64_MAX},
        {(3ull << 30) - 1, UINT64_MAX},
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        void *hva;
        cr_assert_eq(mem_hva(&mem, bad[i].gpa, bad[i].bytes, &hva), -EFAULT, "case %zu", i);
    }
    cr_assert_eq(mem_read(&mem, 3 * GIB - 8, byte, 16), -EFAULT);
    cr_assert_eq(mem_write(&mem, 5 * GIB - 8, byte, 16), -EFAULT);
    mem_fini(&mem);
}

Test(mem, overlap_with_ram_is_seen_for_any_common_byte)
{
    struct mem mem = ram(4 * GIB);
    cr_assert(mem_overlaps_ram(&mem, 0, 1));
    cr_assert(mem_overlaps_ram(&mem, 3 * GIB - 1, 8));
    cr_assert(mem_overlaps_ram(&mem, 4 * GIB - 1, 2));
    cr_assert(!mem_overlaps_ram(&mem, 4 * GIB - 1, 1));
    cr_assert(!mem_overlaps_ram(&mem, 3 * GIB, 8));
    cr_assert(!mem_overlaps_ram(&mem, 5 * GIB, 8));
    cr_assert(!mem_overlaps_ram(&mem, UINT64_MAX - 3, 4));
    mem_fini(&mem);
}

Test(mem, what_is_written_is_read_back_and_marked_dirty)
{
    struct mem mem = ram(16 * MIB);
    char out[6] = "";
    cr_assert_eq(mem_write(&mem, 2 * PAGE_BYTES - 3, "hello", 6), 0);
    cr_assert_eq(mem_read(&mem, 2 * PAGE_BYTES - 3, out, 6), 0);
    cr_assert_str_eq(out, "hello");
    cr_assert(!is_dirty(&mem, 0));
    cr_assert(is_dirty(&mem, 1 * PAGE_BYTES));
    cr_assert(is_dirty(&mem, 2 * PAGE_BYTES));
    cr_assert(!is_dirty(&mem, 3 * PAGE_BYTES));
    mem_fini(&mem);
}

Test(mem, marks_above_the_hole_land_on_the_right_page)
{
    struct mem mem = ram(4 * GIB);
    mem_mark_dirty(&mem, 4 * GIB + 5 * PAGE_BYTES, 1);
    cr_assert(is_dirty(&mem, 3 * GIB + 5 * PAGE_BYTES));
    mem_mark_dirty(&mem, 3 * GIB, PAGE_BYTES); /* not RAM: ignored */
    mem_mark_dirty(&mem, 0, 0);
    cr_assert(!is_dirty(&mem, 3 * GIB));
    cr_assert(!is_dirty(&mem, 0));
    mem_fini(&mem);
}

static int present(void *data, uint64_t ram_off, uint64_t bytes)
{
    uint64_t *last = data;
    *last = ram_off + bytes;
    return ram_off >= MIB ? -EIO : 0;
}

Test(mem, the_presenter_is_asked_before_any_access_and_may_refuse)
{
    struct mem mem = ram(16 * MIB);
    uint64_t last = 0;
    char byte = 1;
    mem_set_presenter(&mem, present, &last);
    cr_assert_eq(mem_read(&mem, 4096, &byte, 1), 0);
    cr_assert_eq(last, 4097);
    cr_assert_eq(mem_write(&mem, MIB, &byte, 1), -EIO);
    cr_assert_eq(mem_read(&mem, 2 * MIB, &byte, 1), -EIO);
    cr_assert(!is_dirty(&mem, MIB));
    mem_fini(&mem);
}

Test(mem, guest_memory_is_not_inherited_by_a_child_process)
{
    struct mem mem = ram(16 * MIB);
    cr_assert_eq(mem_write(&mem, 0, "x", 1), 0);
    pid_t child = fork();
    if (child == 0) {
        unsigned char resident;
        _exit(mincore(mem.base, PAGE_BYTES, &resident) < 0 && errno == ENOMEM ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    mem_fini(&mem);
}

Test(mem, a_reserved_range_can_be_mapped_again_and_is_zero_then)
{
    struct mem mem = ram(16 * MIB);
    uint8_t *before = mem.base;
    char byte = 7;
    cr_assert_eq(mem_write(&mem, 0, &byte, 1), 0);
    cr_assert_eq(mem_map_anonymous(&mem, NULL), 0);
    cr_assert_eq(mem.base, before);
    cr_assert_eq(mem_read(&mem, 0, &byte, 1), 0);
    cr_assert_eq(byte, 0);
    mem_fini(&mem);
}

Test(mem, a_vacant_range_can_be_mapped)
{
    struct mem mem;
    cr_assert_eq(mem_init(&mem, 16 * MIB, NULL), 0);
    mem_vacate(&mem);
    cr_assert_eq(mem_map_anonymous(&mem, NULL), 0);
    uint32_t value = 7;
    cr_assert_eq(mem_write(&mem, 0x1000, &value, sizeof(value)), 0);
    cr_assert_eq(mem_unmap(&mem, NULL), 0);
    mem_fini(&mem);
}

Test(mem, what_has_come_to_a_vacant_range_is_left_alone)
{
    struct mem mem;
    struct thaw_error error;
    cr_assert_eq(mem_init(&mem, 16 * MIB, NULL), 0);
    mem_vacate(&mem);
    if (!mem.vacant)
        cr_skip_test("no range can be vacant here");
    void *at = mem.base + 8 * MIB;
    char *other = mmap(at, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_eq(other, at, "the hint is taken, so the range was free");
    *other = 'x';
    cr_assert_eq(mem_map_anonymous(&mem, &error), -EEXIST);
    cr_assert_eq(mem_unmap(&mem, NULL), 0);
    mem_fini(&mem);
    cr_assert_eq(*other, 'x');
    munmap(other, PAGE_BYTES);
}

Test(mem, a_vacant_range_is_where_the_kernel_maps_nothing)
{
    struct mem mem;
    cr_assert_eq(mem_init(&mem, GIB, NULL), 0);
    mem_vacate(&mem);
    for (unsigned i = 0; i < 100 && mem.vacant; i++) {
        char *other = mmap(NULL, GIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        cr_assert_neq(other, MAP_FAILED);
        cr_assert(other + GIB <= (char *)mem.base || other >= (char *)mem.base + GIB);
    }
    mem_fini(&mem);
}

/* A view of a file with `byte` all over. */
static struct mem view_of(uint8_t byte)
{
    struct mem mem;
    uint8_t page[PAGE_BYTES];
    int fd = memfd_create("test", MFD_CLOEXEC);
    memset(page, byte, sizeof(page));
    cr_assert_geq(fd, 0);
    for (uint64_t off = 0; off < 16 * MIB; off += PAGE_BYTES)
        cr_assert_eq(pwrite(fd, page, sizeof(page), (off_t)off), PAGE_BYTES);
    cr_assert_eq(mem_init_unplaced(&mem, 16 * MIB, NULL), 0);
    cr_assert_eq(mem_map_view(&mem, fd, true, NULL), 0);
    close(fd);
    return mem;
}

Test(mem, what_was_never_placed_can_be_given_up)
{
    struct mem mem;
    cr_assert_eq(mem_init_unplaced(&mem, 16 * MIB, NULL), 0);
    cr_assert_eq(mem_map_view(&mem, -1, true, NULL), -EBADF);
    cr_assert_eq(mem_unmap(&mem, NULL), 0);
    mem_fini(&mem);
}

Test(mem, what_is_discarded_is_the_files_again)
{
    struct mem mem = view_of('f');
    char bytes[3];
    for (uint64_t page = 0; page < 3; page++)
        cr_assert_eq(mem_write(&mem, page * PAGE_BYTES, "x", 1), 0);
    cr_assert_eq(mem_discard(&mem, PAGE_BYTES, PAGE_BYTES, NULL), 0);
    for (uint64_t page = 0; page < 3; page++)
        cr_assert_eq(mem_read(&mem, page * PAGE_BYTES, &bytes[page], 1), 0);
    cr_assert_arr_eq(bytes, "xfx", 3);
    mem_fini(&mem);
}

Test(mem, what_is_put_back_leaves_no_mark)
{
    struct mem mem = view_of('f');
    uint8_t page[PAGE_BYTES], byte;
    memset(page, 'p', sizeof(page));
    mem_put_back(&mem, MIB, PAGE_BYTES, page);
    mem_put_back(&mem, MIB + PAGE_BYTES, PAGE_BYTES, NULL);
    cr_assert(!is_dirty(&mem, MIB));
    cr_assert(!is_dirty(&mem, MIB + PAGE_BYTES));
    cr_assert_eq(mem_read(&mem, MIB + PAGE_BYTES - 1, &byte, 1), 0);
    cr_assert_eq(byte, 'p');
    cr_assert_eq(mem_read(&mem, MIB + PAGE_BYTES, &byte, 1), 0);
    cr_assert_eq(byte, 0);
    cr_assert_eq(mem_read(&mem, MIB + 2 * PAGE_BYTES, &byte, 1), 0);
    cr_assert_eq(byte, 'f');
    mem_fini(&mem);
}

Test(mem, marks_can_be_forgotten)
{
    struct mem mem = ram(16 * MIB);
    cr_assert_eq(mem_write(&mem, 0, "x", 1), 0);
    cr_assert_eq(mem_write(&mem, 16 * MIB - 1, "x", 1), 0);
    mem_forget_dirty(&mem);
    cr_assert(!is_dirty(&mem, 0) && !is_dirty(&mem, 16 * MIB - 1));
    mem_fini(&mem);
}
