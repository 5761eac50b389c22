// SPDX-License-Identifier: Apache-2.0
// Writes the first inputs of fuzz_pack, fuzz_index and fuzz_vmstate: make_corpus DIRECTORY. Run
// again when the format changes; the files are kept in the repository.

#include "pack.h"
#include "page_index.h"
#include "state_file.h"
#include <err.h>
#include <fcntl.h>
#include <sys/stat.h>

static const struct wire_b16 pack_id = {{0x70, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

/* The file with the byte that chooses: once as it stands, once with its checksums made good. */
static void add_choice(int dirfd, const char *name)
{
    for (char choice = 0; choice < 2; choice++) {
        char copy[64];
        uint8_t bytes[65536];
        snprintf(copy, sizeof(copy), "%s-%s", name, choice ? "resealed" : "intact");
        int from = openat(dirfd, name, O_RDONLY);
        int to = openat(dirfd, copy, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        ssize_t n = read(from, bytes, sizeof(bytes) - 1);
        if (from < 0 || to < 0 || n < 0)
            err(1, "%s", copy);
        bytes[n] = (uint8_t)choice;
        if (write(to, bytes, (size_t)n + 1) != n + 1)
            err(1, "%s", copy);
        close(from);
        close(to);
    }
    if (unlinkat(dirfd, name, 0) < 0)
        err(1, "%s", name);
}

static void make_pack(int dirfd, const char *name, unsigned frame_pages, unsigned pages)
{
    struct pack_write_options options = {.id = pack_id, .frame_pages = frame_pages, .threads = 1};
    struct pack_writer *writer;
    struct thaw_error error;
    if (pack_writer_open(dirfd, name, &options, &writer, &error) < 0)
        errx(1, "%s", error.message);
    for (unsigned n = 0; n < pages; n++) {
        uint8_t page[FORMAT_PAGE_BYTES];
        uint64_t pack_page;
        uint32_t x = n + 1;
        for (size_t i = 0; i < sizeof(page); i++) {
            x = x * 1664525 + 1013904223;
            page[i] = n % 4 == 3 ? (uint8_t)(x >> 24) : (uint8_t)n; /* one in four: no pattern */
        }
        if (pack_writer_add(writer, n % 2, n, page, &pack_page, &error) < 0)
            errx(1, "%s", error.message);
    }
    if (pack_writer_finish(writer, NULL, &error) < 0)
        errx(1, "%s", error.message);
    add_choice(dirfd, name);
}

static void make_index(int dirfd, const char *name, struct page_space space, unsigned packs)
{
    struct page_index_builder *builder;
    struct page_index *index;
    struct thaw_error error;
    int r = page_index_builder_new(&space, NULL, &builder, &error);
    if (r < 0)
        errx(1, "%s", error.message);
    for (unsigned i = 0; r == 0 && i < packs; i++) {
        struct wire_b16 id = {{0x70, (uint8_t)i}};
        r = page_index_builder_set_data(builder, 3ull * i, 2, &id, 100 * i, &error);
        if (r == 0 && i % 2)
            r = page_index_builder_set_zero(builder, 3ull * i + 2, 1, &error);
    }
    if (r < 0 || page_index_builder_finish(builder, &index, &error) < 0 ||
        page_index_save(index, dirfd, name, NULL, &error) < 0)
        errx(1, "%s", error.message);
    page_index_free(index);
    add_choice(dirfd, name);
}

/* Zeros, but for the elements of arrays, so that there is one of everything. */
static void make_state(int dirfd, const char *name, uint32_t vcpus, uint32_t disks)
{
    uint8_t *bytes;
    size_t count;
    struct vm_state *state = vm_state_new(vcpus);
    if (!state)
        errx(1, "no memory");
    state->machine.disk_count = disks;
    for (uint32_t i = 0; i < vcpus; i++) {
        state->vcpus[i].cpuid_count = 2;
        state->vcpus[i].msr_count = 3;
        state->vcpus[i].xsave_bytes = 64;
    }
    state->machine.rng.queue_count = 1;
    for (uint32_t i = 0; i < disks; i++) {
        state->machine.disks[i].virtio.queue_count = 1;
        state->machine.disks[i].parked_count = 2;
    }
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || state_file_encode(state, &pack_id, &bytes, &count, NULL) < 0 ||
        write(fd, bytes, count) != (ssize_t)count)
        err(1, "%s", name);
    close(fd);
    free(bytes);
    vm_state_free(state);
    add_choice(dirfd, name);
}

static int make_directory(const char *parent, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", parent, name);
    mkdir(path, 0755);
    int dirfd = open(path, O_RDONLY | O_DIRECTORY);
    if (dirfd < 0)
        err(1, "%s", path);
    return dirfd;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: make_corpus DIRECTORY");
    int dirfd = make_directory(argv[1], "fuzz_pack");
    make_pack(dirfd, "empty", 0, 0);
    make_pack(dirfd, "one-page", 0, 1);
    make_pack(dirfd, "short-last-frame", 2, 3);
    make_pack(dirfd, "raw-and-compressed", 1, 4);
    close(dirfd);

    dirfd = make_directory(argv[1], "fuzz_index");
    const struct page_space ram = {
        .kind = SPACE_KIND_RAM,
        .page_count = 1000,
        .region_count = 2,
        .regions = {{.gpa = 0, .page_count = 600}, {4 * GIB, .page_count = 400, .page = 600}},
    };
    const struct page_space disk = {.number = 1, .kind = SPACE_KIND_DISK, .page_count = 1ull << 34};
    const struct page_space nothing = {.number = 2, .kind = SPACE_KIND_DISK};
    make_index(dirfd, "ram", ram, 5);
    make_index(dirfd, "disk", disk, INDEX_PACKS_MAX);
    make_index(dirfd, "empty", nothing, 0);
    close(dirfd);

    dirfd = make_directory(argv[1], "fuzz_vmstate");
    make_state(dirfd, "one-vcpu", 1, 0);
    make_state(dirfd, "disks", 2, 3);
    close(dirfd);
    return 0;
}
