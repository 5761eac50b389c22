// SPDX-License-Identifier: Apache-2.0
// The union of what KVM and this process know of changed pages. Does not copy any.

#include "dirty.h"
#include "pagemap.h"
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

int dirty_enable(int vm_fd, struct thaw_error *error)
{
    struct kvm_enable_cap cap = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET,
    };
    if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap) < 0)
        return error_errno(error, errno, "setting the mode of KVM's dirty log");
    return 0;
}

size_t dirty_bitmap_words(const struct mem *mem)
{
    return (size_t)((mem->bytes / PAGE_BYTES + 63) / 64);
}

static uint64_t *region_bits(uint64_t *bits, const struct mem_region *region)
{
    /* Regions begin and end on multiples of 64 pages, so each has words of its own. */
    return bits + region->ram_off / PAGE_BYTES / 64;
}

static int read_log(const struct mem *mem, int vm_fd, uint64_t *log, struct thaw_error *error)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        struct kvm_dirty_log query = {
            .slot = i, .dirty_bitmap = region_bits(log, &mem->regions[i])};
        if (ioctl(vm_fd, KVM_GET_DIRTY_LOG, &query) < 0)
            return error_errno(error, errno, "reading KVM's dirty log");
    }
    return 0;
}

static int clear_log(const struct mem *mem, int vm_fd, uint64_t *bits, struct thaw_error *error)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct mem_region *region = &mem->regions[i];
        uint64_t pages = region->bytes / PAGE_BYTES;
        for (uint64_t first = 0; first < pages; first += UINT32_MAX & ~63u) {
            struct kvm_clear_dirty_log clear = {
                .slot = i,
                .num_pages = (uint32_t)MIN(pages - first, (uint64_t)(UINT32_MAX & ~63u)),
                .first_page = first,
                .dirty_bitmap = region_bits(bits, region) + first / 64,
            };
            if (ioctl(vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
                return error_errno(error, errno, "clearing KVM's dirty log");
        }
    }
    return 0;
}

/* Takes this process's own marks of the given pages; what KVM marked is added to `bits` already. */
static void take_host_marks(struct mem *mem, const uint64_t *private, uint64_t *bits)
{
    for (size_t i = 0; i < dirty_bitmap_words(mem); i++)
        if (private[i])
            bits[i] |= atomic_fetch_and(&mem->host_dirty[i], ~private[i]) & private[i];
}

int dirty_collect(struct mem *mem, int vm_fd, uint64_t *bits, struct thaw_error *error)
{
    size_t words = dirty_bitmap_words(mem);
    uint64_t *private _cleanup_free_ = calloc(words, sizeof(*private));
    if (!private)
        return error_errno(error, ENOMEM, "allocating a bitmap of pages");
    int r = read_log(mem, vm_fd, bits, error);
    if (r == 0)
        r = pagemap_private(mem->base, mem->bytes, private, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < words; i++)
        bits[i] &= private[i];
    r = clear_log(mem, vm_fd, bits, error);
    take_host_marks(mem, private, bits);
    if (r < 0)
        dirty_put_back(mem, bits);
    return r;
}

void dirty_put_back(struct mem *mem, const uint64_t *bits)
{
    for (size_t i = 0; i < dirty_bitmap_words(mem); i++)
        if (bits[i])
            atomic_fetch_or(&mem->host_dirty[i], bits[i]);
}
