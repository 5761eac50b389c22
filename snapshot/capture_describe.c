// SPDX-License-Identifier: Apache-2.0
// Writes a snapshot's small files and says in its manifest what it is. Reads no guest memory.

#include "capture.h"
#include "check.h"
#include "state_file.h"
#include "store_fs.h"
#include <fcntl.h>
#include <string.h>
#include <thaw/version.h>

static void copy(char *dst, size_t bytes, const char *src)
{
    snprintf(dst, bytes, "%s", src);
}

/* --- Files ------------------------------------------------------------------------------------ */

static struct manifest_file *add_file(struct manifest *manifest, const char *path, uint64_t bytes,
    const char *digest, struct thaw_error *error)
{
    struct manifest_file *more =
        realloc(manifest->files, (manifest->file_count + 1) * sizeof(*manifest->files));
    if (!more) {
        error_errno(error, ENOMEM, "describing a snapshot");
        return NULL;
    }
    manifest->files = more;
    struct manifest_file *file = &more[manifest->file_count++];
    *file = (struct manifest_file){.bytes = bytes};
    copy(file->path, sizeof(file->path), path);
    copy(file->digest, sizeof(file->digest), digest);
    return file;
}

static int add_own_file(struct capture *capture, struct manifest *manifest, const char *path,
    uint64_t bytes, const struct wire_b16 *digest, struct thaw_error *error)
{
    char text[MANIFEST_DIGEST_BYTES];
    manifest_format_digest(digest->bytes, text);
    capture->result.stored_bytes += bytes;
    return add_file(manifest, path, bytes, text, error) ? 0 : -ENOMEM;
}

static int parse_id(const char *hex, struct wire_b16 *ret)
{
    for (size_t i = 0; i < sizeof(ret->bytes); i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
            return -EINVAL;
        ret->bytes[i] = (uint8_t)byte;
    }
    return 0;
}

