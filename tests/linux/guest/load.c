/* SPDX-License-Identifier: Apache-2.0 */
/* Role: load for the tested guest that notices when memory, disk or time are not as it left them.
 * Not its role: deciding how long it runs, or what its findings mean (load.sh).
 *
 *   load ram FILE MIB   keeps FILE (on a tmpfs) full of pseudo-random pages: rewrites some, checks
 * all load disk DIR       rewrites files in DIR and reads them back, past the page cache load clock
 * reads all clocks on every CPU: none may run backwards on or between CPUs load ask            one
 * line about what the others did; the jump is the largest since the last one
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define BOARD      "/tmp/board"
#define PAGE       4096u
#define PAGE_WORDS (PAGE / 8)
#define CHUNK      256u /* pages between two increments of the counter */
#define FILES      32u
#define FILE_BYTES (256u << 10)
#define COMPLAINTS 3u /* more of a kind are only counted */

enum kind {
    KIND_RAM,
    KIND_DISK,
    KIND_CLOCK,
    KIND_COUNT
};

/* Shared by all processes; all zeroes at first. */
struct board {
    _Atomic uint64_t count;  /* chunks of memory that were checked */
    _Atomic uint64_t passes; /* times that all memory was checked */
    _Atomic uint64_t files;  /* files that were read back */
    _Atomic uint64_t samples;
    _Atomic uint64_t jump_ns;
    _Atomic uint64_t bad[KIND_COUNT];
};

static struct board *board;
static volatile sig_atomic_t stopping;

static void die(const char *what)
{
    printf("L2: FAIL load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *map_file(const char *path, size_t bytes)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    void *map;

    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
        die(path);
    map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        die(path);
    close(fd);
    return map;
}

static void found_bad(
    enum kind kind, const char *what, uint64_t where, uint64_t is, uint64_t wanted)
{
    if (atomic_fetch_add(&board->bad[kind], 1) < COMPLAINTS)
        printf("L2: FAIL %s: at %" PRIu64 " is %" PRIx64 " and should be %" PRIx64 "\n", what,
            where, is, wanted);
}

/* What a page holds follows from its number and from how often it was written. */
static uint64_t first_word(uint64_t page, uint64_t generation)
{
    return (page + 1) * 0x9e3779b97f4a7c15u ^ (generation + 1) * 0xc2b2ae3d27d4eb4fu;
}

static uint64_t next_word(uint64_t word)
{
    return word * 6364136223846793005u + 1442695040888963407u;
}

static void page_fill(uint64_t *words, uint64_t page, uint64_t generation)
{
    uint64_t word = first_word(page, generation);

    for (size_t i = 0; i < PAGE_WORDS; i++, word = next_word(word))
        words[i] = word;
}

static void page_check(
    const uint64_t *words, uint64_t page, uint64_t generation, enum kind kind, const char *what)
{
    uint64_t word = first_word(page, generation);

    for (size_t i = 0; i < PAGE_WORDS; i++, word = next_word(word)) {
        uint64_t is = ((const volatile uint64_t *)words)[i];

        if (is != word) {
            found_bad(kind, what, page * PAGE + i * 8, is, word);
            return;
        }
    }
}

/* Gives way to all others, or nobody would answer the host: after a restore each page is a fault.
 */
static void load_ram(const char *path, size_t mib)
{
    size_t pages = mib << 8;
    uint64_t *words = map_file(path, mib << 20);
    uint32_t *generations = calloc(pages, sizeof(*generations));

    if (!generations || setpriority(PRIO_PROCESS, 0, 19) != 0)
        die(path);
    for (size_t i = 0; i < pages; i++)
        page_fill(words + i * PAGE_WORDS, i, 0);
    for (uint32_t pass = 1; !stopping; pass++) {
        for (size_t i = 0; i < pages && !stopping; i++) {
            page_check(words + i * PAGE_WORDS, i, generations[i], KIND_RAM, "memory");
            if (i % 16 == pass % 16) {
                generations[i] = pass;
                page_fill(words + i * PAGE_WORDS, i, pass);
            }
            if ((i + 1) % CHUNK == 0)
                atomic_fetch_add(&board->count, 1);
        }
        atomic_fetch_add(&board->passes, 1);
    }
}

static int open_file(const char *dir, uint32_t file)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%u", dir, file);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path);
    return fd;
}

static void disk_failed(const char *what, uint32_t file)
{
    if (atomic_fetch_add(&board->bad[KIND_DISK], 1) < COMPLAINTS)
        printf("L2: FAIL disk: %s file %u: %s\n", what, file, strerror(errno));
}

/* Through the page cache, so that memory and disk must fit together after a restore. */
static void file_write(const char *dir, uint64_t *words, uint32_t file, uint32_t generation)
{
    int fd = open_file(dir, file);

    for (uint32_t i = 0; i < FILE_BYTES / PAGE; i++)
        page_fill(words + i * PAGE_WORDS, file * 64 + i, generation);
    errno = 0;
    if (pwrite(fd, words, FILE_BYTES, 0) != FILE_BYTES || fsync(fd) != 0)
        disk_failed("write", file);
    close(fd);
}

