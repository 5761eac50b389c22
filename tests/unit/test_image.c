// SPDX-License-Identifier: Apache-2.0
#include "image_internal.h"
#include "slow_reads.h"
#include "unit/ram_snapshot.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define RAM_BYTES (16 * MIB)
#define RAM_PAGES (RAM_BYTES / PAGE_BYTES)

/* What breaks here often hangs. */
TestSuite(image, .timeout = 60);

/* --- RAM, images and clones ------------------------------------------------------------------- */

static uint64_t word_of(uint64_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15;
}

/* Three runs of data in four, each word the page's own. */
static uint8_t *make_ram(uint64_t bytes)
{
    uint8_t *ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert(ram != MAP_FAILED);
    for (uint64_t page = 0; page < bytes / PAGE_BYTES; page++)
        for (unsigned i = 0; page / 25 % 4 != 3 && i < PAGE_BYTES / 8; i++)
            ((uint64_t *)(void *)(ram + page * PAGE_BYTES))[i] = word_of(page);
    return ram;
}

struct clone {
    struct mem mem;
    struct image_clone *view;
    atomic_int bad; /* how often on_bad has returned */
    atomic_flag told;
    char detail[THAW_ERROR_MESSAGE_BYTES];
};

static void on_bad(void *data, const char *detail)
{
    struct clone *clone = data;
    if (!atomic_flag_test_and_set(&clone->told))
        snprintf(clone->detail, sizeof(clone->detail), "%s", detail);
    atomic_fetch_add(&clone->bad, 1);
}