static int write_state(struct capture *capture, struct manifest *manifest, struct thaw_error *error)
{
    struct wire_b16 id;
    uint8_t *bytes _cleanup_free_ = NULL;
    size_t count = 0;
    if (parse_id(store_creation_id(capture->creation), &id) < 0)
        return error_set(error, -EINVAL, "the snapshot's id is not hexadecimal");
    int r = state_file_encode(capture->state, &id, &bytes, &count, error);
    if (r < 0)
        return r;
    _cleanup_close_ int fd = openat(store_creation_dirfd(capture->creation), "vmstate",
        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(error, errno, "creating 'vmstate'");
    r = fs_write_all(fd, bytes, count);
    if (r < 0)
        return error_errno(error, -r, "writing 'vmstate'");
    struct check_stream *stream = check_stream_new();
    if (!stream)
        return error_errno(error, ENOMEM, "describing a snapshot");
    check_stream_add(stream, bytes, count);
    struct wire_b16 digest = check_stream_result(stream);
    check_stream_free(stream);
    return add_own_file(capture, manifest, "vmstate", count, &digest, error);
}

static int write_indexes(
    struct capture *capture, struct manifest *manifest, struct thaw_error *error)
{
    for (unsigned i = 0; i < 1 + capture->disk_count; i++) {
        char name[32];
        struct page_index_totals totals = {0};
        contents_index_name(i, name, sizeof(name));
        int r = page_index_save(
            capture->indexes[i], store_creation_dirfd(capture->creation), name, &totals, error);
        if (r == 0)
            r = add_own_file(capture, manifest, name, totals.file_bytes, &totals.digest, error);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- Packs ------------------------------------------------------------------------------------ */

static struct manifest_pack *find_pack(struct manifest *manifest, const char *id)
{
    for (size_t i = 0; i < manifest->pack_count; i++)
        if (strcmp(manifest->packs[i].id, id) == 0)
            return &manifest->packs[i];
    return NULL;
}

static int add_pack(struct capture *capture, struct manifest *manifest, const struct wire_b16 *id,
    struct manifest_pack **ret, struct thaw_error *error)
{
    char path[6 + 33] = "packs/";
    contents_pack_name(id, path + 6);
    *ret = find_pack(manifest, path + 6);
    if (*ret)
        return 0;
    struct manifest_pack *more =
        realloc(manifest->packs, (manifest->pack_count + 1) * sizeof(*manifest->packs));
    if (!more)
        return error_errno(error, ENOMEM, "describing a snapshot");
    manifest->packs = more;
    *ret = &more[manifest->pack_count++];
    **ret = (struct manifest_pack){.own = wire_b16_equal(id, &capture->pack_id)};
    copy((*ret)->id, sizeof((*ret)->id), path + 6);

    if ((*ret)->own) {
        (*ret)->bytes = capture->totals.file_bytes;
        return add_own_file(
            capture, manifest, path, capture->totals.file_bytes, &capture->totals.digest, error);
    }
    const struct store_snapshot *source = capture->from->snapshot;
    const struct manifest_file *file = manifest_find_file(&source->manifest, path);
    if (!file)
        return error_set(error, THAW_ECORRUPT, "the manifest of '%s' lacks the pack '%s'",
            source->manifest.name, path);
    (*ret)->bytes = file->bytes;
    int r = store_link_pack(capture->creation, source->fd, path + 6, error);
    if (r < 0)
        return r;
    return add_file(manifest, path, file->bytes, file->digest, error) ? 0 : -ENOMEM;
}

/* How much of a pack's file is used: its live pages' share of it. */
static uint64_t live_bytes(const struct capture *capture, const struct wire_b16 *id,
    uint64_t file_bytes, uint64_t live_pages)
{
    uint64_t pages = capture->totals.pages;
    if (!wire_b16_equal(id, &capture->pack_id))
        pages = pack_reader_page_count(contents_find_pack(capture->from, id));
    return pages ? (uint64_t)((unsigned __int128)file_bytes * live_pages / pages) : 0;
}

/* Packs that the indexes refer to; and the new one in any case, though it may be empty. */
static int add_packs(struct capture *capture, struct manifest *manifest, struct thaw_error *error)
{
    struct manifest_pack *pack;
    int r = add_pack(capture, manifest, &capture->pack_id, &pack, error);
    for (unsigned i = 0; i < 1 + capture->disk_count; i++) {
        const struct page_index *index = capture->indexes[i];
        for (unsigned n = 0; n < page_index_pack_count(index) && r == 0; n++) {
            const struct wire_b16 *id = page_index_pack_id(index, n);
            r = add_pack(capture, manifest, id, &pack, error);
            if (r == 0)
                pack->live_bytes =
                    MIN(pack->bytes, pack->live_bytes + live_bytes(capture, id, pack->bytes,
                                                            page_index_pack_live(index, n)));
        }
    }
    return r;
}

/* --- The machine and its host ----------------------------------------------------------------- */

static int describe_disks(
    struct capture *capture, struct manifest *manifest, struct thaw_error *error)
{
    const struct thaw_vm *vm = capture->vm;
    manifest->disks = calloc(capture->disk_count + 1, sizeof(*manifest->disks));
    if (!manifest->disks)
        return error_errno(error, ENOMEM, "describing a snapshot");
    for (unsigned i = 0; i < capture->disk_count; i++) {
        struct manifest_disk *disk = &manifest->disks[manifest->disk_count++];
        const struct disk *source = blk_disk(vm->machine.disks[i].blk);
        disk->bytes = disk_bytes(source);
        disk->base_bytes = disk->bytes;
        disk->base_mtime_ns = disk_base_mtime_ns(source);
        disk->read_only = vm->disks[i].read_only;
        disk->base_path = strdup(vm->disks[i].path ? vm->disks[i].path : "");
        if (!disk->base_path)
            return error_errno(error, ENOMEM, "describing a snapshot");
    }
    return 0;
}

static int describe_cpu(
    struct capture *capture, struct manifest *manifest, struct thaw_error *error)
{
    const struct vcpu_state *vcpu = &capture->state->vcpus[0];
    manifest->cpuid = calloc(vcpu->cpuid_count + 1, sizeof(*manifest->cpuid));
    if (!manifest->cpuid)
        return error_errno(error, ENOMEM, "describing a snapshot");
    for (uint32_t i = 0; i < vcpu->cpuid_count && i < MANIFEST_CPUID_MAX; i++) {
        const struct kvm_cpuid_entry2 *entry = &vcpu->cpuid[i];
        manifest->cpuid[manifest->cpuid_count++] = (struct manifest_cpuid){
            entry->function, entry->index, entry->eax, entry->ebx, entry->ecx, entry->edx};
        if (entry->function == 0) {
            memcpy(manifest->cpu_vendor, &entry->ebx, 4);
            memcpy(manifest->cpu_vendor + 4, &entry->edx, 4);
            memcpy(manifest->cpu_vendor + 8, &entry->ecx, 4);
        } else if (entry->function == 1) {
            manifest->cpu_family = (entry->eax >> 8 & 0xf) + (entry->eax >> 20 & 0xff);
            manifest->cpu_model = (entry->eax >> 4 & 0xf) | (entry->eax >> 12 & 0xf0);
            manifest->cpu_stepping = entry->eax & 0xf;
        }
    }
    manifest->tsc_khz = vcpu->tsc_khz;
    copy(manifest->kvm_backend, sizeof(manifest->kvm_backend), capture->vm->env->kvm.backend);
    return 0;
}

static int describe_stats(
    struct capture *capture, struct manifest *manifest, struct thaw_error *error)
{
    const struct manifest_stat stats[] = {
        {"pause_ns", capture->result.pause_ns},
        {"pages", capture->result.pages},
        {"zero_pages", capture->result.zero_pages},
        {"pack_pages", capture->totals.pages},
        {"raw_bytes", capture->totals.raw_bytes},
        {"stored_bytes", capture->totals.stored_bytes},
    };
    manifest->stats = malloc(sizeof(stats));
    if (!manifest->stats)
        return error_errno(error, ENOMEM, "describing a snapshot");
    memcpy(manifest->stats, stats, sizeof(stats));
    manifest->stat_count = ARRAY_SIZE(stats);
    return 0;
}

static int describe_names(
    struct manifest_strings *ret, const char *const *names, size_t count, struct thaw_error *error)
{
    ret->items = calloc(count, sizeof(*ret->items));
    if (!ret->items)
        return error_errno(error, ENOMEM, "describing a snapshot");
    for (size_t i = 0; i < count; i++)
        copy(ret->items[i], sizeof(ret->items[i]), names[i]);
    ret->count = count;
    return 0;
}

static int describe_identity(
    struct capture *capture, struct manifest *manifest, struct thaw_error *error)
{
    manifest->kind = capture->diff ? MANIFEST_DIFF : MANIFEST_FULL;
    capture->result.diff = capture->diff;
    if (capture->diff)
        copy(manifest->parent, sizeof(manifest->parent), capture->from->snapshot->manifest.id);
    manifest->vcpu_count = capture->vm->vcpu_count;
    manifest->mem_bytes = capture->vm->mem.bytes;
    if (!capture->metadata)
        return 0;
    manifest->metadata = strdup(capture->metadata);
    return manifest->metadata ? 0 : error_errno(error, ENOMEM, "describing a snapshot");
}

int capture_describe(struct capture *capture, struct manifest *ret, struct thaw_error *error)
{
    static const char *const overrides[] = {"name", "clock", "console", "disks"};
    static const char *const devices[] = {"serial", "virtio-rng", "vmgenid", "virtio-blk"};
    size_t device_count = ARRAY_SIZE(devices) - (capture->disk_count == 0);
    int r = describe_identity(capture, ret, error);
    if (r == 0)
        r = describe_names(&ret->overrides, overrides, ARRAY_SIZE(overrides), error);
    if (r == 0)
        r = describe_names(&ret->devices, devices, device_count, error);
    if (r == 0)
        r = describe_disks(capture, ret, error);
    return r < 0 ? r : describe_cpu(capture, ret, error);
}

int capture_publish(struct capture *capture, struct manifest *manifest, struct thaw_error *error)
{
    struct thaw_snapshot_result *result = &capture->result;
    copy(result->id, sizeof(result->id), store_creation_id(capture->creation));
    copy(result->name, sizeof(result->name), store_creation_name(capture->creation));
    int r = write_state(capture, manifest, error);
    if (r == 0)
        r = write_indexes(capture, manifest, error);
    if (r == 0)
        r = add_packs(capture, manifest, error);
    if (r == 0)
        r = describe_stats(capture, manifest, error);
    if (r == 0)
        r = store_commit(capture->creation, manifest, error);
    if (r == 0)
        capture->creation = NULL;
    return r;
}
