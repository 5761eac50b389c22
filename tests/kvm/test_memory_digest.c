// SPDX-License-Identifier: Apache-2.0
// The digest of a VM's memory: equal for a source and its clones, whatever way these get their
// memory, and for nothing else.

#include "guest.h"
#include "pagemap.h"
#include "snapshots.h"
#include "vm.h"
#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

static struct snapshots snapshots;

static void set_up(void)
{
    snapshots_init(&snapshots);
}

static void clean_up(void)
{
    snapshots_fini(&snapshots);
}

TestSuite(memory_digest, .init = set_up, .fini = clean_up);

struct digest {
    char text[THAW_DIGEST_BYTES];
};

static struct digest digest_of(struct guest *guest)
{
    struct digest digest;
    struct thaw_error error;
    int r = thaw_vm_memory_digest(guest->vm, digest.text, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    return digest;
}

static void start(struct guest *guest)
{
    guest_new(guest, (struct thaw_vm_options){.name = "source",
                         .kernel_path = "tick",
                         .cmdline = "interval=300000",
                         .mem_bytes = 16 << 20});
    guest_start(guest);
    guest_expect(guest, "tick 3\n", 0);
}

static void pause_guest(struct guest *guest)
{
    struct thaw_error error;
    cr_assert_eq(thaw_vm_pause(guest->vm, &error), 0, "%s", error.message);
}

static void get_on(struct guest *guest)
{
    struct thaw_error error;
    cr_assert_eq(thaw_vm_resume(guest->vm, &error), 0, "%s", error.message);
    guest_expect(guest, "tick ", guest_console_count(guest));
    pause_guest(guest);
}

/* A new clone. */
static struct digest digest_restored(const char *name, enum thaw_restore_mode mode)
{
    static struct guest clone;
    guest_restore(&clone, snapshots.store, (struct thaw_restore_options){.mode = mode}, name);
    struct digest digest = digest_of(&clone);
    guest_free(&clone);
    return digest;
}

static void check_clones(const char *name, const struct digest *wanted)
{
    struct digest eager = digest_restored(name, THAW_RESTORE_EAGER);
    struct digest lazy = digest_restored(name, THAW_RESTORE_LAZY);
    cr_assert_str_eq(eager.text, wanted->text, "%s, eager", name);
    cr_assert_str_eq(lazy.text, wanted->text, "%s, lazy", name);
}

Test(memory_digest, is_the_hash_of_all_memory_without_the_generation_id)
{
    static struct guest source;
    start(&source);
    pause_guest(&source);
    struct digest digest = digest_of(&source);
    uint8_t *memory = snapshots_copy_memory(source.vm);
    memset(memory + MACHINE_VMGENID_GPA, 0, 16);
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(memory, source.vm->mem.bytes));
    char text[THAW_DIGEST_BYTES] = "xxh3-128:";
    for (size_t i = 0; i < sizeof(hash.digest); i++)
        snprintf(text + 9 + 2 * i, 3, "%02x", hash.digest[i]);
    cr_assert_str_eq(digest.text, text);
    free(memory);
    guest_free(&source);
}

Test(memory_digest, of_clones_is_the_sources_until_one_writes)
{
    static struct guest source, clone;
    start(&source);
    pause_guest(&source);
    snapshots_take(&snapshots, source.vm, "full", 0);
    struct digest full = digest_of(&source);
    check_clones("full", &full);

    get_on(&source);
    snapshots_take(&snapshots, source.vm, "diff", THAW_SNAPSHOT_DIFF);
    struct digest diff = digest_of(&source);
    cr_assert_str_neq(diff.text, full.text);
    check_clones("diff", &diff);
    check_clones("full", &full);

    /* A clone that wrote, and what it is restored as. */
    guest_restore(&clone, snapshots.store, (struct thaw_restore_options){0}, "diff");
    get_on(&clone);
    struct digest written = digest_of(&clone);
    cr_assert_str_neq(written.text, diff.text);
    snapshots_take(&snapshots, clone.vm, "clone", THAW_SNAPSHOT_DIFF);
    check_clones("clone", &written);
    guest_free(&clone);
    guest_free(&source);
}