static void attach(struct clone *clone, struct image *image)
{
    struct thaw_error error;
    *clone = (struct clone){.told = ATOMIC_FLAG_INIT};
    cr_assert_eq(mem_init(&clone->mem, image->bytes, &error), 0, "%s", error.message);
    int r = image_attach(image, &clone->mem, on_bad, clone, &clone->view, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

static void detach(struct clone *clone)
{
    image_detach(clone->view);
    mem_fini(&clone->mem);
}

static void fill(struct image *image, unsigned threads)
{
    struct thaw_error error;
    int r = image_fill_all(image, &(struct image_fill_options){.threads = threads}, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

static struct image_info info_of(struct image *image)
{
    struct image_info info;
    image_get_info(image, &info);
    return info;
}

/* Touches a byte as the kernel does for KVM: an inaccessible page is an error, not a signal. */
static int touch(const void *at)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    int r = write(ends[1], at, 1) == 1 ? 0 : -errno;
    close(ends[0]);
    close(ends[1]);
    return r;
}

/* How much of the image's memory exists. */
static uint64_t image_pages(const struct image *image)
{
    struct stat st;
    cr_assert_eq(fstat(image->fd, &st), 0);
    return (uint64_t)st.st_blocks * 512 / PAGE_BYTES;
}

struct world {
    uint8_t *ram;
    struct ram_snapshot snapshot;
    struct image *image;
};

static void world_init(struct world *world)
{
    world->ram = make_ram(RAM_BYTES);
    world->image = ram_snapshot_image(&world->snapshot, world->ram, RAM_BYTES);
}

static void world_fini(struct world *world)
{
    image_unref(world->image);
    ram_snapshot_fini(&world->snapshot);
    munmap(world->ram, RAM_BYTES);
}

/* --- Filling ---------------------------------------------------------------------------------- */

Test(image, filled_eagerly_it_equals_the_ram_and_needs_no_presenter)
{
    struct world world;
    world_init(&world);
    fill(world.image, 2);
    struct image_info info = info_of(world.image);
    cr_assert(info.complete);
    cr_assert_eq(info.frames_present, info.frames);
    struct clone clone;
    attach(&clone, world.image);
    cr_assert_null((void *)clone.mem.present);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

Test(image, without_userfaultfd_it_is_complete_before_anything_maps_it)
{
    struct world world;
    world_init(&world);
    const struct image_options options = {.no_faults = true};
    struct image *plain = ram_snapshot_open_with(&world.snapshot, &options);
    struct clone clone;
    cr_assert_eq(image_read_ahead(plain, NULL), 0);
    attach(&clone, plain);
    cr_assert(info_of(plain).complete);
    cr_assert_null((void *)clone.mem.present);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    cr_assert_geq(image_fd(plain, NULL), 0);
    detach(&clone);
    image_unref(plain);
    world_fini(&world);
}

Test(image, filled_by_touches_it_equals_the_ram)
{
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    for (uint64_t i = 0; i < RAM_PAGES; i++) {
        uint64_t off = i * 1103 % RAM_PAGES * PAGE_BYTES;
        cr_assert_eq(memcmp(clone.mem.base + off, world.ram + off, PAGE_BYTES), 0);
    }
    cr_assert(info_of(world.image).complete);
    cr_assert_eq(clone.bad, 0);
    detach(&clone);
    world_fini(&world);
}

Test(image, filled_in_the_background_while_a_clone_runs_it_ends_up_complete_and_sealed)
{
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    cr_assert_eq(image_read_ahead(world.image, NULL), 0);
    cr_assert_eq(image_read_ahead(world.image, NULL), 0);
    while (!(fcntl(world.image->fd, F_GET_SEALS) & F_SEAL_WRITE))
        cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    cr_assert(info_of(world.image).complete);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);

    struct clone later;
    attach(&later, world.image);
    cr_assert_null((void *)later.mem.present);
    cr_assert_eq(memcmp(later.mem.base, world.ram, RAM_BYTES), 0);
    detach(&later);
    detach(&clone);
    world_fini(&world);
}

static void count_progress(void *data, uint64_t done, uint64_t frames)
{
    uint64_t *last = data;
    cr_assert(done >= *last && done <= frames);
    *last = done;
}

static void cancel_at_once(void *data, uint64_t done, uint64_t frames)
{
    (void)done;
    (void)frames;
    atomic_store((atomic_bool *)data, true);
}

Test(image, filling_can_be_watched_cancelled_and_taken_up_again)
{
    struct world world;
    world_init(&world);
    atomic_bool cancel = true;
    struct image_fill_options options = {.threads = 1, .cancel = &cancel};
    struct thaw_error error;
    cr_assert_eq(image_fill_all(world.image, &options, &error), -ECANCELED);
    cr_assert(!info_of(world.image).complete);
    cr_assert_eq(image_fd(world.image, &error), THAW_ESTATE);

    cancel = false;
    options.progress = cancel_at_once;
    options.progress_data = &cancel;
    int r = image_fill_all(world.image, &options, &error);
    cr_assert(r == 0 || r == -ECANCELED);

    cancel = false;
    uint64_t done = 0;
    options.progress = count_progress;
    options.progress_data = &done;
    cr_assert_eq(image_fill_all(world.image, &options, &error), 0);
    cr_assert(info_of(world.image).complete);
    world_fini(&world);
}

Test(image, of_1_gib_is_read_where_it_has_data)
{
    uint64_t bytes = GIB;
    uint8_t *ram = mmap(
        NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert(ram != MAP_FAILED);
    struct ram_snapshot snapshot;
    ram_snapshot_init(&snapshot, bytes, FRAME_PAGES_DEFAULT);
    for (uint64_t page = 5; page < bytes / PAGE_BYTES; page += 37) {
        uint64_t *words = (uint64_t *)(void *)(ram + page * PAGE_BYTES);
        words[0] = words[511] = word_of(page);
        ram_snapshot_map(&snapshot, page, 0, ram_snapshot_add(&snapshot, page, words));
    }
    ram_snapshot_end_pack(&snapshot);
    struct image *image = ram_snapshot_open(&snapshot);
    struct clone clone;
    attach(&clone, image);
    cr_assert_eq(image_read_ahead(image, NULL), 0);
    for (uint64_t page = 5; page < bytes / PAGE_BYTES; page += 37)
        cr_assert_eq(
            memcmp(clone.mem.base + page * PAGE_BYTES + 4088, &(uint64_t){word_of(page)}, 8), 0);
    /* A page can be read before its frame is noted as present. */
    cr_assert_eq(image_fill_all(image, NULL, NULL), 0);
    cr_assert(info_of(image).complete);
    detach(&clone);
    image_unref(image);
    ram_snapshot_fini(&snapshot);
    munmap(ram, bytes);
}

/* --- What must never be seen ------------------------------------------------------------------ */

struct reader {
    struct clone *clone;
    bool backwards;
    atomic_bool *stop;
    uint64_t wrong;
};

/* Follows the filling as closely as it can and looks at the end of each page, which a plain store
 * would reach last. */
static void *read_along(void *arg)
{
    struct reader *reader = arg;
    while (!atomic_load(reader->stop)) {
        for (uint64_t page = 0; page < RAM_PAGES; page++) {
            uint64_t at = reader->backwards ? RAM_PAGES - 1 - page : page;
            const volatile uint64_t *last =
                (const volatile uint64_t *)(void *)(reader->clone->mem.base +
                                                    (at + 1) * PAGE_BYTES - 8);
            uint64_t want = at / 25 % 4 != 3 ? word_of(at) : 0;
            if (*last != want)
                reader->wrong++;
        }
    }
    return NULL;
}

Test(image, no_reader_sees_a_page_that_is_half_there)
{
    for (unsigned round = 0; round < 16; round++) {
        struct world world;
        world_init(&world);
        struct clone clones[2];
        attach(&clones[0], world.image);
        attach(&clones[1], world.image);
        atomic_bool stop = false;
        struct reader readers[3] = {
            {.clone = &clones[0], .stop = &stop},
            {.clone = &clones[1], .stop = &stop},
            {.clone = &clones[1], .stop = &stop, .backwards = true},
        };
        pthread_t threads[3];
        for (unsigned i = 0; i < 3; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, read_along, &readers[i]), 0);
        fill(world.image, 2);
        atomic_store(&stop, true);
        for (unsigned i = 0; i < 3; i++) {
            pthread_join(threads[i], NULL);
            cr_assert_eq(readers[i].wrong, 0);
        }
        detach(&clones[0]);
        detach(&clones[1]);
        world_fini(&world);
    }
}

Test(image, attaching_and_touching_zeros_puts_nothing_into_the_image)
{
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    cr_assert_eq(image_pages(world.image), 0);
    static const uint64_t zero_pages[] = {75, 80, 99, 175, 199};
    for (unsigned i = 0; i < ARRAY_SIZE(zero_pages); i++) {
        uint64_t word = 1, gpa = zero_pages[i] * PAGE_BYTES;
        if (i % 2)
            memcpy(&word, clone.mem.base + gpa, sizeof(word));
        else
            cr_assert_eq(mem_read(&clone.mem, gpa, &word, sizeof(word)), 0);
        cr_assert_eq(word, 0);
        cr_assert_eq(mem_write(&clone.mem, gpa + 8, &(uint64_t){7}, 8), 0);
        cr_assert_eq(mem_read(&clone.mem, gpa + 8, &word, sizeof(word)), 0);
        cr_assert_eq(word, 7);
    }
    cr_assert_eq(image_pages(world.image), 0);
    detach(&clone);
    cr_assert_eq(image_pages(world.image), 0);

    /* And nothing that was attached before is in the way of the contents. */
    fill(world.image, 1);
    attach(&clone, world.image);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

/* Pages 0 to 15 in pack 0; then page 3 was written again, page 5 became zero, and page 7 is wanted
 * from the new pack although that has an even older copy of page 8 beside it. */
static struct image *open_history(struct ram_snapshot *snapshot)
{
    ram_snapshot_init(snapshot, RAM_BYTES, FRAME_PAGES_DEFAULT);
    uint64_t words[PAGE_BYTES / 8];
    for (uint64_t page = 0; page < 16; page++) {
        for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
            words[i] = word_of(page);
        uint64_t at = ram_snapshot_add(snapshot, page, words);
        if (page != 5)
            ram_snapshot_map(snapshot, page, 0, at);
    }
    ram_snapshot_next_pack(snapshot);
    static const uint64_t again[] = {3, 7, 8};
    for (unsigned k = 0; k < ARRAY_SIZE(again); k++) {
        for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
            words[i] = ~word_of(again[k]);
        uint64_t at = ram_snapshot_add(snapshot, again[k], words);
        if (again[k] != 8)
            ram_snapshot_map(snapshot, again[k], 1, at);
    }
    ram_snapshot_end_pack(snapshot);
    return ram_snapshot_open(snapshot);
}

static uint64_t history_word(uint64_t page)
{
    if (page == 5 || page > 15)
        return 0;
    return page == 3 || page == 7 ? ~word_of(page) : word_of(page);
}

Test(image, older_copies_of_a_page_beside_wanted_ones_are_not_published)
{
    for (uint64_t first = 0; first < 16; first++) {
        struct ram_snapshot snapshot;
        struct image *image = open_history(&snapshot);
        struct clone clone;
        attach(&clone, image);
        for (uint64_t i = 0; i < 32; i++) {
            uint64_t page = (first + i) % 17, word;
            memcpy(&word, clone.mem.base + page * PAGE_BYTES + 8, sizeof(word));
            cr_assert_eq(word, history_word(page), "page %d", (int)page);
        }
        cr_assert(info_of(image).complete);
        detach(&clone);
        attach(&clone, image); /* now as others see it */
        for (uint64_t page = 0; page < 17; page++) {
            uint64_t word;
            memcpy(&word, clone.mem.base + page * PAGE_BYTES + 8, sizeof(word));
            cr_assert_eq(word, history_word(page), "page %d", (int)page);
        }
        detach(&clone);
        image_unref(image);
        ram_snapshot_fini(&snapshot);
    }
}

Test(image, an_index_that_wants_a_page_from_another_pages_place_is_corrupt_not_zero)
{
    struct ram_snapshot snapshot;
    ram_snapshot_init(&snapshot, RAM_BYTES, FRAME_PAGES_DEFAULT);
    uint64_t words[PAGE_BYTES / 8] = {1};
    ram_snapshot_map(&snapshot, 4, 0, ram_snapshot_add(&snapshot, 4, words));
    ram_snapshot_map(&snapshot, 9, 0, ram_snapshot_add(&snapshot, 5, words));
    ram_snapshot_end_pack(&snapshot);
    struct image *image = ram_snapshot_open(&snapshot);
    struct thaw_error error;
    cr_assert_eq(image_fill_all(image, NULL, &error), THAW_ECORRUPT);
    cr_assert(!info_of(image).complete);
    image_unref(image);
    ram_snapshot_fini(&snapshot);
}

/* --- Bad frames ------------------------------------------------------------------------------- */

static struct image *open_damaged(struct world *world, uint64_t page)
{
    world->ram = make_ram(RAM_BYTES);
    struct image *image = ram_snapshot_image(&world->snapshot, world->ram, RAM_BYTES);
    image_unref(image);
    ram_snapshot_damage(&world->snapshot, ram_snapshot_frame_of(&world->snapshot, page));
    return world->image = ram_snapshot_open(&world->snapshot);
}

Test(image, a_bad_frame_is_reported_and_its_pages_are_never_seen)
{
    struct world world;
    struct image *image = open_damaged(&world, 200);
    struct clone clone, other;
    attach(&clone, image);
    attach(&other, image);

    cr_assert_eq(touch(clone.mem.base + 200 * PAGE_BYTES), -EFAULT);
    cr_assert_eq(clone.bad, 1);
    cr_assert(strstr(clone.detail, "ram.pack0"), "%s", clone.detail);
    cr_assert(strstr(clone.detail, "frame 9 "), "%s", clone.detail);
    cr_assert_eq(touch(clone.mem.base + 201 * PAGE_BYTES), -EFAULT);

    /* Good pages can still be read, before and after. */
    cr_assert_eq(memcmp(clone.mem.base, world.ram, 100 * PAGE_BYTES), 0);
    uint64_t word;
    cr_assert_eq(mem_read(&clone.mem, 300 * PAGE_BYTES, &word, 8), 0);

    /* Host code is refused, and that ends its VM too. */
    cr_assert_eq(other.bad, 0);
    cr_assert_eq(mem_read(&other.mem, 202 * PAGE_BYTES, &word, 8), THAW_ECORRUPT);
    cr_assert_eq(other.bad, 1);
    cr_assert(strstr(other.detail, "ram.pack0"), "%s", other.detail);

    struct image_clone *refused;
    struct thaw_error error;
    struct mem mem;
    cr_assert_eq(mem_init(&mem, RAM_BYTES, &error), 0);
    cr_assert_eq(image_attach(image, &mem, on_bad, &clone, &refused, &error), THAW_ECORRUPT);
    mem_fini(&mem);
    detach(&clone);
    detach(&other);
    world_fini(&world);
}

static void on_bad_slowly(void *data, const char *detail)
{
    usleep(100000);
    on_bad(data, detail);
}

static void *present_bad(void *arg)
{
    struct clone *clone = arg;
    cr_assert_eq(mem_make_present(&clone->mem, 200 * PAGE_BYTES, PAGE_BYTES), THAW_ECORRUPT);
    return NULL;
}

/* Or a guest would see what comes of it (an exception, and no way to handle it) as its end. */
Test(image, the_owner_knows_of_a_bad_frame_before_any_toucher_goes_on)
{
    struct world world;
    struct image *image = open_damaged(&world, 200);
    struct clone clone = {.told = ATOMIC_FLAG_INIT};
    struct thaw_error error;
    cr_assert_eq(mem_init(&clone.mem, image->bytes, &error), 0, "%s", error.message);
    int r = image_attach(image, &clone.mem, on_bad_slowly, &clone, &clone.view, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, present_bad, &clone), 0);
    while (info_of(image).frames_bad == 0)
        usleep(100);
    usleep(10000);
    cr_assert_eq(touch(clone.mem.base + 200 * PAGE_BYTES), -EFAULT);
    cr_assert_geq(clone.bad, 1);
    pthread_join(thread, NULL);
    detach(&clone);
    world_fini(&world);
}

Test(image, filling_eagerly_fails_on_a_bad_frame_and_names_it)
{
    struct world world;
    struct image *image = open_damaged(&world, 1000);
    struct thaw_error error;
    cr_assert_eq(image_fill_all(image, NULL, &error), THAW_ECORRUPT);
    cr_assert(strstr(error.message, "ram.pack0"), "%s", error.message);
    cr_assert_eq(info_of(image).frames_bad, 1);
    cr_assert_eq(image_fd(image, &error), THAW_ESTATE);
    world_fini(&world);
}

Test(image, the_background_passes_over_a_bad_frame_that_nobody_needs)
{
    struct world world;
    struct image *image = open_damaged(&world, 1000);
    struct clone clone;
    attach(&clone, image);
    cr_assert_eq(image_read_ahead(image, NULL), 0);
    struct image_info info;
    do {
        usleep(1000);
        info = info_of(image);
    } while (info.frames_present + info.frames_bad < info.frames);
    cr_assert_eq(info.frames_bad, 1);
    cr_assert_eq(clone.bad, 0);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, 500 * PAGE_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

Test(image, a_file_that_cannot_be_read_is_an_error_not_zeros)
{
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    atomic_store(&no_reads, true);
    cr_assert_eq(touch(clone.mem.base), -EFAULT);
    cr_assert_eq(clone.bad, 1);
    uint64_t word;
    cr_assert_eq(mem_read(&clone.mem, 50 * PAGE_BYTES, &word, 8), -EIO);
    detach(&clone);
    world_fini(&world);
}

/* --- Clones ----------------------------------------------------------------------------------- */

Test(image, clones_share_what_they_have_not_written_and_nothing_else)
{
    struct world world;
    world_init(&world);
    struct clone a, b;
    attach(&a, world.image);
    attach(&b, world.image);
    for (uint64_t page = 0; page < RAM_PAGES; page += 3) {
        cr_assert_eq(mem_write(&a.mem, page * PAGE_BYTES, &(uint64_t){0xaaaa}, 8), 0);
        memcpy(b.mem.base + page * PAGE_BYTES + 16, &(uint64_t){0xbbbb}, 8);
    }
    fill(world.image, 2);
    for (uint64_t page = 0; page < RAM_PAGES; page += 3) {
        uint64_t *in_ram = (uint64_t *)(void *)(world.ram + page * PAGE_BYTES);
        uint64_t *in_a = (uint64_t *)(void *)(a.mem.base + page * PAGE_BYTES);
        uint64_t *in_b = (uint64_t *)(void *)(b.mem.base + page * PAGE_BYTES);
        cr_assert_eq(in_a[0], 0xaaaa);
        cr_assert_eq(in_a[2], in_ram[2]);
        cr_assert_eq(in_b[0], in_ram[0]);
        cr_assert_eq(in_b[2], 0xbbbb);
    }
    detach(&a);
    detach(&b);
    struct clone c;
    attach(&c, world.image);
    cr_assert_eq(memcmp(c.mem.base, world.ram, RAM_BYTES), 0);
    detach(&c);
    world_fini(&world);
}

Test(image, host_code_that_asks_first_never_faults_itself)
{
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    for (uint64_t page = 0; page < RAM_PAGES; page += 16) {
        void *hva;
        uint64_t bytes = 16 * PAGE_BYTES;
        cr_assert_eq(mem_hva(&clone.mem, page * PAGE_BYTES, bytes, &hva), 0);
        /* Without a touch: a page that is not there now would make the touch wait. */
        unsigned char there[16];
        cr_assert_eq(mincore(hva, bytes, there), 0);
        for (unsigned i = 0; i < 16; i++)
            cr_assert((there[i] & 1) || (page + i) / 25 % 4 == 3);
        cr_assert_eq(memcmp(hva, world.ram + page * PAGE_BYTES, bytes), 0);
    }
    detach(&clone);
    world_fini(&world);
}

static void *touch_late(void *arg)
{
    struct clone *clone = arg;
    cr_assert_eq(touch(clone->mem.base + 2000 * PAGE_BYTES), 0);
    return NULL;
}

Test(image, a_touch_that_waits_for_a_slow_disk_is_served_before_the_clone_goes)
{
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    atomic_store(&slow_reads_us, 200000);
    cr_assert_eq(image_read_ahead(world.image, NULL), 0);
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, touch_late, &clone), 0);
    pthread_join(thread, NULL);
    detach(&clone);
    world_fini(&world);
}

Test(image, one_frame_is_read_once_however_many_want_it)
{
    struct world world;
    world_init(&world);
    struct clone clones[2];
    attach(&clones[0], world.image);
    attach(&clones[1], world.image);
    atomic_store(&slow_reads_us, 50000);
    int before = atomic_load(&reads);
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, touch_late, &clones[i % 2]), 0);
    cr_assert_eq(mem_make_present(&clones[0].mem, 2000 * PAGE_BYTES, PAGE_BYTES), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&reads) - before, 1);
    detach(&clones[0]);
    detach(&clones[1]);
    world_fini(&world);
}

