// SPDX-License-Identifier: Apache-2.0
// The scratch directory, the page cache and child processes. Knows no row and no guest.

#include "scratch.h"
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>

#define WALK_DESCRIPTORS 16

uint64_t cpu_ns(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static void set_message(
    struct thaw_error *error, int code, const char *format, va_list args, const char *tail)
{
    error->code = code;
    int used = vsnprintf(error->message, sizeof(error->message), format, args);
    if (tail && used > 0 && (size_t)used < sizeof(error->message))
        snprintf(error->message + used, sizeof(error->message) - (size_t)used, ": %s", tail);
}

int bench_fail(struct thaw_error *error, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_message(error, code, format, args, NULL);
    va_end(args);
    return code;
}

int bench_errno(struct thaw_error *error, const char *format, ...)
{
    int code = -errno;
    va_list args;
    va_start(args, format);
    set_message(error, code, format, args, thaw_strerror(code));
    va_end(args);
    return code;
}

/* --- Where things are ------------------------------------------------------------------------- */

static int join(char *ret, size_t bytes, const char *dir, const char *name)
{
    int used = snprintf(ret, bytes, "%s/%s", dir, name);
    return used < 0 || (size_t)used >= bytes ? -ENAMETOOLONG : 0;
}

/* A build directory has everything beside the program; installed, guests are in a library's place.
 */
static int find_programs(struct bench *bench, struct thaw_error *error)
{
    char dir[PATH_BYTES];
    ssize_t count = readlink("/proc/self/exe", bench->self_path, sizeof(bench->self_path) - 1);
    if (count < 0)
        return bench_errno(error, "finding this program");
    bench->self_path[count] = '\0';
    snprintf(dir, sizeof(dir), "%s", bench->self_path);
    *strrchr(dir, '/') = '\0';
    if (join(bench->guests_dir, PATH_BYTES, dir, "guests") < 0 ||
        join(bench->data_tool, PATH_BYTES, dir, "memtouch-data") < 0 ||
        join(bench->thaw_path, PATH_BYTES, dir, "thaw") < 0)
        return bench_fail(error, -ENAMETOOLONG, "the path %s is too long", dir);
    const char *given = getenv("THAW_GUESTS");
    if (given && *given)
        snprintf(bench->guests_dir, PATH_BYTES, "%s", given);
    else if (access(bench->guests_dir, F_OK) < 0)
        snprintf(bench->guests_dir, PATH_BYTES, "%s", THAW_GUESTS_DIR);
    if (access(bench->data_tool, X_OK) < 0)
        return bench_errno(error, "looking for %s, which makes the guests' data", bench->data_tool);
    if (access(bench->thaw_path, X_OK) < 0)
        bench->thaw_path[0] = '\0';
    return 0;
}

static int make_nonce(struct bench *bench, struct thaw_error *error)
{
    uint32_t random;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return bench_errno(error, "drawing a random number");
    snprintf(bench->nonce, sizeof(bench->nonce), "%08x", random);
    bench->seed = random & 0xffffff;
    return 0;
}

static int make_dir(struct bench *bench, struct thaw_error *error)
{
    char path[PATH_BYTES];
    if (join(path, sizeof(path), bench->options.dir, "thaw-bench-XXXXXX") < 0)
        return bench_fail(error, -ENAMETOOLONG, "the path %s is too long", bench->options.dir);
    if (!mkdtemp(path))
        return bench_errno(error, "making a directory in %s", bench->options.dir);
    snprintf(bench->dir, sizeof(bench->dir), "%s", path);
    return 0;
}

int scratch_open(struct bench *bench, struct thaw_error *error)
{
    struct rlimit files;
    char path[PATH_BYTES];
    bench->cpus = (unsigned)MAX(get_nprocs(), 1);
    /* Hundreds of VMs have thousands of descriptors. */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int r = find_programs(bench, error);
    if (r == 0)
        r = make_nonce(bench, error);
    if (r == 0)
        r = make_dir(bench, error);
    if (r == 0)
        r = scratch_path(bench, "store", path, sizeof(path), error);
    if (r == 0)
        r = thaw_env_new(NULL, &bench->env, error);
    if (r < 0)
        return r;
    const struct thaw_store_options options = {
        .size = sizeof(options), .path = path, .flags = THAW_STORE_CREATE};
    return thaw_store_open(&options, &bench->store, error);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    remove(path);
    return 0;
}

void scratch_close(struct bench *bench)
{
    thaw_store_close(bench->store);
    thaw_env_free(bench->env);
    if (bench->dir[0])
        nftw(bench->dir, remove_one, WALK_DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
}

int scratch_path(
    const struct bench *bench, const char *name, char *ret, size_t bytes, struct thaw_error *error)
{
    return join(ret, bytes, bench->dir, name) == 0
               ? 0
               : bench_fail(error, -ENAMETOOLONG, "the path %s is too long", bench->dir);
}

/* --- The page cache --------------------------------------------------------------------------- */

static int drop_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)at;
    if (type != FTW_F)
        return 0;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && fsync(fd) == 0)
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return fd < 0 && errno != ENOENT ? -1 : 0;
}

