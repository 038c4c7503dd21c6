/* The guest's RAM page by page, and which of it translations of addresses come from (tables.c). */
#ifndef TIMEVM_TABLES_H
#define TIMEVM_TABLES_H

#include <stdint.h>

#define PAGE ((uint64_t)4096)
#define PAGE_MASK (~(PAGE - 1))
#define NOWHERE (~(uint64_t)0)

#define MAX_RAM_RANGES 8

struct ram_range {
    uint64_t base, end;
    uint64_t offset; /* what Unicorn calls its first byte */
    uint8_t *host;
};

/* one page of RAM */
struct ram_page {
    uint32_t writes; /* stores to it that took the slow path */
    uint16_t has_code;
    uint16_t patience; /* log4 of how many of them make its translations be dropped */
    /* numbers of flushes of the TLB: of the last time that */
    uint32_t table;  /* translations of addresses were read from it: while it is the last flush, it is a table; 0: never */
    uint32_t filled; /* a TLB entry that writes to it became fast */
};

/* which translations of addresses that are kept were read from a page of RAM that is a table */
struct table {
    uint64_t first; /* the virtual address of its first entry's page; NOWHERE: its entries are not of one page each */
    uint32_t entry_size;
    uint32_t changes; /* how often entries in use were changed */
    uint64_t read[8]; /* bits by eight bytes */
};

struct memory {
    void (*watch_writes)(void *cpu_state, uint64_t host, uint64_t length); /* tlb_reset_dirty */
    void (*flush_tlb)(void *cpu_state);
    struct ram_page *pages; /* by RAM offset */
    struct table *tables;   /* the same */
    uint64_t page_count;
    struct ram_range ram[MAX_RAM_RANGES];
    uint32_t ram_count;
    uint32_t flushes;      /* of the TLB: how often it was emptied, and 1 */
    uint32_t tlb_stale;    /* to be emptied before the next instruction */
    uint32_t padding;
    int64_t begun_anew_at; /* icount of an instruction that changes tables and begins for the second time; -1: none */
};

struct engine;

/* RAM offset of a physical address; NOWHERE: no RAM */
uint64_t ram_offset(const struct engine *engine, uint64_t physical);
/* where RAM at a physical address is in this process; NULL: no RAM */
uint8_t *host_of(const struct engine *engine, uint64_t physical, uint64_t size);
/* TLB entries that write to this page are to be slow; those that come are not made fast */
void watch_entries(struct engine *engine, struct ram_page *page, const void *host);
const uint8_t *note_entry(struct engine *engine, uint64_t physical, unsigned size, uint64_t first);
/* A store to a page that has been a table is under way: is the page to stay slow? */
int stays_slow(struct engine *engine, struct ram_page *page);
/* `size` bytes in one page: are translations kept that were read from there?  None is any longer. */
int are_entries_used(const struct engine *engine, uint64_t offset, uint64_t size);
void forget_entries(struct engine *engine, uint64_t offset, uint64_t size);
/* Bytes that a store of `size` is looked at for.  What compares 16 bytes before it stores them (CMPXCHG16B, CASP, STXP) does
   so in halves, and must not begin anew between them. */
static inline uint64_t looked_at(uint64_t offset, uint64_t size)
{
    return size == 8 && offset % 16 == 0 ? 16 : size;
}
/* RAM was written by someone else than the CPU; the range is in one page */
void entries_changed(struct engine *engine, uint64_t offset, uint64_t size);
/* Translations of addresses are read anew from here on; what runs next must be looked up anew, too. */
void empty_tlb(struct engine *engine);

#endif
