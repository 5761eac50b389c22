// SPDX-License-Identifier: Apache-2.0
#include "options.h"
#include <criterion/criterion.h>
#include <string.h>

struct old_options {
    size_t size;
    int first;
    int second;
};

struct new_options {
    size_t size;
    int first;
    int second;
    int third;
    int fourth;
};

Test(options, null_gives_the_defaults)
{
    struct old_options got = {0};
    cr_assert_eq(options_read(&got, sizeof(got), NULL, "options", NULL), 0);
    cr_assert_eq(got.size, sizeof(got));
    cr_assert_eq(got.first, 0);
}

Test(options, an_older_callers_missing_fields_are_zero)
{
    struct old_options given = {sizeof(given), 1, 2};
    struct new_options got = {0};
    cr_assert_eq(options_read(&got, sizeof(got), &given, "options", NULL), 0);
    cr_assert_eq(got.second, 2);
    cr_assert_eq(got.third, 0);
    cr_assert_eq(got.size, sizeof(got));
}

Test(options, a_newer_callers_unused_fields_are_ignored)
{
    struct new_options given = {sizeof(given), 1, 2, 0, 0};
    struct old_options got = {0};
    cr_assert_eq(options_read(&got, sizeof(got), &given, "options", NULL), 0);
    cr_assert_eq(got.first, 1);
}

Test(options, a_newer_callers_used_field_is_refused)
{
    struct new_options given = {sizeof(given), 1, 2, 0, 9};
    struct old_options got = {0};
    struct thaw_error error;
    cr_assert_eq(options_read(&got, sizeof(got), &given, "options", &error), -EINVAL);
    cr_assert(strstr(error.message, "not known"));
    cr_assert_eq(got.first, 0);
}

Test(options, a_size_that_was_never_set_is_refused)
{
    struct old_options given = {0};
    struct old_options got = {0};
    cr_assert_eq(options_read(&got, sizeof(got), &given, "options", NULL), -EINVAL);
}
