// SPDX-License-Identifier: Apache-2.0
// Finds out what machine this is. Judges nothing.

#include "environment.h"
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#define LINE_BYTES 256

/* The first line of a file that has `key` before a colon, or without a key its first line. */
static void read_line(const char *path, const char *key, char ret[LINE_BYTES])
{
    char line[LINE_BYTES];
    snprintf(ret, LINE_BYTES, "unknown");
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        const char *colon = strchr(line, ':');
        if (key && (!colon || strncmp(line, key, strlen(key)) != 0))
            continue;
        snprintf(ret, LINE_BYTES, "%s", key ? colon + 1 + strspn(colon + 1, " ") : line);
        break;
    }
    if (file)
        fclose(file);
}

static void add(json_t *object, const char *name, const char *value)
{
    json_object_set_new(object, name, json_string(value));
}

static void add_file(json_t *object, const char *name, const char *path, const char *key)
{
    char line[LINE_BYTES];
    read_line(path, key, line);
    add(object, name, line);
}

static void add_kernel(json_t *object)
{
    struct utsname names;
    char text[LINE_BYTES] = "unknown";
    if (uname(&names) == 0)
        snprintf(text, sizeof(text), "%.100s %.100s", names.sysname, names.release);
    add(object, "kernel", text);
}

static void add_kvm(json_t *object)
{
    static const char *const modules[] = {"kvm_amd", "kvm_intel", "kvm_pvm"};
    thaw_host_report *report;
    const char *backend = "unknown";
    for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
        char path[64];
        snprintf(path, sizeof(path), "/sys/module/%s", modules[i]);
        if (access(path, F_OK) == 0)
            backend = modules[i];
    }
    add(object, "KVM backend", backend);
    if (thaw_host_probe(&report, NULL) < 0)
        return;
    for (size_t i = 0; i < thaw_host_report_count(report); i++) {
        const struct thaw_host_check *check = thaw_host_report_get(report, i);
        if (strcmp(check->name, "kvm-native") == 0)
            add(object, "guest code", check->found);
    }
    thaw_host_report_free(report);
}

static void add_file_system(json_t *object, const char *path)
{
    struct statfs fs;
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {{0xef53, "ext4"}, {0x58465342, "xfs"}, {0x9123683e, "btrfs"},
        {0x01021994, "tmpfs"}, {0x794c7630, "overlayfs"}};
    char text[32];
    if (statfs(path, &fs) < 0)
        return;
    snprintf(text, sizeof(text), "type 0x%lx", (unsigned long)fs.f_type);
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (known[i].magic == (unsigned long)fs.f_type)
            snprintf(text, sizeof(text), "%s", known[i].name);
    add(object, "file system", text);
}

json_t *environment_describe(const struct bench *bench)
{
    json_t *object = json_object();
    char text[LINE_BYTES];
    double load[1] = {0};
    struct sysinfo info = {0};
    if (!object)
        return NULL;
    add(object, "thaw", thaw_version());
    add_file(object, "CPU", "/proc/cpuinfo", "model name");
    snprintf(text, sizeof(text), "%u", bench->cpus);
    add(object, "CPUs", text);
    sysinfo(&info);
    snprintf(text, sizeof(text), "%lu MiB", info.totalram * info.mem_unit / MIB);
    add(object, "memory", text);
    add_kernel(object);
    add_kvm(object);
    add_file_system(object, bench->dir);
    add_file(object, "transparent huge pages", "/sys/kernel/mm/transparent_hugepage/enabled", NULL);
    add_file(object, "of them for shared memory",
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled", NULL);
    add_file(object, "frequency governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        NULL);
    getloadavg(load, 1);
    snprintf(text, sizeof(text), "%.1f", load[0]);
    add(object, "load before the run", text);
    return object;
}