/* The background is held in its first read. */
Test(image, a_page_that_is_needed_is_read_before_what_the_background_reads_already)
{
    static const uint64_t needed[] = {0, 2000, 4074}; /* of the first frame to the last */
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    slow_reads_hold("thaw-readahead");
    cr_assert_eq(image_read_ahead(world.image, NULL), 0);
    slow_reads_wait_held();
    for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
        uint64_t off = needed[i] * PAGE_BYTES;
        if (i % 2)
            cr_assert_eq(mem_make_present(&clone.mem, off, PAGE_BYTES), 0);
        cr_assert_eq(memcmp(clone.mem.base + off, world.ram + off, PAGE_BYTES), 0);
    }
    uint64_t present = info_of(world.image).frames_present;
    slow_reads_release();
    cr_assert_eq(present, ARRAY_SIZE(needed), "of each page its frame, and no other");
    while (!info_of(world.image).complete)
        usleep(1000);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

Test(image, attaching_to_a_vm_of_another_size_is_refused)
{
    struct world world;
    world_init(&world);
    struct mem mem;
    struct thaw_error error;
    struct image_clone *clone;
    cr_assert_eq(mem_init(&mem, 2 * RAM_BYTES, &error), 0);
    cr_assert_eq(image_attach(world.image, &mem, on_bad, NULL, &clone, &error), -EINVAL);
    mem_fini(&mem);
    world_fini(&world);
}

