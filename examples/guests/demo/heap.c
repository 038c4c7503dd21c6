#include "heap.h"

#define ARENA_SIZE (64 * 1024)
#define IN_USE 1u

static uint8_t arena[ARENA_SIZE] __attribute__((aligned(4096)));

static struct cell *first(void)
{
    return (struct cell *)arena;
}

static uint32_t contents_size(const struct cell *cell)
{
    return cell->size & ~15u;
}

static struct cell *after(const struct cell *cell)
{
    return (struct cell *)(cell->contents + contents_size(cell));
}

static int is_end(const struct cell *cell)
{
    return (const uint8_t *)cell >= arena + ARENA_SIZE;
}

static void set_header(struct cell *cell, uint32_t size, uint64_t owner)
{
    cell->size = size;
    cell->guard = CELL_GUARD ^ size;
    cell->owner = owner;
}

void heap_start(void)
{
    set_header(first(), ARENA_SIZE - sizeof(struct cell), 0);
}

void *heap_take(size_t size, uint64_t owner)
{
    uint32_t wanted = size ? (uint32_t)(size + 15) & ~15u : 16;

    for (struct cell *cell = first(); !is_end(cell); cell = after(cell)) {
        uint32_t rest;

        if (cell->size & IN_USE || cell->size < wanted)
            continue;
        rest = cell->size - wanted;
        if (rest >= sizeof(struct cell) + 16) {
            set_header((struct cell *)(cell->contents + wanted), rest - sizeof(struct cell), 0);
            rest = 0;
        }
        set_header(cell, (wanted + rest) | IN_USE, owner);
        return cell->contents;
    }
    return NULL;
}

void heap_give_back(void *contents)
{
    struct cell *given = (struct cell *)contents - 1;

    set_header(given, contents_size(given), 0);
    for (struct cell *cell = first(); !is_end(cell); cell = after(cell)) {
        struct cell *next = after(cell);

        while (!(cell->size & IN_USE) && !is_end(next) && !(next->size & IN_USE)) {
            set_header(cell, cell->size + sizeof(struct cell) + next->size, 0);
            next = after(cell);
        }
    }
}

void heap_usage(size_t *used, size_t *unused)
{
    *used = *unused = 0;
    for (const struct cell *cell = first(); !is_end(cell); cell = after(cell))
        *(cell->size & IN_USE ? used : unused) += contents_size(cell);
}

const struct cell *heap_damaged(unsigned *number)
{
    *number = 0;
    for (const struct cell *cell = first(); !is_end(cell); cell = after(cell), ++*number)
        if (cell->guard != (CELL_GUARD ^ cell->size))
            return cell;
    return NULL;
}
