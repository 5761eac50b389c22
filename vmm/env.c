// SPDX-License-Identifier: Apache-2.0
// What the embedding program lends to the library. Holds no VM.

#include "env.h"
#include "options.h"
#include "thread.h"
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <thaw/version.h>

#define TEXT(x)  TEXT_(x)
#define TEXT_(x) #x

const char *thaw_version(void)
{
    return TEXT(THAW_VERSION_MAJOR) "." TEXT(THAW_VERSION_MINOR) "." TEXT(THAW_VERSION_PATCH);
}

static int check_kick_signal(int kick_signal, struct thaw_error *error)
{
    struct sigaction action;
    if (sigaction(kick_signal, NULL, &action) < 0)
        return error_errno(error, errno, "kick_signal %d", kick_signal);
    if (action.sa_handler == SIG_IGN)
        return error_set(error, -EINVAL, "kick_signal %d is ignored by this process", kick_signal);
    return 0;
}

static unsigned count_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : (unsigned)CPU_COUNT(&set);
}

static void *ask_host(void *data)
{
    struct thaw_env *env = data;
    struct env_host *host = env->host;
    host->result = cpu_x86_template(&env->kvm, &host->cpuid, &host->error);
    if (host->result == 0)
        host->result = msr_list_read(&env->kvm, &host->msrs, &host->error);
    return NULL;
}

/* If no VM can be made now, whoever needs it is told why. */
static void *prepare(void *data)
{
    struct thaw_env *env = data;
    int fd;
    if (kvm_create_vm(&env->kvm, &fd, NULL) == 0)
        atomic_store(&env->spare_vm_fd, fd);
    return ask_host(env);
}

int env_create_vm(struct thaw_env *env, int *ret_fd, struct thaw_error *error)
{
    int spare = atomic_exchange(&env->spare_vm_fd, -1);
    if (spare < 0)
        return kvm_create_vm(&env->kvm, ret_fd, error);
    *ret_fd = spare;
    return 0;
}

static int start_asking(struct thaw_env *env, struct thaw_error *error)
{
    env->host = calloc(1, sizeof(*env->host));
    if (!env->host)
        return error_errno(error, ENOMEM, "allocating an environment");
    int r = thread_start_aside(&env->host_thread, "thaw/host", prepare, env);
    if (r < 0)
        return error_errno(error, -r, "starting an environment's thread");
    env->host_asked = true;
    return 0;
}

static void end_asking_locked(struct thaw_env *env)
{
    if (env->host_asked)
        pthread_join(env->host_thread, NULL);
    env->host_asked = false;
}

/* What failed in the background is tried again, by whoever can be told why. */
int env_host(struct thaw_env *env, const struct env_host **ret, struct thaw_error *error)
{
    pthread_mutex_lock(&env->host_lock);
    end_asking_locked(env);
    if (env->host->result < 0)
        ask_host(env);
    int r = env->host->result;
    if (r < 0 && error)
        *error = env->host->error;
    pthread_mutex_unlock(&env->host_lock);
    if (r == 0)
        *ret = env->host;
    return r;
}

int thaw_env_new(const struct thaw_env_options *options, thaw_env **ret, struct thaw_error *error)
{
    struct thaw_env_options opt = {0};
    int r = options_read(&opt, sizeof(opt), options, "struct thaw_env_options", error);
    if (r < 0)
        return r;
    int kick_signal = opt.kick_signal ? opt.kick_signal : SIGRTMIN + 4;
    r = check_kick_signal(kick_signal, error);
    if (r < 0)
        return r;

    struct thaw_env *env = calloc(1, sizeof(*env));
    if (!env)
        return error_errno(error, ENOMEM, "allocating an environment");
    atomic_init(&env->references, 1);
    pthread_mutex_init(&env->host_lock, NULL);
    pthread_mutex_init(&env->images_lock, NULL);
    env->image_budget_bytes = opt.image_budget_bytes;
    env->cpus = count_cpus();
    env->kvm.fd = -1;
    atomic_init(&env->spare_vm_fd, -1);
    env->log = opt.log;
    env->log_data = opt.log_data;
    env->kick_signal = kick_signal;
    env->userfaultfd_fd = -1;
    env->overlay_dir = strdup(opt.overlay_dir ? opt.overlay_dir : "/var/tmp");
    if (opt.userfaultfd_fd > 0)
        env->userfaultfd_fd = fcntl(opt.userfaultfd_fd, F_DUPFD_CLOEXEC, 3);
    r = env->overlay_dir ? kvm_open(&env->kvm, opt.kvm_fd, error)
                         : error_errno(error, ENOMEM, "allocating an environment");
    if (r == 0)
        r = start_asking(env, error);
    if (r < 0) {
        env_unref(env);
        return r;
    }
    *ret = env;
    return 0;
}

void thaw_env_free(thaw_env *env)
{
    env_unref(env);
}

struct thaw_env *env_ref(struct thaw_env *env)
{
    atomic_fetch_add(&env->references, 1);
    return env;
}

void env_unref(struct thaw_env *env)
{
    if (!env || atomic_fetch_sub(&env->references, 1) > 1)
        return;
    end_asking_locked(env);
    if (env->images)
        env->images_free(env->images);
    int spare = atomic_load(&env->spare_vm_fd);
    if (spare >= 0)
        close(spare);
    kvm_close(&env->kvm);
    if (env->userfaultfd_fd >= 0)
        close(env->userfaultfd_fd);
    pthread_mutex_destroy(&env->images_lock);
    pthread_mutex_destroy(&env->host_lock);
    fresh_fini(&env->fresh);
    fresh_processors_fini(&env->processors);
    free(env->host);
    free(env->overlay_dir);
    free(env);
}

void env_log(const struct thaw_env *env, enum thaw_log_level level, const char *format, ...)
{
    if (!env->log)
        return;
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    env->log(env->log_data, level, line);
}
