// SPDX-License-Identifier: Apache-2.0
// Temporary stores and small snapshots. Uses the store's own interface to make them.

#include "store_fixture.h"
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %m\n", __FILE__, __LINE__, #condition);                    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

void fixture_directory(const char *parent, char ret[64])
{
    snprintf(ret, 64, "%s/thaw-store-XXXXXX", parent);
    MUST(mkdtemp(ret));
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void fixture_remove(const char *path)
{
    MUST(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

struct thaw_store *fixture_open(const char *path)
{
    struct thaw_store_options options = {
        .size = sizeof(options), .path = path, .flags = THAW_STORE_CREATE};
    struct thaw_error error = {0};
    struct thaw_store *store;
    if (thaw_store_open(&options, &store, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    return store;
}

static void set_strings(struct manifest_strings *strings, const char *text)
{
    strings->items = calloc(1, sizeof(*strings->items));
    MUST(strings->items);
    strcpy(strings->items[0], text);
    strings->count = 1;
}

#define FIXTURE_DIGEST "xxh3-128:00112233445566778899aabbccddeeff"

static void set_files(struct manifest *m)
{
    m->file_count = 2;
    m->files = calloc(m->file_count, sizeof(*m->files));
    m->pack_count = 1;
    m->packs = calloc(m->pack_count, sizeof(*m->packs));
    m->stat_count = 1;
    m->stats = calloc(m->stat_count, sizeof(*m->stats));
    MUST(m->files && m->packs && m->stats);
    m->files[0] = (struct manifest_file){
        .path = "vmstate", .bytes = strlen(FIXTURE_DATA), .digest = FIXTURE_DIGEST};
    m->files[1] = (struct manifest_file){
        .path = "packs/" FIXTURE_PACK, .bytes = strlen(FIXTURE_PACK), .digest = FIXTURE_DIGEST};
    m->packs[0] = (struct manifest_pack){
        .id = FIXTURE_PACK, .bytes = strlen(FIXTURE_PACK), .live_bytes = 7, .own = true};
    m->stats[0] = (struct manifest_stat){.name = "pause_ns", .value = 123456};
}

void fixture_manifest(struct manifest *m)
{
    *m = (struct manifest){
        .complete = true,
        .id = "00000000000000000000000000000001",
        .name = "web",
        .source = "vm 1",
        .template_name = "debian/12",
        .producer = "thaw test",
        .created_ns = 1234567890123456789,
        .kind = MANIFEST_DIFF,
        .parent = "00000000000000000000000000000002",
        .vcpu_count = 2,
        .mem_bytes = 128 * MIB,
        .disk_count = 1,
        .cpu_vendor = "GenuineIntel",
        .cpu_family = 6,
        .cpu_model = 85,
        .cpu_stepping = 7,
        .tsc_khz = 2500000,
        .kvm_backend = "native",
        .cpuid_count = 1,
    };
    m->disks = calloc(1, sizeof(*m->disks));
    m->cpuid = calloc(1, sizeof(*m->cpuid));
    m->metadata = strdup("{\"timeout\":{\"seconds\":[1,2.5,null]}}");
    MUST(m->disks && m->cpuid && m->metadata);
    m->disks[0] = (struct manifest_disk){.bytes = 1 * GIB,
        .base_path = strdup("/images/root.img"),
        .base_bytes = 1 * GIB,
        .base_mtime_ns = 42,
        .base_identity = "xxh3-128:1"};
    m->cpuid[0] = (struct manifest_cpuid){7, 0, 1, 0xffffffff, 3, 4};
    set_strings(&m->ignorable, "comment");
    set_strings(&m->overrides, "console");
    set_strings(&m->devices, "virtio-blk");
    set_files(m);
}

int fixture_write_at(int dirfd, const char *name, const char *text)
{
    _cleanup_close_ int fd =
        openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, strlen(text));
    return n < 0 ? -errno : n == (ssize_t)strlen(text) ? 0 : -EIO;
}

int fixture_fill(struct store_creation *creation)
{
    int r = fixture_write_at(store_creation_dirfd(creation), "vmstate", FIXTURE_DATA);
    return r < 0
               ? r
               : fixture_write_at(store_creation_packs_dirfd(creation), FIXTURE_PACK, FIXTURE_PACK);
}

int fixture_create(struct thaw_store *store, const char *name, struct thaw_error *error)
{
    struct store_request request = {.name = name, .template_name = "debian/12", .source = "vm 1"};
    struct store_creation *creation;
    struct manifest m;
    int r = store_begin(store, &request, &creation, error);
    if (r < 0)
        return r;
    fixture_manifest(&m);
    r = fixture_fill(creation);
    if (r == 0)
        r = store_commit(creation, &m, error);
    if (r < 0)
        store_abort(creation, "the test gave up", NULL);
    manifest_fini(&m);
    return r;
}

static bool is_file(int dirfd, const char *path, const char *text)
{
    char bytes[256];
    _cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
    return n == (ssize_t)strlen(text) && memcmp(bytes, text, (size_t)n) == 0;
}

int fixture_check(struct thaw_store *store, const char *ref)
{
    struct store_snapshot *snapshot;
    int r = store_get(store, ref, NULL, &snapshot, NULL);
    if (r < 0)
        return r;
    if (!is_file(snapshot->fd, "vmstate", FIXTURE_DATA) ||
        !is_file(snapshot->fd, "packs/" FIXTURE_PACK, FIXTURE_PACK))
        r = THAW_ECORRUPT;
    store_put(snapshot);
    return r;
}

void fixture_write(const char *directory, const char *path, const char *text)
{
    char whole[256];
    snprintf(whole, sizeof(whole), "%s/%s", directory, path);
    FILE *file = fopen(whole, "w");
    MUST(file);
    MUST(fputs(text, file) >= 0);
    MUST(fclose(file) == 0);
}

bool fixture_exists(const char *directory, const char *path)
{
    char whole[256];
    struct stat st;
    snprintf(whole, sizeof(whole), "%s/%s", directory, path);
    return lstat(whole, &st) == 0;
}

unsigned fixture_count(const char *directory, const char *path)
{
    char whole[256];
    unsigned count = 0;
    snprintf(whole, sizeof(whole), "%s/%s", directory, path);
    DIR *dir = opendir(whole);
    MUST(dir);
    for (const struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}
