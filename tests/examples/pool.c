// SPDX-License-Identifier: Apache-2.0
// How a control plane serves many from one snapshot, fast: it opens the snapshot once, as an image
// whose memory all clones share, and has empty VMs ready that clones are put into.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <thaw/thaw.h>

static void print(void *file, const char *bytes, size_t count)
{
    fwrite(bytes, 1, count, file);
}

/* A clone that runs from the snapshot to its guest's end. */
static int serve(thaw_image *image, thaw_pool *pool, struct thaw_error *error)
{
    struct thaw_restore_options how = {.size = sizeof(how),
        .name = "clone",
        .flags = THAW_RESTORE_RESUME, /* it runs when thaw_image_restore returns */
        .pool = pool,
        .console = print,
        .console_data = stdout};
    struct thaw_vm_timing timing = {.size = sizeof(timing)};
    thaw_vm *vm = NULL;
    int r = thaw_image_restore(image, &how, &vm, error);
    if (r < 0)
        return r;
    r = thaw_vm_wait(vm, -1);
    thaw_vm_get_timing(vm, &timing);
    fprintf(stderr, "ready to run after %" PRIu64 " us\n",
        (timing.state_ns - timing.request_ns) / 1000);
    thaw_vm_free(vm); /* returns at once: the pool takes the VM apart, and makes another */
    return r;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s STORE SNAPSHOT [COUNT]\n", argv[0]);
        return 2;
    }
    struct thaw_store_options where = {.size = sizeof(where), .path = argv[1]};
    struct thaw_image_info image_info = {.size = sizeof(image_info)};
    struct thaw_pool_options shape = {.size = sizeof(shape), .target = 4};
    struct thaw_error error = {0};
    thaw_env *env = NULL;
    thaw_store *store = NULL;
    thaw_image *image = NULL;
    thaw_pool *pool = NULL;

    if (thaw_env_new(NULL, &env, &error) < 0 || thaw_store_open(&where, &store, &error) < 0 ||
        thaw_image_open(env, store, argv[2], "the example", NULL, &image, &error) < 0)
        goto done;
    thaw_image_get_info(image, &image_info);
    shape.vcpu_count = image_info.vcpu_count; /* the pool's VMs have the snapshot's shape */
    shape.mem_bytes = image_info.mem_bytes;
    if (thaw_pool_new(env, &shape, &pool, &error) < 0 || thaw_pool_wait(pool, -1, &error) < 0)
        goto done;
    for (int i = argc > 3 ? atoi(argv[3]) : 1; i > 0; i--)
        if (serve(image, pool, &error) < 0)
            break;

done:
    if (error.code)
        fprintf(stderr, "%s\n", error.message);
    thaw_pool_free(pool);
    thaw_image_close(image);
    thaw_store_close(store);
    thaw_env_free(env);
    return error.code != 0;
}
