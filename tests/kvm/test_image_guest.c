// SPDX-License-Identifier: Apache-2.0
// Guests whose memory comes from an image while they run. They are booted, and their memory is put
// into a pack and replaced by a view of the image before their first instruction.
#include "guest.h"
#include "image_internal.h"
#include "slow_reads.h"
#include "unit/ram_snapshot.h"
#include "vm.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#define DATA_MIB 4

/* What breaks here often hangs. */
TestSuite(image_guest, .timeout = 90);

struct thawed {
    struct guest guest;
    struct image_clone *clone;
};

struct source {
    char initrd[64];
    struct thaw_vm_options options;
    struct ram_snapshot snapshot;
    struct image *image;
};

static void fail_vm(void *data, const char *detail)
{
    vm_fail(data, THAW_REASON_MEMORY, detail);
}

static struct thaw_vm_options tick_options(void)
{
    return (struct thaw_vm_options){.kernel_path = "tick", .mem_bytes = 16 * MIB};
}

/* A guest that reads or writes every page of its data and checks every word. */
static void use_memtouch(struct source *source, const char *cmdline)
{
    *source = (struct source){.initrd = "/tmp/thaw-memtouch-XXXXXX"};
    int fd = mkstemp(source->initrd);
    cr_assert_geq(fd, 0);
    close(fd);
    char command[1024];
    snprintf(command, sizeof(command), "%s/../memtouch-data -o %s %u", THAW_GUEST_DIR,
        source->initrd, DATA_MIB);
    cr_assert_eq(system(command), 0);
    source->options = (struct thaw_vm_options){.kernel_path = "memtouch",
        .mem_bytes = 32 * MIB,
        .initrd_path = source->initrd,
        .cmdline = cmdline};
}

static void source_init(struct source *source)
{
    struct guest guest;
    guest_new(&guest, source->options);
    source->image = ram_snapshot_image(&source->snapshot, guest.vm->mem.base, guest.vm->mem.bytes);
    guest_free(&guest);
}

static void source_fini(struct source *source)
{
    image_unref(source->image);
    ram_snapshot_fini(&source->snapshot);
    if (source->initrd[0])
        unlink(source->initrd);
}

