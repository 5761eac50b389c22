/* SPDX-License-Identifier: Apache-2.0 */
/* Role: align rows of text.
 * Not here: what is in them (cmd_ps.c, cmd_ls.c). */
#include "table.h"
#include "util.h"
#include <errno.h>
#include <string.h>

struct table {
    size_t columns, count, capacity;
    size_t widths[TABLE_COLUMNS_MAX];
    char **cells; /* count rows of `columns` texts */
};

struct table *table_new(const char *const *head, size_t columns)
{
    struct table *table = calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    table->columns = MIN(columns, (size_t)TABLE_COLUMNS_MAX);
    if (table_add(table, head) < 0) {
        table_free(table);
        return NULL;
    }
    return table;
}

void table_free(struct table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->count * table->columns; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}

static int reserve_row(struct table *table)
{
    size_t capacity = MAX(2 * table->capacity, 16u);
    char **larger;

    if (table->count < table->capacity)
        return 0;
    larger = realloc(table->cells, capacity * table->columns * sizeof(*larger));
    if (!larger)
        return -ENOMEM;
    table->cells = larger;
    table->capacity = capacity;
    return 0;
}

int table_add(struct table *table, const char *const *cells)
{
    char **row;

    if (reserve_row(table) < 0)
        return -ENOMEM;
    row = table->cells + table->count * table->columns;
    for (size_t i = 0; i < table->columns; i++) {
        row[i] = strdup(cells[i]);
        if (!row[i]) {
            while (i-- > 0)
                free(row[i]);
            return -ENOMEM;
        }
        table->widths[i] = MAX(table->widths[i], strlen(cells[i]));
    }
    table->count++;
    return 0;
}

void table_print(const struct table *table)
{
    for (size_t k = 0; k < table->count; k++) {
        char **row = table->cells + k * table->columns;
        size_t last = table->columns;

        while (last > 0 && !*row[last - 1])
            last--;
        for (size_t i = 0; i < last; i++)
            printf("%-*s%s", i + 1 < last ? (int)table->widths[i] : 0, row[i],
                i + 1 < last ? "  " : "");
        printf("\n");
    }
}
