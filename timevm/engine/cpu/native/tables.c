/* The TLB follows the guest's page tables, so that nobody can tell how long an entry lives (decision 0170).

   Translations of addresses are kept until the guest invalidates them; but a stop and a restore, which may come anywhere,
   empty Unicorn's TLB.  A guest that changes tables without an invalidation could see that.  So it is noted, for each
   eight bytes of RAM, whether a translation that is kept was read from there, and stores to such a page are looked at as
   those to code are.  One that is about to change an entry in use has what was read from it forgotten first.  That is also
   the case where the TLB was empty, so both go on alike.

   What is noted is void by itself when the TLB has been emptied, as the guest does at each change of address space. */
#include "common.h"

#define SLOT sizeof(uint64_t)
#define MANY NOWHERE
#define CHANGES 4             /* of entries of a table, one by one */
#define STORES_TO_TABLE 16384 /* so many of them have the TLB emptied: it may be none any longer */
#define STORES_TO_PAGE 1024   /* and so many make a page that was a table one like others */

uint64_t ram_offset(const struct engine *engine, uint64_t physical)
{
    const struct memory *memory = &engine->memory;

    for (uint32_t i = 0; i < memory->ram_count; i++)
        if (physical >= memory->ram[i].base && physical < memory->ram[i].end)
            return physical - memory->ram[i].base + memory->ram[i].offset;
    return NOWHERE;
}

uint8_t *host_of(const struct engine *engine, uint64_t physical, uint64_t size)
{
    const struct memory *memory = &engine->memory;

    for (uint32_t i = 0; i < memory->ram_count; i++)
        if (physical >= memory->ram[i].base && physical < memory->ram[i].end && size <= memory->ram[i].end - physical)
            return memory->ram[i].host + (physical - memory->ram[i].base);
    return 0;
}

/* Some microseconds if there may be any such entry. */
void watch_entries(struct engine *engine, struct ram_page *page, const void *host)
{
    if (page->filled != engine->memory.flushes)
        return;
    page->filled = 0;
    engine->memory.watch_writes(engine->cpu_state, (uintptr_t)host & PAGE_MASK, PAGE);
}

/* Tables are in RAM at a physical address: an entry of `size` bytes was read.  Where it is; NULL: that is no RAM.
   `first` is the virtual address that the table begins with if this is one of its last level, MANY if it is not.  About
   5 ns. */
const uint8_t *note_entry(struct engine *engine, uint64_t physical, unsigned size, uint64_t first)
{
    struct memory *memory = &engine->memory;

    for (uint32_t i = 0; i < memory->ram_count; i++) {
        const struct ram_range *ram = &memory->ram[i];
        uint64_t number, slot;
        const uint8_t *host;
        struct ram_page *page;
        struct table *table;

        if (physical < ram->base || physical >= ram->end)
            continue;
        number = (physical - ram->base + ram->offset) / PAGE;
        slot = physical % PAGE / SLOT;
        host = ram->host + (physical - ram->base);
        page = &memory->pages[number];
        table = &memory->tables[number];
        if (!is_table(engine, page)) {
            *table = (struct table){.first = first, .entry_size = size};
            page->table = memory->flushes;
            if (!page->has_code)
                page->writes = 0;
            watch_entries(engine, page, host);
        } else if (table->first != first || table->entry_size != size) {
            table->first = MANY;
        }
        table->read[slot / 64] |= (uint64_t)1 << slot % 64;
        return host;
    }
    return 0;
}

/* When it is no table any longer it stays slow for some time: guests make new tables of old ones, and to look for entries
   that write fast to a page costs as much as hundreds of slow stores. */
int stays_slow(struct engine *engine, struct ram_page *page)
{
    page->writes++;
    if (is_table(engine, page)) {
        if (page->writes % STORES_TO_TABLE == 0) {
            engine->memory.tlb_stale = 1;
            look_soon(engine);
        }
        return 1;
    }
    if (page->writes < STORES_TO_PAGE)
        return 1;
    page->table = 0;
    return 0;
}

static int is_used(const struct table *table, uint64_t slot)
{
    return table->read[slot / 64] >> slot % 64 & 1;
}

int are_entries_used(const struct engine *engine, uint64_t offset, uint64_t size)
{
    const struct table *table = &engine->memory.tables[offset / PAGE];
    uint64_t last = (offset % PAGE + size - 1) / SLOT;

    if (!is_table(engine, &engine->memory.pages[offset / PAGE]))
        return 0;
    for (uint64_t slot = offset % PAGE / SLOT; slot <= last; slot++)
        if (is_used(table, slot))
            return 1;
    return 0;
}

static void forget_slot(struct engine *engine, struct table *table, uint64_t slot)
{
    unsigned pages = SLOT / table->entry_size;

    table->read[slot / 64] &= ~((uint64_t)1 << slot % 64);
    for (unsigned i = 0; i < pages; i++)
        engine->call.flush_tlb_page(engine->cpu_state, table->first + (slot * pages + i) * PAGE);
}

/* Where one entry is changed after the other (a process is copied, or ends), all of the table are forgotten together. */
void forget_entries(struct engine *engine, uint64_t offset, uint64_t size)
{
    struct table *table = &engine->memory.tables[offset / PAGE];
    uint64_t first = offset % PAGE / SLOT, last = (offset % PAGE + size - 1) / SLOT;

    if (table->first == MANY) {
        empty_tlb(engine);
        return;
    }
    if (++table->changes > CHANGES) {
        table->changes = 0;
        first = 0;
        last = PAGE / SLOT - 1;
    }
    for (uint64_t slot = first; slot <= last; slot++)
        if (is_used(table, slot))
            forget_slot(engine, table, slot);
}

void entries_changed(struct engine *engine, uint64_t offset, uint64_t size)
{
    if (!are_entries_used(engine, offset, size))
        return;
    engine->memory.tlb_stale = 1;
    look_soon(engine);
}

void empty_tlb(struct engine *engine)
{
    engine->memory.flushes++;
    engine->memory.flush_tlb(engine->cpu_state);
}