/* The devices and registers of a guest that has just been booted, with the image's memory. */
static void thawed_init(struct thawed *thawed, struct source *source)
{
    struct thaw_error error;
    guest_new(&thawed->guest, source->options);
    struct thaw_vm *vm = thawed->guest.vm;
    int r = image_attach(source->image, &vm->mem, fail_vm, vm, &thawed->clone, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

static void thawed_fini(struct thawed *thawed)
{
    cr_assert_eq(thaw_vm_stop(thawed->guest.vm, NULL), 0);
    image_detach(thawed->clone);
    guest_free(&thawed->guest);
}

static void expect_passes(struct thawed *thawed)
{
    struct thaw_vm_info info = guest_wait(&thawed->guest);
    cr_assert_eq(info.state, THAW_VM_STOPPED, "%s", info.detail);
    cr_assert(strstr(thawed->guest.console, "memtouch: pass 2 pages 1024"), "console:\n%s",
        thawed->guest.console);
}

/* --- Running ---------------------------------------------------------------------------------- */

Test(image_guest, a_guest_runs_from_its_first_instruction_on_pages_that_come_on_demand)
{
    struct source source = {.options = tick_options()};
    source_init(&source);
    struct thawed thawed;
    thawed_init(&thawed, &source);
    struct image_info info;
    image_get_info(source.image, &info);
    cr_assert_eq(info.frames_present, 0);
    guest_start(&thawed.guest);
    size_t at = guest_expect(&thawed.guest, "tick 1\n", 0);
    guest_expect(&thawed.guest, "tick 5\n", at);
    image_get_info(source.image, &info);
    cr_assert_gt(info.frames_present, 0);
    thawed_fini(&thawed);
    source_fini(&source);
}

Test(image_guest, two_guests_of_one_image_find_all_their_data_in_any_order)
{
    struct source source;
    use_memtouch(&source, "passes=2 op=write order=rand");
    source_init(&source);
    struct thawed thawed[2];
    thawed_init(&thawed[0], &source);
    guest_start(&thawed[0].guest);
    thawed_init(&thawed[1], &source);
    guest_start(&thawed[1].guest);
    expect_passes(&thawed[0]);
    expect_passes(&thawed[1]);
    thawed_fini(&thawed[0]);
    thawed_fini(&thawed[1]);
    source_fini(&source);
}

Test(image_guest, the_image_becomes_complete_under_a_guest_that_does_not_notice)
{
    struct source source;
    use_memtouch(&source, "passes=2 op=write order=seq");
    source_init(&source);
    struct thawed thawed;
    thawed_init(&thawed, &source);
    guest_start(&thawed.guest);
    cr_assert_eq(image_read_ahead(source.image, NULL), 0);
    expect_passes(&thawed);
    while (!(fcntl(source.image->fd, F_GET_SEALS) & F_SEAL_WRITE))
        usleep(1000);
    thawed_fini(&thawed);

    /* The next one needs no faults. */
    thawed_init(&thawed, &source);
    cr_assert_null((void *)thawed.guest.vm->mem.present);
    guest_start(&thawed.guest);
    expect_passes(&thawed);
    thawed_fini(&thawed);
    source_fini(&source);
}

Test(image_guest, devices_reach_memory_that_is_not_there_yet)
{
    char disk_path[] = "/tmp/thaw-disk-XXXXXX";
    int fd = mkstemp(disk_path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
    struct thaw_disk_options disk = {.size = sizeof(disk), .path = disk_path};
    struct source source = {.options = {.kernel_path = "blkpattern",
                                .cmdline = "blocks=64",
                                .mem_bytes = 16 * MIB,
                                .disks = &disk,
                                .disk_count = 1}};
    source_init(&source);
    struct thawed thawed;
    thawed_init(&thawed, &source);
    guest_start(&thawed.guest);
    struct thaw_vm_info info = guest_wait(&thawed.guest);
    cr_assert_eq(info.state, THAW_VM_STOPPED, "%s", info.detail);
    cr_assert(strstr(thawed.guest.console, "blkpattern: ok"), "%s", thawed.guest.console);
    thawed_fini(&thawed);
    source_fini(&source);
    unlink(disk_path);
}

/* --- Stopping --------------------------------------------------------------------------------- */

Test(image_guest, stopping_pausing_and_freeing_work_while_a_vcpu_waits_for_a_slow_disk)
{
    struct source source = {.options = tick_options()};
    source_init(&source);
    struct thawed thawed;
    thawed_init(&thawed, &source);
    atomic_store(&slow_reads_us, 300000);
    int before = atomic_load(&reads);
    guest_start(&thawed.guest);
    while (atomic_load(&reads) == before)
        usleep(100);
    cr_assert_eq(thaw_vm_pause(thawed.guest.vm, NULL), 0);
    cr_assert_eq(guest_info(&thawed.guest).state, THAW_VM_PAUSED);
    before = atomic_load(&reads);
    cr_assert_eq(thaw_vm_resume(thawed.guest.vm, NULL), 0);
    usleep(1000);
    thawed_fini(&thawed);
    source_fini(&source);
}

/* --- Bad frames ------------------------------------------------------------------------------- */

/* A page in the middle of the data, which the boot loader put near the end of memory. */
static uint64_t find_data_page(const struct source *source)
{
    uint64_t page = source->snapshot.pages;
    unsigned seen = 0;
    while (page > 0 && seen < DATA_MIB * 256 / 2)
        seen += source->snapshot.map[--page].kind == EXTENT_DATA;
    return page;
}

static void damage(struct source *source, uint64_t page)
{
    image_unref(source->image);
    ram_snapshot_damage(&source->snapshot, ram_snapshot_frame_of(&source->snapshot, page));
    source->image = ram_snapshot_open(&source->snapshot);
}

static void expect_failed(struct thawed *thawed)
{
    struct thaw_vm_info info = guest_wait(&thawed->guest);
    cr_assert_eq(info.state, THAW_VM_FAILED);
    cr_assert_eq(info.reason, THAW_REASON_MEMORY);
    cr_assert(strstr(info.detail, "ram.pack0"), "%s", info.detail);
    cr_assert(strstr(info.detail, "frame "), "%s", info.detail);
}

Test(image_guest, a_guest_that_touches_a_bad_frame_ends_and_the_reason_is_told)
{
    struct source source;
    use_memtouch(&source, "passes=2 op=read order=seq");
    source_init(&source);
    uint64_t page = find_data_page(&source);
    damage(&source, page);
    struct thawed thawed[2];
    thawed_init(&thawed[0], &source);
    thawed_init(&thawed[1], &source);
    guest_start(&thawed[0].guest);
    expect_failed(&thawed[0]);
    cr_assert(!strstr(thawed[0].guest.console, "wrong"), "%s", thawed[0].guest.console);

    /* Another clone that has not touched it goes on until it does. */
    cr_assert_eq(guest_info(&thawed[1].guest).state, THAW_VM_CREATED);
    guest_start(&thawed[1].guest);
    expect_failed(&thawed[1]);

    /* What is good can still be looked at. */
    uint64_t word;
    cr_assert_eq(mem_read(&thawed[0].guest.vm->mem, MIB, &word, 8), 0);
    thawed_fini(&thawed[0]);
    thawed_fini(&thawed[1]);
    source_fini(&source);
}

Test(image_guest, a_guest_whose_first_instruction_is_bad_ends_too)
{
    struct source source = {.options = tick_options()};
    source_init(&source);
    for (uint64_t page = 0; page < source.snapshot.pages; page++)
        if (source.snapshot.map[page].kind == EXTENT_DATA &&
            source.snapshot.map[page].pack_page % FRAME_PAGES_DEFAULT == 0)
            damage(&source, page);
    struct thawed thawed;
    thawed_init(&thawed, &source);
    guest_start(&thawed.guest);
    expect_failed(&thawed);
    thawed_fini(&thawed);
    source_fini(&source);
}

Test(image_guest, host_code_that_needs_a_bad_frame_ends_a_running_guest)
{
    struct source source;
    use_memtouch(&source, "op=read order=seq ws=1"); /* without end, elsewhere */
    source_init(&source);
    uint64_t page = find_data_page(&source);
    damage(&source, page);
    struct thawed thawed;
    thawed_init(&thawed, &source);
    guest_start(&thawed.guest);
    guest_expect(&thawed.guest, "memtouch: pass 2", 0);
    uint64_t word;
    struct mem *mem = &thawed.guest.vm->mem;
    cr_assert_eq(mem_read(mem, page * PAGE_BYTES, &word, 8), THAW_ECORRUPT);
    expect_failed(&thawed);
    thawed_fini(&thawed);
    source_fini(&source);
}
