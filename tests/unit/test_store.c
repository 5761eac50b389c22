// SPDX-License-Identifier: Apache-2.0
#include "store_fixture.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char root[64];
static thaw_store *store;
static struct thaw_error error;

static void setup(void)
{
    fixture_directory("/tmp", root);
    store = fixture_open(root);
    memset(&error, 0, sizeof(error));
}

static void teardown(void)
{
    thaw_store_close(store);
    fixture_remove(root);
}

TestSuite(store, .init = setup, .fini = teardown, .timeout = 60);

#define OK(call)   cr_assert_eq((call), 0, "%s", error.message)
#define SAYS(text) cr_assert(strstr(error.message, text), "%s", error.message)

static struct store_creation *begin(const char *name)
{
    struct store_request request = {.name = name, .template_name = "debian/12", .source = "vm 1"};
    struct store_creation *creation = NULL;
    OK(store_begin(store, &request, &creation, &error));
    return creation;
}

static void create(const char *name)
{
    OK(fixture_create(store, name, &error));
}

static void id_of(const char *ref, char ret[MANIFEST_ID_BYTES])
{
    thaw_snapshot_list *list;
    OK(thaw_store_find(store, ref, &list, &error));
    strcpy(ret, thaw_snapshot_list_get(list, 0)->id);
    thaw_snapshot_list_free(list);
}

static thaw_snapshot_list *list_states(uint32_t states)
{
    struct thaw_snapshot_query query = {.size = sizeof(query), .states = states};
    thaw_snapshot_list *list = NULL;
    OK(thaw_store_list(store, &query, &list, &error));
    return list;
}

static size_t count_state(enum thaw_snapshot_state state)
{
    thaw_snapshot_list *list = list_states(1u << state);
    size_t count = thaw_snapshot_list_total(list);
    thaw_snapshot_list_free(list);
    return count;
}

/* What a process that is killed in the middle of a creation leaves. */
static void orphan(const char *name, bool complete, char id[MANIFEST_ID_BYTES])
{
    char from[128], to[128];
    if (complete) {
        create(name);
        id_of(name, id);
        snprintf(from, sizeof(from), "%s/snapshots/%s", root, id);
        snprintf(to, sizeof(to), "%s/creating/%s", root, id);
        cr_assert_eq(rename(from, to), 0);
        return;
    }
    pid_t child = fork();
    if (child == 0)
        _exit(fixture_fill(begin(name)) == 0 ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    id_of(name, id);
}

/* Opening */

Test(store, a_new_store_is_laid_out_for_its_owner_only)
{
    static const char *const places[] = {
        "creating", "snapshots", "failed", "trash", "names", "hot", "users"};
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        char path[128];
        struct stat st;
        snprintf(path, sizeof(path), "%s/%s", root, places[i]);
        cr_assert_eq(stat(path, &st), 0);
        cr_assert_eq(st.st_mode & 0777, 0700);
    }
    cr_assert(fixture_exists(root, "store.lock"));
}

static int open_at(const char *path, int fd, uint32_t flags)
{
    struct thaw_store_options options = {
        .size = sizeof(options), .path = path, .fd = fd, .flags = flags};
    thaw_store *other;
    int r = thaw_store_open(&options, &other, &error);
    if (r == 0)
        thaw_store_close(other);
    return r;
}

Test(store, opening_says_what_is_wrong)
{
    char path[128], longest[8192];
    snprintf(path, sizeof(path), "%s/none", root);
    cr_assert_eq(open_at(path, 0, 0), -ENOENT);
    cr_assert_eq(open_at(NULL, 0, 0), -EINVAL);
    cr_assert_eq(open_at(root, 0, 0x80), -EINVAL);
    snprintf(path, sizeof(path), "%s/store.lock", root);
    cr_assert_eq(open_at(path, 0, 0), -ENOTDIR);
    cr_assert_eq(open_at(path, 0, THAW_STORE_CREATE), -ENOTDIR);
    snprintf(path, sizeof(path), "%s/hot", root);
    cr_assert_eq(open_at(path, 0, 0), -ENOENT);
    SAYS("is not a store");
    fixture_write(root, "hot/letter", "dear");
    cr_assert_eq(open_at(path, 0, THAW_STORE_CREATE), -ENOTEMPTY);
    SAYS("neither empty nor a store");
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    cr_assert_eq(open_at(longest, 0, 0), -ENAMETOOLONG);
    cr_assert_eq(open_at(longest, 0, THAW_STORE_CREATE), -ENAMETOOLONG);
}