Test(memory_digest, of_clones_that_share_an_image_differ_by_what_each_has_written)
{
    static struct guest source;
    struct thaw_error error;
    thaw_image *image;
    thaw_vm *clones[2];
    struct digest digests[2], wanted;
    start(&source);
    pause_guest(&source);
    snapshots_take(&snapshots, source.vm, "s", 0);
    wanted = digest_of(&source);
    int r = thaw_image_open(source.env, snapshots.store, "s", NULL, NULL, &image, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(thaw_image_restore(image, NULL, &clones[i], &error), 0, "%s", error.message);
    cr_assert_eq(mem_write(&clones[0]->mem, 5 << 20, "x", 1), 0);
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(
            thaw_vm_memory_digest(clones[i], digests[i].text, &error), 0, "%s", error.message);
    cr_assert_str_neq(digests[0].text, wanted.text);
    cr_assert_str_eq(digests[1].text, wanted.text);
    thaw_vm_free(clones[0]);
    thaw_vm_free(clones[1]);
    thaw_image_close(image);
    guest_free(&source);
}

static unsigned private_pages(const thaw_vm *vm)
{
    uint64_t bits[(16 << 20) / 4096 / 64] = {0};
    unsigned count = 0;
    cr_assert_eq(pagemap_private(vm->mem.base, vm->mem.bytes, bits, NULL), 0);
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        count += (unsigned)__builtin_popcountll(bits[i]);
    return count;
}

static long long blocks_of(thaw_image *image)
{
    struct thaw_error error;
    struct stat st;
    int fd = thaw_image_memory_fd(image, &error);
    cr_assert_geq(fd, 0, "%s", error.message);
    cr_assert_eq(fstat(fd, &st), 0);
    return (long long)st.st_blocks;
}

Test(memory_digest, takes_no_memory_for_what_was_never_touched)
{
    static struct guest source;
    struct thaw_error error;
    struct thaw_image_options eager = {.size = sizeof(eager), .mode = THAW_RESTORE_EAGER};
    thaw_image *image;
    thaw_vm *clone;
    struct digest wanted, digest;
    start(&source);
    pause_guest(&source);
    unsigned pages = private_pages(source.vm);
    wanted = digest_of(&source);
    cr_assert_eq(private_pages(source.vm), pages);

    snapshots_take(&snapshots, source.vm, "s", 0);
    int r = thaw_image_open(source.env, snapshots.store, "s", NULL, &eager, &image, &error);
    cr_assert_eq(r, 0, "%s", error.message);
    long long blocks = blocks_of(image);
    cr_assert_eq(thaw_image_restore(image, NULL, &clone, &error), 0, "%s", error.message);
    pages = private_pages(clone);
    cr_assert_eq(thaw_vm_memory_digest(clone, digest.text, &error), 0, "%s", error.message);
    cr_assert_str_eq(digest.text, wanted.text);
    cr_assert_eq(private_pages(clone), pages);
    cr_assert_eq(blocks_of(image), blocks);
    thaw_vm_free(clone);
    thaw_image_close(image);
    guest_free(&source);
}

Test(memory_digest, needs_a_vm_that_stands_still)
{
    static struct guest source;
    struct thaw_error error;
    struct digest digest = {"untouched"};
    start(&source);
    cr_assert_eq(thaw_vm_memory_digest(source.vm, digest.text, &error), THAW_ESTATE);
    cr_assert(strstr(error.message, "VM source is running"), "%s", error.message);
    cr_assert_str_eq(digest.text, "untouched");
    pause_guest(&source);
    struct digest paused = digest_of(&source);
    cr_assert_eq(thaw_vm_stop(source.vm, NULL), 0);
    struct digest stopped = digest_of(&source);
    cr_assert_str_eq(paused.text, stopped.text);
    guest_free(&source);
}
