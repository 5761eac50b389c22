/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for Criterion in ThreadSanitizer builds: Criterion keeps its own data at addresses that
 * the sanitizer claims, and dies at the start. Only the part of its interface that our tests use.
 */
#ifndef TESTS_TSAN_CRITERION_H
#define TESTS_TSAN_CRITERION_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct stand_in_options {
    void (*init)(void);
    void (*fini)(void);
    double timeout;
};

struct stand_in_test {
    const char *suite;
    const char *name; /* NULL: this is a suite, whose options hold for its tests */
    void (*run)(void);
    struct stand_in_options options;
    struct stand_in_test *next;
};

void stand_in_register(struct stand_in_test *test);
_Noreturn void stand_in_fail(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
_Noreturn void stand_in_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define STAND_IN_REGISTER(id, suite_, name_, run_, ...)                                            \
    __attribute__((constructor)) static void register_##id(void)                                   \
    {                                                                                              \
        static struct stand_in_test test = {                                                       \
            .suite = suite_, .name = name_, .run = run_, .options = {__VA_ARGS__}};                \
        stand_in_register(&test);                                                                  \
    }

#define Test(suite, name, ...)                                                                     \
    static void suite##_##name##_test(void);                                                       \
    STAND_IN_REGISTER(suite##_##name, #suite, #name, suite##_##name##_test, __VA_ARGS__)           \
    static void suite##_##name##_test(void)
#define TestSuite(suite, ...)                                                                      \
    STAND_IN_REGISTER(suite_##suite, #suite, NULL, NULL, __VA_ARGS__)                              \
    struct stand_in_test

#define STAND_IN_CHECK(condition, ...)                                                             \
    do {                                                                                           \
        if (!(condition))                                                                          \
            stand_in_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__);                        \
    } while (0)

#define cr_assert(condition, ...)       STAND_IN_CHECK(condition, __VA_ARGS__)
#define cr_assert_not(condition, ...)   STAND_IN_CHECK(!(condition), __VA_ARGS__)
#define cr_assert_fail(...)             STAND_IN_CHECK(false, __VA_ARGS__)
#define cr_assert_eq(a, b, ...)         STAND_IN_CHECK((a) == (b), __VA_ARGS__)
#define cr_assert_neq(a, b, ...)        STAND_IN_CHECK((a) != (b), __VA_ARGS__)
#define cr_assert_lt(a, b, ...)         STAND_IN_CHECK((a) < (b), __VA_ARGS__)
#define cr_assert_leq(a, b, ...)        STAND_IN_CHECK((a) <= (b), __VA_ARGS__)
#define cr_assert_gt(a, b, ...)         STAND_IN_CHECK((a) > (b), __VA_ARGS__)
#define cr_assert_geq(a, b, ...)        STAND_IN_CHECK((a) >= (b), __VA_ARGS__)
#define cr_assert_null(a, ...)          STAND_IN_CHECK((a) == NULL, __VA_ARGS__)
#define cr_assert_not_null(a, ...)      STAND_IN_CHECK((a) != NULL, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)     STAND_IN_CHECK(strcmp(a, b) == 0, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...)    STAND_IN_CHECK(strcmp(a, b) != 0, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...)  STAND_IN_CHECK(memcmp(a, b, n) == 0, __VA_ARGS__)
#define cr_assert_arr_neq(a, b, n, ...) STAND_IN_CHECK(memcmp(a, b, n) != 0, __VA_ARGS__)
#define cr_expect                       cr_assert
#define cr_expect_eq                    cr_assert_eq
#define cr_skip_test(...)               stand_in_skip(" " __VA_ARGS__)
#define cr_skip(...)                    stand_in_skip(" " __VA_ARGS__)

#endif