Test(store, opens_by_descriptor_and_below_missing_directories)
{
    char path[128];
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    OK(open_at("somewhere", fd, 0));
    close(fd);
    snprintf(path, sizeof(path), "%s/hot/a/b/c/", root);
    OK(open_at(path, 0, THAW_STORE_CREATE));
    OK(open_at(path, 0, 0));
}

Test(store, a_link_instead_of_a_place_is_not_followed)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/hot", root);
    cr_assert_eq(rmdir(path), 0);
    cr_assert_eq(symlink("/tmp", path), 0);
    cr_assert_lt(open_at(root, 0, 0), 0);
}

Test(store, an_unreadable_store_is_refused)
{
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534) < 0)
            _exit(1);
        struct thaw_store_options options = {.size = sizeof(options), .path = root};
        thaw_store *other;
        chmod(root, 0);
        _exit(thaw_store_open(&options, &other, NULL) == -EACCES ? 0 : 2);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
}

/* Creating */

Test(store, a_creation_is_listed_then_ready_and_readable)
{
    struct store_creation *creation = begin("one");
    struct manifest m;
    fixture_manifest(&m);
    cr_assert_eq(count_state(THAW_SNAPSHOT_CREATING), 1);
    cr_assert_eq(fixture_check(store, "one"), THAW_ESTATE);
    cr_assert_eq(fixture_fill(creation), 0);
    OK(store_commit(creation, &m, &error));
    manifest_fini(&m);
    OK(fixture_check(store, "one"));

    thaw_snapshot_list *list = list_states(0);
    cr_assert_eq(thaw_snapshot_list_count(list), 1);
    const struct thaw_snapshot_info *info = thaw_snapshot_list_get(list, 0);
    cr_assert_eq(info->state, THAW_SNAPSHOT_READY);
    cr_assert_str_eq(info->name, "one");
    cr_assert_str_eq(info->source, "vm 1");
    cr_assert_str_eq(info->template_name, "debian/12");
    cr_assert_eq(info->stored_bytes, strlen(FIXTURE_DATA) + strlen(FIXTURE_PACK));
    cr_assert_eq(info->vcpu_count, 2);
    cr_assert_eq(info->mem_bytes, 128 * MIB);
    cr_assert_eq(info->disk_count, 1);
    cr_assert_str_eq(info->error, "");
    cr_assert(thaw_snapshot_list_get(list, 1) == NULL);
    thaw_snapshot_list_free(list);
}

Test(store, a_name_is_given_once)
{
    struct store_request request = {.name = "one"};
    struct store_creation *creation = begin("one"), *other;
    cr_assert_eq(store_begin(store, &request, &other, &error), -EEXIST);
    SAYS("name 'one' is in use by snapshot");
    SAYS("being created");
    cr_assert_eq(fixture_count(root, "creating"), 1);
    store_abort(creation, "enough", NULL);
    create("one");
    cr_assert_eq(store_begin(store, &request, &other, &error), -EEXIST);
    request.name = "../one";
    cr_assert_eq(store_begin(store, &request, &other, &error), -EINVAL);
}

Test(store, names_are_made_up_from_the_template)
{
    struct store_creation *a = begin(NULL), *b = begin(NULL);
    cr_assert_eq(
        strncmp(store_creation_name(a), "debian-12-", 10), 0, "%s", store_creation_name(a));
    cr_assert_eq(strlen(store_creation_name(a)), 16);
    cr_assert_str_neq(store_creation_name(a), store_creation_name(b));
    cr_assert_eq(fixture_count(root, "names"), 2);
    store_abort(a, NULL, NULL);
    store_abort(b, NULL, NULL);
    static const char *const templates[] = {"", "-", "\xc3\xa4",
        "0123456789abcdef0123456789abcdef0",
        "a234567890123456789012345678901234567890123456789012345678901234"};
    for (size_t i = 0; i < ARRAY_SIZE(templates); i++) {
        struct store_request request = {.template_name = templates[i]};
        OK(store_begin(store, &request, &a, &error));
        cr_assert(manifest_name_valid(store_creation_name(a)), "%s", store_creation_name(a));
        store_abort(a, NULL, NULL);
    }
}

