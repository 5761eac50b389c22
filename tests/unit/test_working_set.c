// SPDX-License-Identifier: Apache-2.0
#include "format.h"
#include "image_internal.h"
#include "slow_reads.h"
#include "unit/ram_snapshot.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define RAM_BYTES (16 * MIB)
#define RAM_PAGES (RAM_BYTES / PAGE_BYTES)

/* What breaks here often hangs. */
TestSuite(working_set, .timeout = 60);

/* --- RAM, images and clones ------------------------------------------------------------------- */

static uint64_t word_of(uint64_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15;
}

static bool has_data(uint64_t page)
{
    return page / 25 % 4 != 3;
}

struct world {
    uint8_t *ram;
    struct ram_snapshot snapshot;
    struct image *image;
    char hot_path[48];
};

struct clone {
    struct mem mem;
    struct image_clone *view;
    atomic_int bad;
};

static void world_init(struct world *world)
{
    world->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(world->ram != MAP_FAILED);
    for (uint64_t page = 0; page < RAM_PAGES; page++)
        for (unsigned i = 0; has_data(page) && i < PAGE_BYTES / 8; i++)
            ((uint64_t *)(void *)(world->ram + page * PAGE_BYTES))[i] = word_of(page);
    world->image = ram_snapshot_image(&world->snapshot, world->ram, RAM_BYTES);
    snprintf(world->hot_path, sizeof(world->hot_path), "%s/hot", world->snapshot.dir);
}

static void world_fini(struct world *world)
{
    image_unref(world->image);
    unlink(world->hot_path);
    ram_snapshot_fini(&world->snapshot);
    munmap(world->ram, RAM_BYTES);
}

/* Another image of the same. */
static void world_reopen(struct world *world)
{
    image_unref(world->image);
    world->image = ram_snapshot_open(&world->snapshot);
}

static void on_bad(void *data, const char *detail)
{
    (void)detail;
    atomic_fetch_add(&((struct clone *)data)->bad, 1);
}

