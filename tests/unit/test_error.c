// SPDX-License-Identifier: Apache-2.0
#include "error.h"
#include <criterion/criterion.h>
#include <string.h>

Test(error, the_code_is_returned_with_and_without_a_struct)
{
    struct thaw_error error;
    cr_assert_eq(error_set(NULL, -EINVAL, "text"), -EINVAL);
    cr_assert_eq(error_set(&error, THAW_EHOST, "no %s", "kvm"), THAW_EHOST);
    cr_assert_eq(error.code, THAW_EHOST);
    cr_assert_str_eq(error.message, "no kvm");
}

Test(error, errno_text_is_appended)
{
    struct thaw_error error;
    cr_assert_eq(error_errno(&error, ENOENT, "opening %s", "x"), -ENOENT);
    cr_assert_str_eq(error.message, "opening x: No such file or directory");
}

Test(error, a_prefix_keeps_code_and_message)
{
    struct thaw_error error;
    error_set(&error, THAW_EIMAGE, "truncated");
    cr_assert_eq(error_prefix(&error, THAW_EIMAGE, "kernel %s", "k"), THAW_EIMAGE);
    cr_assert_str_eq(error.message, "kernel k: truncated");
}

Test(error, long_messages_are_cut_and_terminated)
{
    struct thaw_error error;
    char text[2 * THAW_ERROR_MESSAGE_BYTES];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    error_errno(&error, EIO, "%s", text);
    cr_assert_eq(strlen(error.message), THAW_ERROR_MESSAGE_BYTES - 1);
    error_prefix(&error, -EIO, "%s", text);
    cr_assert_eq(strlen(error.message), THAW_ERROR_MESSAGE_BYTES - 1);
}

Test(error, every_code_has_a_description)
{
    static const int codes[] = {
        THAW_EHOST, THAW_EIMAGE, THAW_ESTATE, THAW_ECORRUPT, THAW_EGUEST, -EIO, 12345, -12345};
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
        cr_assert(thaw_strerror(codes[i])[0] != '\0');
    cr_assert(strstr(thaw_strerror(THAW_EIMAGE), "disk")); /* a base image that was changed */
}