Test(store, an_aborted_creation_leaves_a_record_and_no_data)
{
    struct store_creation *creation = begin("one");
    char path[128];
    snprintf(path, sizeof(path), "failed/%s", store_creation_id(creation));
    cr_assert_eq(fixture_fill(creation), 0);
    OK(store_abort(creation, "the disk\nis full", &error));
    cr_assert_eq(fixture_count(root, path), 2);
    cr_assert_eq(fixture_count(root, "names"), 0);
    cr_assert_eq(fixture_count(root, "creating"), 0);

    thaw_snapshot_list *list = list_states(1u << THAW_SNAPSHOT_FAILED);
    const struct thaw_snapshot_info *info = thaw_snapshot_list_get(list, 0);
    cr_assert_str_eq(info->error, "the disk is full");
    cr_assert_str_eq(info->name, "one");
    cr_assert_str_eq(info->source, "vm 1");
    cr_assert_eq(thaw_store_delete(store, "one", &error), -ENOENT);
    OK(thaw_store_delete(store, info->id, &error));
    thaw_snapshot_list_free(list);
    cr_assert_eq(fixture_count(root, "failed"), 0);
    cr_assert_eq(fixture_count(root, "trash"), 0);
}

Test(store, a_commit_checks_the_files_against_the_manifest)
{
    for (int i = 0; i < 4; i++) {
        struct store_creation *creation = begin("one");
        int dirfd = store_creation_dirfd(creation);
        struct manifest m;
        fixture_manifest(&m);
        if (i != 0)
            cr_assert_eq(fixture_fill(creation), 0);
        if (i == 1)
            m.file_count--, m.pack_count--;
        if (i == 2)
            m.files[0].bytes++;
        if (i == 3)
            cr_assert_eq(mkdirat(dirfd, "extra", 0700), 0);
        cr_assert_eq(store_commit(creation, &m, &error), -EINVAL, "%d", i);
        m.file_count = 2;
        manifest_fini(&m);
        cr_assert_eq(count_state(THAW_SNAPSHOT_READY), 0);
        OK(store_abort(creation, "", &error));
        cr_assert_eq(fixture_count(root, "names"), 0);
    }
    thaw_snapshot_list *list = list_states(0);
    cr_assert_eq(thaw_snapshot_list_count(list), 4);
    cr_assert(strstr(thaw_snapshot_list_get(list, 0)->error, "extra"));
    thaw_snapshot_list_free(list);
}

Test(store, descendants_stay_whole_without_their_ancestors)
{
    struct store_snapshot *parent;
    struct manifest m;
    create("parent");
    OK(store_get(store, "parent", NULL, &parent, &error));
    struct store_creation *creation = begin("child");
    OK(store_link_pack(creation, parent->fd, FIXTURE_PACK, &error));
    cr_assert_eq(store_link_pack(creation, parent->fd, FIXTURE_PACK, &error), -EEXIST);
    cr_assert_eq(store_link_pack(creation, parent->fd, "../vmstate", &error), -EINVAL);
    store_put(parent);
    int fd = openat(store_creation_dirfd(creation), "vmstate", O_WRONLY | O_CREAT, 0600);
    cr_assert_eq(write(fd, FIXTURE_DATA, strlen(FIXTURE_DATA)), strlen(FIXTURE_DATA));
    close(fd);
    fixture_manifest(&m);
    m.packs[0].own = false;
    OK(store_commit(creation, &m, &error));
    manifest_fini(&m);
    OK(thaw_store_delete(store, "parent", &error));
    OK(fixture_check(store, "child"));
    thaw_snapshot_list *list = list_states(0);
    cr_assert_eq(thaw_snapshot_list_get(list, 0)->shared_bytes, strlen(FIXTURE_PACK));
    thaw_snapshot_list_free(list);
}

