/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest RAM: one range of host address space, registered with KVM once. What lies behind the range
 * is decided by mapping (anonymous memory for a booted VM, a private view of an image for a clone),
 * never by further KVM calls.
 *
 * Exchanging a mapping that KVM knows of makes it look through all pages of the range, which takes
 * a tenth of a millisecond for each GiB where it shadows page tables. So memory is mapped before
 * KVM knows the range; and where that can't be, for a VM that is made in advance, the range is left
 * vacant: not reserved, but in a part of the address space where the kernel puts nothing by itself.
 * Should something have been put there all the same, mapping fails, and nothing is harmed.
 *
 * RAM is addressed in three ways: by guest physical address (gpa), by RAM offset (ram_off: the same
 * without the hole below 4 GiB, contiguous on the host) and by host address (hva). All access to
 * guest memory goes through this file.
 */
#ifndef VMM_MEM_H
#define VMM_MEM_H

#include "error.h"
#include <stdatomic.h>
#include <thaw/vm.h>

/* RAM skips [3 GiB, 4 GiB) of the guest's physical addresses, where the devices are. */
#define MEM_HOLE_GPA    (3 * GIB)
#define MEM_HIGH_GPA    (4 * GIB)
#define MEM_REGIONS_MAX 2

struct mem_region {
    uint64_t gpa;
    uint64_t bytes;
    uint64_t ram_off;
};

/* Makes [ram_off, ram_off + bytes) safe to touch, or fails. See mem_set_presenter. */
typedef int (*mem_present_fn)(void *data, uint64_t ram_off, uint64_t bytes);

struct mem {
    uint8_t *base; /* hva of ram_off 0; NULL: not placed yet */
    uint64_t bytes;
    struct mem_region regions[MEM_REGIONS_MAX];
    unsigned region_count;
    bool apart;                   /* where the kernel maps nothing unasked */
    bool vacant;                  /* not mapped at all */
    _Atomic uint64_t *host_dirty; /* one bit a page: written by this process since last collected */
    mem_present_fn present;
    void *present_data;
};

/* Reserves address space for `bytes` of RAM (a multiple of 1 MiB) and lays out the regions. Nothing
 * is accessible yet. The range is not inherited across fork. */
int mem_init(struct mem *mem, uint64_t bytes, struct thaw_error *error);

/* The same without address space: the first mapping chooses it, which spares one. */
int mem_init_unplaced(struct mem *mem, uint64_t bytes, struct thaw_error *error);

void mem_fini(struct mem *mem);

/* Gives up the reservation, where that is safe. The next mapping fails with -EEXIST if something
 * else has come to the range meanwhile. */
void mem_vacate(struct mem *mem);

/* Puts fresh zeroed memory behind the whole range, replacing what was there. */
int mem_map_anonymous(struct mem *mem, struct thaw_error *error);

/* Puts a private view of a file behind the whole range, replacing what was there: what the guest
 * writes stays its own. The file has at least as many bytes as there is RAM. A view that is not
 * `accessible` can be made ready for its first touch, and then be allowed. */
int mem_map_view(struct mem *mem, int fd, bool accessible, struct thaw_error *error);
int mem_allow(struct mem *mem, struct thaw_error *error);

/* Makes [ram_off, ram_off + bytes), whole pages, inaccessible to the guest, which can't go on from
 * a touch. The presenter refuses these pages to host code. Any thread. */
void mem_forbid(struct mem *mem, uint64_t ram_off, uint64_t bytes);

/* Makes [ram_off, ram_off + bytes), whole pages, what they were when the view was mapped. discard
 * drops the private pages: the next touch finds the file's. put_back keeps them, and overwrites
 * them with what the file has there (NULL: zeros); no mark is left. Nothing runs. */
int mem_discard(struct mem *mem, uint64_t ram_off, uint64_t bytes, struct thaw_error *error);
void mem_put_back(struct mem *mem, uint64_t ram_off, uint64_t bytes, const void *from);

/* Forgets which pages this process has written. Nothing runs. */
void mem_forget_dirty(struct mem *mem);

/* Takes away what is behind the range, which stays reserved. Nothing may use it any more. */
int mem_unmap(struct mem *mem, struct thaw_error *error);

/* Registers the regions as memslots of the VM, with dirty logging if asked. Must precede irqchip
 * and vCPU creation: afterwards each costs a grace period of several milliseconds. */
int mem_register(const struct mem *mem, int vm_fd, bool log_dirty, struct thaw_error *error);

/* The RAM offset of [gpa, gpa + bytes) if it is all RAM of one region; -EFAULT otherwise. */
int mem_offset(const struct mem *mem, uint64_t gpa, uint64_t bytes, uint64_t *ret_ram_off);

/* True if any byte of [gpa, gpa + bytes) is RAM. */
bool mem_overlaps_ram(const struct mem *mem, uint64_t gpa, uint64_t bytes);

/* Copies out of or into guest memory. -EFAULT if the range is not RAM, or the presenter's error.
 * mem_write also marks the pages dirty. A hostile guest may change what was read: copy once,
 * validate the copy, use the copy. */
int mem_read(const struct mem *mem, uint64_t gpa, void *dst, uint64_t bytes);
int mem_write(struct mem *mem, uint64_t gpa, const void *src, uint64_t bytes);

/* A host pointer to [gpa, gpa + bytes), for I/O straight into or out of guest memory. Whoever
 * writes through it calls mem_mark_dirty *after* the bytes have arrived, so that a concurrent
 * collection sees either the new bytes or the mark. */
int mem_hva(const struct mem *mem, uint64_t gpa, uint64_t bytes, void **ret_hva);
void mem_mark_dirty(struct mem *mem, uint64_t gpa, uint64_t bytes);

/* Host code never touches a page that may fault on a missing source: everything above calls the
 * presenter first, where there is one. Set while nothing runs. */
void mem_set_presenter(struct mem *mem, mem_present_fn present, void *data);

/* For host code that goes by RAM offset: makes the range, which lies within RAM, safe to touch. 0,
 * or the presenter's error, and then it must not be touched. */
int mem_make_present(const struct mem *mem, uint64_t ram_off, uint64_t bytes);

/* Copies page `page` of RAM while whoever may is writing to it: the copy is then of no one instant,
 * and a mark says so (dirty.h). 0, or the presenter's error. */
int mem_copy_page(const struct mem *mem, uint64_t page, void *dst);

#endif