/* From the disk itself. */
static void file_check(const char *dir, uint64_t *words, uint32_t file, uint32_t generation)
{
    int fd = open_file(dir, file);

    errno = 0;
    if (fcntl(fd, F_SETFL, O_DIRECT) != 0 || pread(fd, words, FILE_BYTES, 0) != FILE_BYTES) {
        disk_failed("read", file);
    } else {
        for (uint32_t i = 0; i < FILE_BYTES / PAGE; i++)
            page_check(words + i * PAGE_WORDS, file * 64 + i, generation, KIND_DISK, "disk");
        atomic_fetch_add(&board->files, 1);
    }
    close(fd);
}

static void load_disk(const char *dir)
{
    uint32_t generations[FILES] = {0};
    uint64_t *words = aligned_alloc(PAGE, FILE_BYTES);

    if (!words)
        die("aligned_alloc");
    for (uint32_t turn = 1; !stopping; turn++) {
        uint32_t file = turn % FILES, other = turn * 13 % FILES;

        generations[file] = turn;
        file_write(dir, words, file, turn);
        if (generations[other])
            file_check(dir, words, other, generations[other]);
        usleep(20000);
    }
    for (uint32_t file = 0; file < FILES; file++)
        if (generations[file])
            file_check(dir, words, file, generations[file]);
}

static const struct {
    clockid_t id;
    const char *name;
} clocks[] = {
    {CLOCK_MONOTONIC, "monotonic clock"},
    {CLOCK_MONOTONIC_RAW, "raw clock"},
    {CLOCK_BOOTTIME, "boot clock"},
    {CLOCK_REALTIME, "wall clock"},
};
#define CLOCK_COUNT (sizeof(clocks) / sizeof(clocks[0]))

static pthread_mutex_t last_lock =
    PTHREAD_MUTEX_INITIALIZER; /* guards last: [CLOCK_COUNT] is the TSC */
static uint64_t last[CLOCK_COUNT + 1];

static uint64_t clock_ns(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void clock_sample(void)
{
    uint64_t now[CLOCK_COUNT + 1], jump_ns;

    pthread_mutex_lock(&last_lock);
    for (size_t i = 0; i < CLOCK_COUNT; i++)
        now[i] = clock_ns(clocks[i].id);
    __builtin_ia32_lfence();
    now[CLOCK_COUNT] = __builtin_ia32_rdtsc();
    for (size_t i = 0; i <= CLOCK_COUNT; i++)
        if (now[i] < last[i])
            found_bad(KIND_CLOCK, i < CLOCK_COUNT ? clocks[i].name : "TSC", 0, now[i], last[i]);
    jump_ns = last[0] && now[0] > last[0] ? now[0] - last[0] : 0;
    if (jump_ns > atomic_load(&board->jump_ns))
        atomic_store(&board->jump_ns, jump_ns);
    memcpy(last, now, sizeof(last));
    pthread_mutex_unlock(&last_lock);
    atomic_fetch_add(&board->samples, 1);
}

static void *clock_thread(void *data)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET((size_t)data, &cpus);
    if (pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus) != 0)
        die("pthread_setaffinity_np");
    while (!stopping) {
        for (int i = 0; i < 20; i++)
            clock_sample();
        usleep(10000);
    }
    return NULL;
}

static void load_clock(void)
{
    size_t count = (size_t)sysconf(_SC_NPROCESSORS_ONLN);
    pthread_t threads[16];

    for (size_t i = 0; i < count && i < 16; i++)
        if (pthread_create(threads + i, NULL, clock_thread, (void *)i) != 0)
            die("pthread_create");
    for (size_t i = 0; i < count && i < 16; i++)
        pthread_join(threads[i], NULL);
}

static void answer(void)
{
    uint64_t random[2] = {0};

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        die("getrandom");
    printf("count=%" PRIu64 " passes=%" PRIu64 " files=%" PRIu64 " samples=%" PRIu64 " bad=%" PRIu64
           "/%" PRIu64 "/%" PRIu64 " jump_ms=%" PRIu64 " wall_s=%" PRIu64 " rnd=%016" PRIx64
           "%016" PRIx64 " end\n",
        board->count, board->passes, board->files, board->samples, board->bad[KIND_RAM],
        board->bad[KIND_DISK], board->bad[KIND_CLOCK],
        atomic_exchange(&board->jump_ns, 0) / 1000000, clock_ns(CLOCK_REALTIME) / 1000000000,
        random[0], random[1]);
}

static void stop(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    /* A complaint is one write: lines of different processes stay apart. */
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    signal(SIGTERM, stop);
    board = map_file(BOARD, sizeof(*board));
    if (strcmp(what, "ram") == 0 && argc == 4)
        load_ram(argv[2], (size_t)atol(argv[3]));
    else if (strcmp(what, "disk") == 0 && argc == 3)
        load_disk(argv[2]);
    else if (strcmp(what, "clock") == 0)
        load_clock();
    else if (strcmp(what, "ask") == 0)
        answer();
    else
        return 2;
    return 0;
}