Test(store, a_pack_of_another_file_system_is_copied)
{
    char other[] = "/dev/shm/thaw-store-XXXXXX";
    if (!mkdtemp(other))
        cr_skip_test("no other file system: /dev/shm is not writable");
    char path[128];
    snprintf(path, sizeof(path), "%s/packs", other);
    cr_assert_eq(mkdir(path, 0700), 0);
    fixture_write(path, FIXTURE_PACK, FIXTURE_PACK);
    int fd = open(other, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct store_creation *creation = begin("one");
    OK(store_link_pack(creation, fd, FIXTURE_PACK, &error));
    snprintf(path, sizeof(path), "creating/%s/packs/" FIXTURE_PACK, store_creation_id(creation));
    cr_assert(fixture_exists(root, path));
    store_abort(creation, NULL, NULL);
    close(fd);
    fixture_remove(other);
}

/* Finding and listing */

Test(store, references_are_names_ids_and_their_beginnings)
{
    char id[MANIFEST_ID_BYTES], ref[MANIFEST_ID_BYTES], path[160];
    create("one");
    id_of("one", id);
    OK(fixture_check(store, id));
    snprintf(ref, sizeof(ref), "%.6s", id);
    OK(fixture_check(store, ref));
    ref[5] = '\0';
    cr_assert_eq(fixture_check(store, ref), -ENOENT);
    snprintf(ref, sizeof(ref), "%.6s", id);
    snprintf(path, sizeof(path), "%s/failed/%.31s%c", root, id, id[31] == '0' ? '1' : '0');
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(fixture_check(store, ref), -ENOTUNIQ);
    OK(fixture_check(store, id));
    create(ref); /* a name goes before an id */
    OK(fixture_check(store, ref));
    static const char *const none[] = {"two", "", "..", "../names/one", "one/", "x\ny"};
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        cr_assert_eq(fixture_check(store, none[i]), -ENOENT, "%s", none[i]);
}

Test(store, lists_are_filtered_paged_and_newest_first)
{
    char name[32];
    for (int i = 0; i < 7; i++) {
        snprintf(name, sizeof(name), "snap-%d", i);
        create(name);
    }
    struct thaw_snapshot_query query = {.size = sizeof(query), .page = 2, .page_size = 3};
    thaw_snapshot_list *list;
    OK(thaw_store_list(store, &query, &list, &error));
    cr_assert_eq(thaw_snapshot_list_total(list), 7);
    cr_assert_eq(thaw_snapshot_list_count(list), 3);
    cr_assert_str_eq(thaw_snapshot_list_get(list, 0)->name, "snap-3");
    cr_assert_str_eq(thaw_snapshot_list_get(list, 2)->name, "snap-1");
    thaw_snapshot_list_free(list);
    query = (struct thaw_snapshot_query){.size = sizeof(query), .text = "p-4", .source = "vm 1"};
    OK(thaw_store_list(store, &query, &list, &error));
    cr_assert_eq(thaw_snapshot_list_total(list), 1);
    thaw_snapshot_list_free(list);
    query = (struct thaw_snapshot_query){.size = sizeof(query), .source = "vm"};
    OK(thaw_store_list(store, &query, &list, &error));
    cr_assert_eq(thaw_snapshot_list_total(list), 0);
    thaw_snapshot_list_free(list);
    query = (struct thaw_snapshot_query){.size = sizeof(query),
        .template_name = "debian/12",
        .page = UINT32_MAX,
        .page_size = UINT32_MAX};
    OK(thaw_store_list(store, &query, &list, &error));
    cr_assert_eq(thaw_snapshot_list_total(list), 7);
    cr_assert_eq(thaw_snapshot_list_count(list), 0);
    thaw_snapshot_list_free(list);
}

Test(store, what_does_not_belong_is_counted_and_left_alone)
{
    char path[128];
    create("one");
    fixture_write(root, "snapshots/notes", "x");
    fixture_write(root, "creating/0123456789abcdef0123456789abcdef", "x");
    fixture_write(root, "names/letter", "x");
    fixture_write(root, "users/notes", "x");
    fixture_write(root, "users/0123456789abcdef0123456789abcdef", "x");
    snprintf(path, sizeof(path), "%s/trash/0123456789abcdef0123456789abcde0", root);
    cr_assert_eq(symlink("/tmp", path), 0);
    snprintf(path, sizeof(path), "%s/failed/sub", root);
    cr_assert_eq(mkdir(path, 0700), 0);
    OK(thaw_store_recover(store, NULL, &error));
    thaw_snapshot_list *list = list_states(0);
    cr_assert_eq(thaw_snapshot_list_total(list), 1);
    cr_assert_eq(thaw_snapshot_list_strays(list), 4);
    thaw_snapshot_list_free(list);
    struct store_request request = {.name = "letter"};
    struct store_creation *creation;
    cr_assert_eq(store_begin(store, &request, &creation, &error), -EEXIST);
    SAYS("not a snapshot");
    cr_assert(fixture_exists(root, "names/letter"));
    cr_assert_eq(fixture_count(root, "users"), 2);
}

Test(store, a_damaged_snapshot_is_shown_and_can_be_deleted)
{
    char id[MANIFEST_ID_BYTES], path[128];
    static const char *const contents[] = {"", "{}", "\xff\xfe", NULL};
    for (size_t i = 0; i < ARRAY_SIZE(contents); i++) {
        create("one");
        id_of("one", id);
        snprintf(path, sizeof(path), "snapshots/%s/manifest.json", id);
        if (contents[i]) {
            fixture_write(root, path, contents[i]);
        } else {
            char whole[256];
            snprintf(whole, sizeof(whole), "%s/%s", root, path);
            cr_assert_eq(unlink(whole), 0);
            cr_assert_eq(mkfifo(whole, 0600), 0);
        }
        cr_assert_eq(fixture_check(store, "one"), THAW_ECORRUPT);
        thaw_snapshot_list *list = list_states(1u << THAW_SNAPSHOT_DAMAGED);
        cr_assert_eq(thaw_snapshot_list_total(list), 1);
        cr_assert(strstr(thaw_snapshot_list_get(list, 0)->error, "manifest"));
        thaw_snapshot_list_free(list);
        OK(thaw_store_delete(store, "one", &error));
        cr_assert_eq(fixture_count(root, "names") + fixture_count(root, "trash"), 0);
    }
}

/* What was read a moment ago is only believed as long as it is what the file says. */
Test(store, a_manifest_that_changes_after_it_was_looked_at_is_read_again)
{
    char id[MANIFEST_ID_BYTES], path[128], whole[256];
    thaw_snapshot_list *list;
    create("one");
    id_of("one", id);
    snprintf(path, sizeof(path), "snapshots/%s/manifest.json", id);
    snprintf(whole, sizeof(whole), "%s/%s", root, path);
    OK(thaw_store_find(store, "one", &list, &error));
    thaw_snapshot_list_free(list);
    OK(fixture_check(store, "one"));
    OK(thaw_store_find(store, "one", &list, &error));
    thaw_snapshot_list_free(list);
    FILE *file = fopen(whole, "r+");
    cr_assert_not_null(file);
    char text[4096];
    size_t bytes = fread(text, 1, sizeof(text) - 1, file);
    text[bytes] = '\0';
    char *name = strstr(text, "\"one\"");
    cr_assert_not_null(name);
    cr_assert_eq(fseek(file, name - text + 1, SEEK_SET), 0);
    cr_assert_eq(fputc('O', file), 'O');
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(fixture_check(store, "one"), THAW_ECORRUPT, "its digest is another's");
}

Test(store, a_manifest_of_another_snapshot_is_refused)
{
    char a[MANIFEST_ID_BYTES], b[MANIFEST_ID_BYTES], from[128], to[128];
    create("a");
    create("b");
    id_of("a", a);
    id_of("b", b);
    snprintf(from, sizeof(from), "%s/snapshots/%s/manifest.json", root, a);
    snprintf(to, sizeof(to), "%s/snapshots/%s/manifest.json", root, b);
    cr_assert_eq(rename(from, to), 0);
    cr_assert_eq(fixture_check(store, "b"), THAW_ECORRUPT);
    cr_assert_eq(symlink(to, from), 0);
    cr_assert_eq(fixture_check(store, "a"), THAW_ECORRUPT);
}

/* Deleting */

Test(store, deleting_removes_everything_of_it)
{
    char id[MANIFEST_ID_BYTES], path[128];
    create("one");
    create("two");
    id_of("one", id);
    snprintf(path, sizeof(path), "hot/%s", id);
    fixture_write(root, path, "hot");
    OK(thaw_store_delete(store, "one", &error));
    cr_assert_eq(thaw_store_delete(store, "one", &error), -ENOENT);
    cr_assert_eq(fixture_count(root, "snapshots"), 1);
    cr_assert_eq(fixture_count(root, "names"), 1);
    cr_assert_eq(fixture_count(root, "trash"), 0);
    cr_assert_eq(fixture_count(root, "hot"), 0);
    OK(fixture_check(store, "two"));
}

Test(store, what_is_in_use_is_not_deleted_and_its_users_are_named)
{
    struct store_snapshot *users[5];
    char pid[64];
    create("one");
    OK(store_get(store, "one", "VM web-1", &users[0], &error));
    cr_assert_eq(thaw_store_delete(store, "one", &error), -EBUSY);
    snprintf(pid, sizeof(pid), "in use by VM web-1 (process %d)", (int)getpid());
    SAYS(pid);
    for (int i = 1; i < 5; i++)
        OK(store_get(store, "one", "VM\nother", &users[i], &error));
    cr_assert_eq(thaw_store_delete(store, "one", &error), -EBUSY);
    SAYS("VM?other");
    SAYS("and 2 more");
    for (int i = 0; i < 5; i++)
        store_put(users[i]);
    cr_assert_eq(fixture_count(root, "users"), 0);
    OK(store_get(store, "one", NULL, &users[0], &error));
    cr_assert_eq(thaw_store_delete(store, "one", &error), -EBUSY);
    SAYS("process");
    store_put(users[0]);
    OK(thaw_store_delete(store, "one", &error));
}

Test(store, a_creation_under_way_is_not_deleted)
{
    struct store_creation *creation = begin("one");
    cr_assert_eq(thaw_store_delete(store, "one", &error), -EBUSY);
    SAYS("still being created");
    OK(store_abort(creation, "", &error));
}

Test(store, two_names_of_one_snapshot_go_with_it)
{
    char id[MANIFEST_ID_BYTES], path[128];
    create("one");
    id_of("one", id);
    snprintf(path, sizeof(path), "%s/names/also", root);
    cr_assert_eq(symlink(id, path), 0);
    OK(fixture_check(store, "also"));
    OK(thaw_store_delete(store, "also", &error));
    cr_assert_eq(fixture_count(root, "names"), 0);
}

/* Recovering */

Test(store, an_orphaned_creation_becomes_failed)
{
    char id[MANIFEST_ID_BYTES];
    struct thaw_store_recovery did = {.size = sizeof(did)};
    orphan("one", false, id);
    OK(thaw_store_recover(store, &did, &error));
    cr_assert_eq(did.failed, 1);
    cr_assert_eq(did.finished + did.removed + did.names, 0);
    thaw_snapshot_list *list = list_states(1u << THAW_SNAPSHOT_FAILED);
    cr_assert_str_eq(thaw_snapshot_list_get(list, 0)->id, id);
    cr_assert(strstr(thaw_snapshot_list_get(list, 0)->error, "ended before"));
    thaw_snapshot_list_free(list);
    OK(thaw_store_recover(store, &did, &error));
    cr_assert_eq(did.failed, 0);
    create("one");
}

Test(store, an_orphan_that_only_lacked_its_place_is_finished)
{
    char id[MANIFEST_ID_BYTES];
    struct thaw_store_recovery did = {.size = sizeof(did)};
    orphan("one", true, id);
    cr_assert_eq(fixture_check(store, "one"), THAW_ESTATE);
    OK(thaw_store_recover(store, &did, &error));
    cr_assert_eq(did.finished, 1);
    OK(fixture_check(store, "one"));
}

Test(store, an_orphan_with_a_file_too_short_is_not_finished)
{
    char id[MANIFEST_ID_BYTES], path[128];
    orphan("one", true, id);
    snprintf(path, sizeof(path), "creating/%s/vmstate", id);
    fixture_write(root, path, "short");
    OK(thaw_store_recover(store, NULL, &error));
    cr_assert_eq(count_state(THAW_SNAPSHOT_FAILED), 1);
    cr_assert_eq(fixture_count(root, "names"), 0);
}

Test(store, opening_recovers_and_leaves_the_living_alone)
{
    char id[MANIFEST_ID_BYTES];
    struct store_creation *creation = begin("living");
    orphan("dead", false, id);
    OK(open_at(root, 0, 0));
    cr_assert_eq(count_state(THAW_SNAPSHOT_FAILED), 1);
    cr_assert_eq(count_state(THAW_SNAPSHOT_CREATING), 1);
    OK(store_abort(creation, "", &error));
}

Test(store, recovery_finishes_deletions_and_sweeps)
{
    char a[MANIFEST_ID_BYTES], from[128], to[128];
    struct thaw_store_recovery did = {.size = sizeof(did)};
    create("one");
    create("two");
    id_of("one", a);
    snprintf(from, sizeof(from), "%s/snapshots/%s", root, a);
    snprintf(to, sizeof(to), "%s/trash/%s", root, a);
    cr_assert_eq(rename(from, to), 0);
    snprintf(from, sizeof(from), "users/%s.stale", a);
    fixture_write(root, from, "x");
    fixture_write(root, "hot/0123456789abcdef0123456789abcdef", "x");
    fixture_write(root, "hot/0123456789abcdef0123456789abcdef.tmp", "x");
    static const char *const targets[] = {
        "0123456789abcdef0123456789abcdef", "../../../etc", "/etc/passwd", "."};
    for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
        snprintf(to, sizeof(to), "%s/names/n%zu", root, i);
        cr_assert_eq(symlink(targets[i], to), 0);
    }
    cr_assert_eq(count_state(THAW_SNAPSHOT_DELETING), 1);
    cr_assert_eq(fixture_check(store, "n1"), -ENOENT);
    OK(thaw_store_recover(store, &did, &error));
    cr_assert_eq(did.removed, 1);
    cr_assert_eq(did.names, 4);
    cr_assert_eq(did.side_files, 2);
    cr_assert_eq(fixture_count(root, "names"), 1);
    cr_assert_eq(
        fixture_count(root, "trash") + fixture_count(root, "hot") + fixture_count(root, "users"),
        0);
    OK(fixture_check(store, "two"));
}