/* --- Other processes -------------------------------------------------------------------------- */

static int compare_adopted(int fd, const uint8_t *ram)
{
    struct image *image;
    struct mem mem;
    struct image_clone *clone;
    if (image_adopt(fd, RAM_BYTES, &image, NULL) < 0 || mem_init(&mem, RAM_BYTES, NULL) < 0 ||
        image_attach(image, &mem, on_bad, NULL, &clone, NULL) < 0)
        return 2;
    int r = memcmp(mem.base, ram, RAM_BYTES) != 0;
    mem.base[0] ^= 1; /* its own */
    image_detach(clone);
    mem_fini(&mem);
    image_unref(image);
    /* The image itself takes no writes, by any way. */
    if (mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED ||
        pwrite(fd, "x", 1, 0) >= 0 || ftruncate(fd, 0) == 0)
        return 3;
    return r;
}

Test(image, a_complete_one_is_used_by_another_process_and_takes_no_writes)
{
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    fill(world.image, 2);
    int fd = image_fd(world.image, NULL);
    cr_assert_geq(fd, 0);
    pid_t child = fork();
    if (child == 0)
        _exit(compare_adopted(fd, world.ram));
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    cr_assert_eq(memcmp(clone.mem.base, world.ram, RAM_BYTES), 0);
    detach(&clone);
    world_fini(&world);
}

Test(image, an_incomplete_one_is_neither_given_away_nor_taken)
{
    struct world world;
    world_init(&world);
    struct thaw_error error;
    struct image *image;
    cr_assert_eq(image_fd(world.image, &error), THAW_ESTATE);
    cr_assert_eq(image_adopt(world.image->fd, RAM_BYTES, &image, &error), -EINVAL);
    /* Nor can another writable mapping of it be made. */
    void *got = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, world.image->fd, 0);
    cr_assert(got == MAP_FAILED);
    world_fini(&world);
}

Test(image, forked_children_inherit_neither_view_nor_filler)
{
    struct world world;
    world_init(&world);
    struct clone clone;
    attach(&clone, world.image);
    pid_t child = fork();
    if (child == 0) {
        unsigned char there;
        _exit(mincore(clone.mem.base, PAGE_BYTES, &there) < 0 &&
                      mincore(world.image->filler, PAGE_BYTES, &there) < 0
                  ? 0
                  : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    detach(&clone);
    world_fini(&world);
}
