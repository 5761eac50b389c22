// SPDX-License-Identifier: Apache-2.0
// Threads that end things. What there is to end is the caller's business.

#include "reaper.h"

static void *run(void *arg)
{
    struct ending ending = *(struct ending *)arg;
    free(arg);
    ending.end(ending.what);
    return NULL;
}

void reaper_add(struct reaper *reaper, void (*end)(void *what), void *what)
{
    if (reaper->count == REAPER_THREADS)
        reaper_wait(reaper);
    struct ending *ending = malloc(sizeof(*ending));
    if (ending)
        *ending = (struct ending){end, what};
    if (ending && pthread_create(&reaper->threads[reaper->count], NULL, run, ending) == 0) {
        reaper->count++;
        return;
    }
    free(ending);
    end(what);
}

void reaper_wait(struct reaper *reaper)
{
    while (reaper->count > 0)
        pthread_join(reaper->threads[--reaper->count], NULL);
}

void reaper_later(struct bench *bench, void (*end)(void *what), void *what)
{
    if (bench->ending_count == ENDINGS_MAX)
        reaper_end_round(bench);
    bench->endings[bench->ending_count++] = (struct ending){end, what};
}

void reaper_end_round(struct bench *bench)
{
    struct reaper reaper = {.count = 0};
    for (unsigned i = 0; i < bench->ending_count; i++)
        reaper_add(&reaper, bench->endings[i].end, bench->endings[i].what);
    reaper_wait(&reaper);
    bench->ending_count = 0;
}