Test(store, a_dangling_name_does_not_stand_in_the_way)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/names/one", root);
    cr_assert_eq(symlink("0123456789abcdef0123456789abcdef", path), 0);
    create("one");
    OK(fixture_check(store, "one"));
}

/* Threads and processes */

static void *create_and_delete(void *data)
{
    char name[32];
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof(name), "t%zu-%d", (size_t)data, i);
        thaw_snapshot_list *list;
        if (fixture_create(store, name, NULL) < 0 || fixture_check(store, name) < 0 ||
            fixture_create(store, "shared", NULL) == -EIO ||
            thaw_store_list(store, NULL, &list, NULL) < 0)
            return (void *)1;
        thaw_snapshot_list_free(list);
        thaw_store_delete(store, "shared", NULL);
        if (i % 2 == 0 && thaw_store_delete(store, name, NULL) < 0)
            return (void *)1;
    }
    return NULL;
}

Test(store, threads_share_a_handle)
{
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, create_and_delete, (void *)i), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        cr_assert(!failed);
    }
    thaw_store_delete(store, "shared", NULL);
    cr_assert_eq(count_state(THAW_SNAPSHOT_READY), 16);
    cr_assert_eq(fixture_count(root, "names"), 16);
    cr_assert_eq(fixture_count(root, "creating") + fixture_count(root, "trash"), 0);
}