static void attach(struct clone *clone, struct image *image)
{
    struct thaw_error error;
    *clone = (struct clone){0};
    cr_assert_eq(mem_init(&clone->mem, image->bytes, &error), 0, "%s", error.message);
    int r = image_attach(image, &clone->mem, on_bad, clone, &clone->view, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

static void detach(struct clone *clone)
{
    image_detach(clone->view);
    mem_fini(&clone->mem);
}

static struct image_info info_of(struct image *image)
{
    struct image_info info;
    image_get_info(image, &info);
    return info;
}

/* How much of the image's memory exists. */
static uint64_t image_pages(const struct image *image)
{
    struct stat st;
    cr_assert_eq(fstat(image->fd, &st), 0);
    return (uint64_t)st.st_blocks * 512 / PAGE_BYTES;
}

static uint64_t touch(const struct clone *clone, uint64_t page)
{
    return *(const volatile uint64_t *)(const void *)(clone->mem.base + page * PAGE_BYTES + 8);
}

static void record(struct world *world)
{
    struct thaw_error error;
    cr_assert_eq(image_record(world->image, &error), 0, "%s", error.message);
}

static struct image_recording end_record(struct world *world)
{
    struct thaw_error error;
    struct image_recording recording;
    int r = image_record_end(world->image, &recording, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return recording;
}

/* --- Hot packs -------------------------------------------------------------------------------- */

static const struct wire_b16 hot_id = {{0x68, 0x6f, 0x74}};

static struct pack_writer *start_hot(struct world *world, unsigned frame_pages)
{
    struct thaw_error error;
    struct pack_writer *writer;
    struct pack_write_options options = {
        .id = hot_id, .frame_pages = frame_pages, .flags = PACK_WRITE_NO_SYNC};
    unlink(world->hot_path);
    int r = pack_writer_open(AT_FDCWD, world->hot_path, &options, &writer, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return writer;
}

static void add_hot(struct pack_writer *writer, unsigned space, uint64_t page, const void *bytes)
{
    uint64_t ignored;
    cr_assert_eq(pack_writer_add(writer, space, page, bytes, &ignored, NULL), 0);
}

static void end_hot(struct pack_writer *writer)
{
    struct pack_totals totals;
    cr_assert_eq(pack_writer_finish(writer, &totals, NULL), 0);
}

static void make_hot(struct world *world, unsigned frame_pages, uint64_t step)
{
    struct pack_writer *writer = start_hot(world, frame_pages);
    for (uint64_t i = 0; i < RAM_PAGES; i++) {
        uint64_t page = i * step % RAM_PAGES;
        if (has_data(page))
            add_hot(writer, SPACE_NUMBER_RAM, page, world->ram + page * PAGE_BYTES);
    }
    end_hot(writer);
}

/* False if it is not even opened. */
static bool prefetch(struct world *world)
{
    struct pack_reader *hot;
    if (pack_reader_open(AT_FDCWD, world->hot_path, &hot_id, &hot, NULL) < 0)
        return false;
    image_prefetch(world->image, image_prefetch_start(hot));
    return true;
}

static void expect_all(struct world *world)
{
    struct clone clone;
    attach(&clone, world->image);
    cr_assert_eq(memcmp(clone.mem.base, world->ram, RAM_BYTES), 0);
    cr_assert_eq(clone.bad, 0);
    detach(&clone);
}

/* --- Recording -------------------------------------------------------------------------------- */

Test(working_set, is_exactly_the_pages_that_were_touched_in_the_order_of_first_touch)
{
    static const uint64_t touched[] = {7, 300, 8, 6, 201, 0, 7, 300, 9, 511};
    static const uint64_t expected[] = {7, 300, 8, 6, 201, 0, 9, 511};
    struct world world;
    struct clone clone;
    world_init(&world);
    record(&world);
    attach(&clone, world.image);
    cr_assert_eq(image_read_ahead(world.image, NULL), 0);
    cr_assert(info_of(world.image).recording);
    for (unsigned i = 0; i < ARRAY_SIZE(touched); i++) {
        uint64_t word;
        if (i % 2)
            word = touch(&clone, touched[i]);
        else
            cr_assert_eq(mem_read(&clone.mem, touched[i] * PAGE_BYTES, &word, sizeof(word)), 0);
        cr_assert_eq(word, word_of(touched[i]));
    }
    cr_assert_eq(image_pages(world.image), ARRAY_SIZE(expected));
    cr_assert_eq(info_of(world.image).recorded_pages, ARRAY_SIZE(expected));
    struct image_recording recording = end_record(&world);
    cr_assert_eq(recording.count, ARRAY_SIZE(expected));
    cr_assert(!recording.full);
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++)
        cr_assert_eq(recording.pages[i], expected[i]);
    free(recording.pages);
    cr_assert(!info_of(world.image).recording);

    /* From now on as ever. */
    struct thaw_error error;
    cr_assert_eq(image_record_end(world.image, &recording, &error), THAW_ESTATE);
    cr_assert_eq(image_read_ahead(world.image, NULL), 0);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

Test(working_set, has_no_pages_that_are_read_for_something_else)
{
    struct world world;
    struct clone clone;
    struct thaw_error error;
    uint8_t *copy = malloc(RAM_BYTES);
    world_init(&world);
    record(&world);
    attach(&clone, world.image);
    cr_assert_eq(touch(&clone, 7), word_of(7));
    int r = image_read(world.image, 0, RAM_PAGES, copy, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    cr_assert_eq(memcmp(copy, world.ram, RAM_BYTES), 0);
    cr_assert_eq(image_read(world.image, RAM_PAGES, 1, copy, &error), -EINVAL);
    cr_assert_eq(image_pages(world.image), 1);
    cr_assert_eq(touch(&clone, 300), word_of(300));
    struct image_recording recording = end_record(&world);
    cr_assert_eq(recording.count, 2);
    free(recording.pages);

    memset(copy, 0xee, RAM_BYTES);
    cr_assert_eq(image_read(world.image, 0, RAM_PAGES, copy, &error), 0);
    cr_assert_eq(memcmp(copy, world.ram, RAM_BYTES), 0);
    free(copy);
    detach(&clone);
    world_fini(&world);
}

Test(working_set, has_no_pages_of_zeros)
{
    struct world world;
    struct clone clone;
    world_init(&world);
    record(&world);
    attach(&clone, world.image);
    cr_assert_eq(touch(&clone, 80), 0);
    cr_assert_eq(mem_write(&clone.mem, 90 * PAGE_BYTES, "x", 1), 0);
    struct image_recording recording = end_record(&world);
    cr_assert_eq(recording.count, 0);
    free(recording.pages);
    detach(&clone);
    world_fini(&world);
}

Test(working_set, is_not_recorded_beyond_half_of_memory)
{
    struct world world;
    struct clone clone;
    world_init(&world);
    record(&world);
    attach(&clone, world.image);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    struct image_recording recording = end_record(&world);
    cr_assert(recording.full);
    cr_assert_eq(recording.count, RAM_PAGES / 2);
    free(recording.pages);
    detach(&clone);
    world_fini(&world);
}

Test(working_set, that_is_never_ended_goes_with_the_image)
{
    struct world world;
    struct clone clone;
    world_init(&world);
    record(&world);
    attach(&clone, world.image);
    cr_assert_eq(touch(&clone, 1), word_of(1));
    detach(&clone);
    world_fini(&world);
}

struct toucher {
    const struct clone *clone;
    uint64_t step;
    uint64_t wrong;
};

static void *touch_many(void *arg)
{
    struct toucher *toucher = arg;
    for (uint64_t i = 0; i < RAM_PAGES; i++) {
        uint64_t page = i * toucher->step % RAM_PAGES;
        toucher->wrong += touch(toucher->clone, page) != (has_data(page) ? word_of(page) : 0);
    }
    return NULL;
}

Test(working_set, of_several_clones_has_each_page_once_and_may_end_under_them)
{
    for (unsigned round = 0; round < 10; round++) {
        struct world world;
        struct clone clones[2];
        pthread_t threads[3];
        world_init(&world);
        record(&world);
        attach(&clones[0], world.image);
        attach(&clones[1], world.image);
        struct toucher touchers[3] = {
            {.clone = &clones[0], .step = 5},
            {.clone = &clones[1], .step = 5},
            {.clone = &clones[1], .step = 103},
        };
        for (unsigned i = 0; i < 3; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, touch_many, &touchers[i]), 0);
        usleep(round * 1000);
        struct image_recording recording = end_record(&world);
        if (round % 2)
            cr_assert_eq(image_fill_all(world.image, NULL, NULL), 0);
        static bool seen[RAM_PAGES];
        memset(seen, 0, sizeof(seen));
        for (uint64_t i = 0; i < recording.count; i++) {
            cr_assert(!seen[recording.pages[i]] && has_data(recording.pages[i]));
            seen[recording.pages[i]] = true;
        }
        free(recording.pages);
        for (unsigned i = 0; i < 3; i++) {
            pthread_join(threads[i], NULL);
            cr_assert_eq(touchers[i].wrong, 0);
        }
        detach(&clones[0]);
        detach(&clones[1]);
        world_fini(&world);
    }
}

Test(working_set, recording_ends_a_clone_that_needs_a_bad_frame)
{
    struct world world;
    struct clone clone;
    world_init(&world);
    ram_snapshot_damage(&world.snapshot, ram_snapshot_frame_of(&world.snapshot, 300));
    world_reopen(&world);
    record(&world);
    attach(&clone, world.image);
    uint64_t word;
    cr_assert_eq(touch(&clone, 1), word_of(1));
    cr_assert_eq(mem_read(&clone.mem, 300 * PAGE_BYTES, &word, 8), THAW_ECORRUPT);
    cr_assert_eq(clone.bad, 1);
    cr_assert_eq(info_of(world.image).frames_bad, 1);
    struct image_recording recording = end_record(&world);
    cr_assert_eq(recording.count, 1);
    free(recording.pages);
    detach(&clone);
    world_fini(&world);
}

Test(working_set, is_not_recorded_where_that_is_impossible)
{
    struct world world;
    struct thaw_error error;
    world_init(&world);
    const struct image_options options = {.no_faults = true};
    struct image *plain = ram_snapshot_open_with(&world.snapshot, &options);
    cr_assert_eq(image_record(plain, &error), -EOPNOTSUPP);
    image_unref(plain);
    cr_assert_eq(image_fill_all(world.image, NULL, NULL), 0);
    cr_assert_eq(image_record(world.image, &error), THAW_ESTATE);
    world_fini(&world);
}

/* --- Prefetching ------------------------------------------------------------------------------ */

Test(working_set, when_prefetched_is_touched_without_reading_anything)
{
    struct world world;
    struct clone clone;
    world_init(&world);
    make_hot(&world, 64, 103);
    cr_assert(prefetch(&world));
    image_prefetch_wait(world.image);
    struct image_info info = info_of(world.image);
    cr_assert_eq(info.demand_pages, 0);
    cr_assert_eq(info.prefetched_pages, image_pages(world.image));
    cr_assert_gt(info.prefetch_ns, 0);
    cr_assert(info.complete, "all pages of all frames are there");

    atomic_store(&no_reads, true);
    expect_all(&world);
    cr_assert_geq(image_fd(world.image, NULL), 0);
    atomic_store(&no_reads, false);
    world_fini(&world);

    /* A part of it leaves the rest to be filled in as ever. */
    world_init(&world);
    struct pack_writer *writer = start_hot(&world, 64);
    for (uint64_t page = 0; page < 60; page += 3)
        add_hot(writer, SPACE_NUMBER_RAM, page, world.ram + page * PAGE_BYTES);
    end_hot(writer);
    cr_assert(prefetch(&world));
    attach(&clone, world.image);
    image_prefetch_wait(world.image);
    cr_assert_eq(image_pages(world.image), 20);
    cr_assert_eq(info_of(world.image).frames_present, 0);
    int before = atomic_load(&reads);
    uint64_t word;
    for (uint64_t page = 0; page < 60; page += 3) {
        cr_assert_eq(mem_read(&clone.mem, page * PAGE_BYTES, &word, 8), 0);
        cr_assert_eq(word, word_of(page));
        cr_assert_eq(touch(&clone, page), word_of(page));
    }
    cr_assert_eq(atomic_load(&reads), before);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

Test(working_set, puts_in_only_what_the_index_calls_data)
{
    struct world world;
    world_init(&world);
    uint64_t words[PAGE_BYTES / 8] = {1, 2, 3};
    struct pack_writer *writer = start_hot(&world, 4);
    for (uint64_t page = 75; page < 100; page++) /* zero and unspecified by turns */
        add_hot(writer, SPACE_NUMBER_RAM, page, words);
    add_hot(writer, SPACE_NUMBER_RAM, RAM_PAGES, words);
    add_hot(writer, SPACE_NUMBER_RAM, SPACE_PAGES_MAX - 1, words);
    add_hot(writer, 1, 4, words);
    add_hot(writer, SPACE_NUMBER_RAM, 74, world.ram + 74 * PAGE_BYTES);
    add_hot(writer, SPACE_NUMBER_RAM, 75, words);
    add_hot(writer, SPACE_NUMBER_RAM, 74, words); /* again: too late */
    end_hot(writer);
    cr_assert(prefetch(&world));
    image_prefetch_wait(world.image);
    cr_assert_eq(image_pages(world.image), 1);
    cr_assert_eq(info_of(world.image).prefetched_pages, 1);
    world_fini(&world);
}

Test(working_set, with_any_byte_damaged_costs_time_only)
{
    struct world world;
    struct stat st;
    world_init(&world);
    struct pack_writer *writer = start_hot(&world, 4);
    for (uint64_t page = 0; page < 18; page++)
        add_hot(writer, SPACE_NUMBER_RAM, 3 * page % 50, world.ram + 3 * page % 50 * PAGE_BYTES);
    end_hot(writer);
    int fd = open(world.hot_path, O_RDWR | O_CLOEXEC);
    cr_assert(fd >= 0 && fstat(fd, &st) == 0);
    unsigned opened = 0, partly = 0;
    for (off_t at = 0; at < st.st_size; at++) {
        uint8_t byte = 0, other;
        cr_assert_eq(pread(fd, &byte, 1, at), 1);
        other = byte ^ (uint8_t)(1 << at % 8);
        cr_assert_eq(pwrite(fd, &other, 1, at), 1);
        world_reopen(&world);
        if (prefetch(&world)) {
            opened++;
            image_prefetch_wait(world.image);
            partly += image_pages(world.image) > 0;
            cr_assert_lt(image_pages(world.image), 18);
            struct clone clone;
            attach(&clone, world.image);
            cr_assert_eq(memcmp(clone.mem.base, world.ram, 64 * PAGE_BYTES), 0, "%d", (int)at);
            detach(&clone);
        }
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    }
    cr_assert_gt(opened, 0);
    cr_assert_gt(partly, 0, "frames that are good are used");
    for (off_t bytes = 0; bytes < st.st_size; bytes += 13) {
        cr_assert_eq(ftruncate(fd, st.st_size - 1 - bytes), 0);
        cr_assert(!prefetch(&world));
    }
    close(fd);
    world_fini(&world);
}

Test(working_set, that_cannot_be_read_costs_time_only)
{
    struct world world;
    struct pack_reader *hot;
    world_init(&world);
    make_hot(&world, 16, 1);
    cr_assert_eq(pack_reader_open(AT_FDCWD, world.hot_path, &hot_id, &hot, NULL), 0);
    atomic_store(&no_reads, true);
    image_prefetch(world.image, image_prefetch_start(hot));
    image_prefetch_wait(world.image);
    atomic_store(&no_reads, false);
    cr_assert_eq(image_pages(world.image), 0);
    expect_all(&world);
    world_fini(&world);
}

Test(working_set, is_overtaken_by_who_needs_a_page_now)
{
    struct world world;
    struct clone clone;
    world_init(&world);
    make_hot(&world, 1, 103);
    cr_assert(prefetch(&world));
    attach(&clone, world.image);
    cr_assert_eq(image_read_ahead(world.image, NULL), 0);
    for (uint64_t i = 0; i < RAM_PAGES; i++) {
        uint64_t page = i * 77 % RAM_PAGES;
        cr_assert_eq(touch(&clone, page), has_data(page) ? word_of(page) : 0);
    }
    image_prefetch_wait(world.image);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

/* Who reads ahead is held in its first read, and can't put in anything before what is needed. */
Test(working_set, does_not_keep_anyone_waiting_who_needs_a_page_before_its_turn)
{
    static const uint64_t needed[] = {
        2000, /* not of it */
        400,  /* its last */
        0,    /* being read just now */
    };
    struct world world;
    struct clone clone;
    world_init(&world);
    struct pack_writer *writer = start_hot(&world, 4);
    for (uint64_t page = 0; page <= 400; page++)
        if (has_data(page))
            add_hot(writer, SPACE_NUMBER_RAM, page, world.ram + page * PAGE_BYTES);
    end_hot(writer);
    slow_reads_hold("thaw-prefetch");
    cr_assert(prefetch(&world));
    attach(&clone, world.image);
    slow_reads_wait_held();
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        uint64_t word;
        cr_assert_eq(touch(&clone, needed[i]), word_of(needed[i]));
        cr_assert_eq(mem_read(&clone.mem, (needed[i] + 20) * PAGE_BYTES, &word, sizeof(word)), 0);
        cr_assert_eq(word, word_of(needed[i] + 20));
    }
    struct image_info info = info_of(world.image);
    slow_reads_release();
    cr_assert_eq(info.prefetch_ns, 0, "it has ended");
    cr_assert_eq(info.prefetched_pages, 0);
    cr_assert_gt(info.demand_pages, 0);
    image_prefetch_wait(world.image);
    cr_assert_gt(info_of(world.image).prefetched_pages, 0);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

Test(working_set, being_prefetched_is_out_of_the_way_before_the_image_is_sealed_or_gone)
{
    struct world world;
    world_init(&world);
    make_hot(&world, 1, 103);
    atomic_store(&slow_reads_us, 3000);
    cr_assert(prefetch(&world));
    cr_assert_eq(image_fill_all(world.image, NULL, NULL), 0);
    cr_assert_geq(image_fd(world.image, NULL), 0);
    atomic_store(&slow_reads_us, 0);
    expect_all(&world);

    world_reopen(&world);
    atomic_store(&slow_reads_us, 10000);
    cr_assert(prefetch(&world));
    world_fini(&world);
}

Test(working_set, is_read_before_there_is_an_image_and_may_get_none)
{
    struct world world;
    struct pack_reader *hot;
    world_init(&world);
    make_hot(&world, 16, 1);
    for (unsigned i = 0; i < 20; i++) {
        cr_assert_eq(pack_reader_open(AT_FDCWD, world.hot_path, &hot_id, &hot, NULL), 0);
        struct prefetch *unused = image_prefetch_start(hot);
        usleep(i * 100);
        image_prefetch_cancel(unused);
    }
    cr_assert_eq(pack_reader_open(AT_FDCWD, world.hot_path, &hot_id, &hot, NULL), 0);
    struct prefetch *early = image_prefetch_start(hot);
    usleep(10000);
    image_prefetch(world.image, early);
    image_prefetch_wait(world.image);
    cr_assert(info_of(world.image).complete);
    expect_all(&world);
    world_fini(&world);
}

Test(working_set, leaves_the_guest_alone_with_it_but_not_for_ever)
{
    struct world world;
    struct clone clone;
    world_init(&world);
    struct pack_writer *writer = start_hot(&world, 64);
    add_hot(writer, SPACE_NUMBER_RAM, 1, world.ram + PAGE_BYTES);
    end_hot(writer);
    cr_assert(prefetch(&world));
    attach(&clone, world.image);
    cr_assert_eq(image_read_ahead(world.image, NULL), 0);
    while (!info_of(world.image).complete)
        usleep(1000);
    cr_assert_eq(info_of(world.image).demand_pages, 0);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

Test(working_set, is_of_no_use_without_userfaultfd)
{
    struct world world;
    world_init(&world);
    image_unref(world.image);
    const struct image_options options = {.no_faults = true};
    world.image = ram_snapshot_open_with(&world.snapshot, &options);
    make_hot(&world, 16, 1);
    cr_assert(prefetch(&world));
    image_prefetch_wait(world.image);
    cr_assert_eq(info_of(world.image).prefetched_pages, 0);
    expect_all(&world);
    world_fini(&world);
}

Test(working_set, does_not_stand_in_for_a_frame_that_contradicts_the_index)
{
    uint64_t words[PAGE_BYTES / 8] = {1};
    struct world world = {0};
    struct thaw_error error;
    ram_snapshot_init(&world.snapshot, RAM_BYTES, 1);
    uint64_t at = ram_snapshot_add(&world.snapshot, 4, words);
    ram_snapshot_map(&world.snapshot, 4, 0, at);
    ram_snapshot_map(&world.snapshot, 9, 0, at);
    ram_snapshot_end_pack(&world.snapshot);
    world.image = ram_snapshot_open(&world.snapshot);
    snprintf(world.hot_path, sizeof(world.hot_path), "%s/hot", world.snapshot.dir);
    struct pack_writer *writer = start_hot(&world, 1);
    add_hot(writer, SPACE_NUMBER_RAM, 4, words);
    add_hot(writer, SPACE_NUMBER_RAM, 9, words);
    end_hot(writer);
    cr_assert(prefetch(&world));
    image_prefetch_wait(world.image);
    cr_assert_eq(info_of(world.image).prefetched_pages, 2);
    cr_assert_eq(info_of(world.image).frames_present, 0);
    cr_assert_eq(image_fill_all(world.image, NULL, &error), THAW_ECORRUPT);
    image_unref(world.image);
    unlink(world.hot_path);
    ram_snapshot_fini(&world.snapshot);
}
