// SPDX-License-Identifier: Apache-2.0
// The digest of a VM's RAM. Faults nothing in that was not there, and changes nothing.

#include "check.h"
#include "dirty.h"
#include "image.h"
#include "lineage.h"
#include "machine.h"
#include "manifest.h"
#include "opened.h"
#include "pagemap.h"
#include <string.h>
#include <thaw/snapshot.h>

#define CHUNK_PAGES 64
#define CHUNK_BYTES (CHUNK_PAGES * PAGE_BYTES)
#define ID_BYTES    16

_Static_assert(THAW_DIGEST_BYTES == MANIFEST_DIGEST_BYTES, "digests are written alike");
_Static_assert(MACHINE_VMGENID_GPA < MEM_HOLE_GPA, "its address is its offset in RAM");

struct memory_digest {
    const struct mem *mem;
    struct image *image; /* what pages are that are not private; NULL: zeros */
    uint64_t *private;   /* one bit a page */
    struct check_stream *stream;
    uint8_t chunk[CHUNK_BYTES];
};

/* Pages [first, first + count) are all private, or none is. Those that are can be touched: they are
 * there. */
static int read_run(struct memory_digest *digest, uint64_t first, uint64_t count, bool private,
    uint8_t *dst, struct thaw_error *error)
{
    if (private)
        memcpy(dst, digest->mem->base + first * PAGE_BYTES, count * PAGE_BYTES);
    else if (digest->image)
        return image_read(digest->image, first, count, dst, error);
    else
        memset(dst, 0, count * PAGE_BYTES);
    return 0;
}

static bool is_private(const struct memory_digest *digest, uint64_t page)
{
    return digest->private[page / 64] >> (page % 64) & 1;
}

static int add_chunk(
    struct memory_digest *digest, uint64_t first, uint64_t end, struct thaw_error *error)
{
    for (uint64_t page = first, next; page < end; page = next) {
        bool private = is_private(digest, page);
        next = page + 1;
        while (next < end && is_private(digest, next) == private)
            next++;
        int r = read_run(
            digest, page, next - page, private, digest->chunk + (page - first) * PAGE_BYTES, error);
        if (r < 0)
            return r;
    }
    const uint64_t id_page = MACHINE_VMGENID_GPA / PAGE_BYTES;
    if (id_page >= first && id_page < end)
        memset(digest->chunk + (id_page - first) * PAGE_BYTES, 0, ID_BYTES);
    check_stream_add(digest->stream, digest->chunk, (end - first) * PAGE_BYTES);
    return 0;
}

static int add_all(struct memory_digest *digest, struct thaw_error *error)
{
    uint64_t pages = digest->mem->bytes / PAGE_BYTES;
    int r = pagemap_private(digest->mem->base, digest->mem->bytes, digest->private, error);
    for (uint64_t page = 0; page < pages && r == 0; page += CHUNK_PAGES)
        r = add_chunk(digest, page, MIN(page + CHUNK_PAGES, pages), error);
    return r;
}

static int digest_held(struct thaw_vm *vm, struct wire_b16 *ret, struct thaw_error *error)
{
    const struct lineage *lineage = vm->attachment.data;
    struct memory_digest *digest _cleanup_free_ = malloc(sizeof(*digest));
    uint64_t *private _cleanup_free_ = calloc(dirty_bitmap_words(&vm->mem), sizeof(*private));
    struct check_stream *stream = check_stream_new();
    int r;
    if (digest && private && stream) {
        digest->mem = &vm->mem;
        digest->image = lineage && lineage->image ? lineage->image->ram : NULL;
        digest->private = private;
        digest->stream = stream;
        r = add_all(digest, error);
        *ret = check_stream_result(stream);
    } else {
        r = error_errno(error, ENOMEM, "allocating a digest of memory");
    }
    check_stream_free(stream);
    return r;
}

int thaw_vm_memory_digest(thaw_vm *vm, char ret_digest[THAW_DIGEST_BYTES], struct thaw_error *error)
{
    struct wire_b16 digest;
    int r = vm_hold_still(vm, error);
    if (r < 0)
        return r;
    r = digest_held(vm, &digest, error);
    vm_release(vm, false);
    if (r == 0)
        manifest_format_digest(digest.bytes, ret_digest);
    return r;
}