int scratch_drop_cache(const char *path, struct thaw_error *error)
{
    if (nftw(path, drop_one, WALK_DESCRIPTORS, FTW_PHYS) != 0)
        return bench_errno(error, "dropping %s from the page cache", path);
    return 0;
}

/* Holes of sparse files are passed over: reading them would fill the cache with zeros. */
static int read_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    static char bytes[MIB];
    (void)st;
    (void)at;
    if (type != FTW_F)
        return 0;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    off_t end = 0;
    for (off_t off; fd >= 0 && (off = lseek(fd, end, SEEK_DATA)) >= 0;) {
        end = lseek(fd, off, SEEK_HOLE);
        ssize_t n = 1;
        for (; off < end && n > 0; off += n)
            n = pread(fd, bytes, MIN(sizeof(bytes), (size_t)(end - off)), off);
    }
    return 0;
}

void scratch_warm_cache(const char *path)
{
    nftw(path, read_one, WALK_DESCRIPTORS, FTW_PHYS);
}

/* nftw hands no argument through, and the walk is only ever done on the main thread. */
static uint64_t walked_bytes;

static int add_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)path;
    (void)at;
    if (type == FTW_F)
        walked_bytes += (uint64_t)st->st_size;
    return 0;
}

uint64_t scratch_bytes(const char *path)
{
    walked_bytes = 0;
    nftw(path, add_one, WALK_DESCRIPTORS, FTW_PHYS);
    return walked_bytes;
}

uint64_t scratch_bytes_read(void)
{
    char line[128];
    unsigned long long bytes = 0;
    FILE *file = fopen("/proc/self/io", "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "read_bytes: %llu", &bytes) == 1)
            break;
    fclose(file);
    return bytes;
}

/* --- Programs --------------------------------------------------------------------------------- */

int scratch_spawn(const char *const *argv, int out_fd, const char *open_path, pid_t *ret_pid,
    struct thaw_error *error)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (out_fd >= 0)
        posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
    else
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (open_path)
        posix_spawn_file_actions_addopen(&actions, SCRATCH_OPEN_FD, open_path, O_RDONLY, 0);
    errno = posix_spawnp(ret_pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return errno == 0 ? 0 : bench_errno(error, "starting %s", argv[0]);
}

int scratch_wait(pid_t pid, int expected, const char *name, struct thaw_error *error)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return bench_errno(error, "waiting for %s", name);
    if (WIFEXITED(status) && WEXITSTATUS(status) == expected)
        return 0;
    return bench_fail(error, -EIO, "%s %s %d", name,
        WIFEXITED(status) ? "ended with status" : "was ended by signal",
        WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}
