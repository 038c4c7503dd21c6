// Disk guest for -M virt (arm64): works every virtio-blk disk hard, through the legacy or the modern MMIO interface.
//
// Up to DEPTH requests are under way on each disk: reads and writes of 1 to 16 sectors, write-zeroes and flushes, chosen
// by a generator.  Completions come by interrupt; while it waits the guest sometimes counts and sometimes sleeps (wfi).
// Everything that depends on *when* a request ends goes into one checksum: the order of completions, the virtual counter
// at each, how far it counted meanwhile, and the data.  At the end each disk is read as a whole.
//
//     disk ready disks=2 interface=1
//     disk 0 requests=0190 data=ab54…                    one line a disk
//     bye timing=0123… ticks=00000007
//
// A disk whose first sector begins with "TVMOPS" and a 32-bit number at byte 8 says how many requests are made.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum { DISKS = 4, DEPTH = 8, QUEUE = 32, MOST_SECTORS = 16, REGION = 2048, REQUESTS = 400, FIRST_SPI = 32 + 16 };
#define UART 0x09000000UL
#define GICD 0x08000000UL
#define GICC 0x08010000UL
#define SLOTS 0x0a000000UL

struct descriptor { u64 address; u32 length; u16 flags, next; };
struct header { u32 type, reserved; u64 sector; };

// one page for descriptors and the available ring, the next for the used ring: the legacy layout, good for both
struct ring {
    struct descriptor descriptors[QUEUE];
    struct { u16 flags, index, ring[QUEUE], used_event; } available;
    u8 fill[4096 - 16 * QUEUE - 6 - 2 * QUEUE];
    struct { u16 flags, index; struct { u32 id, length; } ring[QUEUE]; u16 available_event; } used;
    u8 fill2[4096 - 6 - 8 * QUEUE];
} __attribute__((aligned(4096)));

struct slot { // of a request: four descriptors of the ring are its own
    struct header header;
    u8 data[MOST_SECTORS * 512];
    u32 sectors, busy;
    volatile u8 status;
};

struct disk {
    u64 base;
    u32 seen, interrupt, made, done, errors;
    u64 sectors, checksum;
    struct slot slots[DEPTH];
};

static struct ring rings[DISKS];
static struct disk disks[DISKS];
static u32 count, requests = REQUESTS;
static volatile u32 interrupts, ticks;
static u64 timing, seed;

static u32 get(u64 address) { return *(volatile u32 *)address; }
static void put(u64 address, u32 value) { *(volatile u32 *)address = value; }
static void barrier(void) { __asm__ volatile("dmb sy" ::: "memory"); }
static u64 now(void)
{
    u64 value;
    __asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(value));
    return value;
}

static void say(const char *text)
{
    for (; *text; text++)
        put(UART, (u8)*text);
}

static void say_hex(u64 value, int digits)
{
    for (int at = 4 * (digits - 1); at >= 0; at -= 4)
        put(UART, (u8) "0123456789abcdef"[value >> at & 15]);
}

static u64 mix(u64 sum, u64 value) // FNV-1a, a word at a time
{
    return (sum ^ value) * 0x100000001b3UL;
}

static u32 chance(u32 below) // xorshift64*
{
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return (u32)(seed * 0x2545f4914f6cdd1dUL >> 33) % below;
}

static void power_off(void)
{
    register u64 x0 __asm__("x0") = 0x84000008;
    __asm__ volatile("hvc #0" : "+r"(x0));
    for (;;)
        __asm__ volatile("wfi");
}

static void fail(const char *why)
{
    say("disk FAILED: ");
    say(why);
    say("\n");
    power_off();
}

static void start_disk(u64 base, u32 number)
{
    struct disk *disk = &disks[count];
    struct ring *ring = &rings[count];
    u32 modern = get(base + 0x04) == 2;
    disk->base = base;
    disk->interrupt = FIRST_SPI + number;
    put(base + 0x70, 0);
    put(base + 0x70, 1);
    put(base + 0x70, 3);
    put(base + 0x14, 0);
    put(base + 0x24, 0);
    put(base + 0x20, get(base + 0x10) & (1 << 9 | 1 << 14)); // flush, write zeroes
    if (modern) {
        put(base + 0x14, 1);
        put(base + 0x24, 1);
        put(base + 0x20, get(base + 0x10) & 1); // version 1
        put(base + 0x70, 11);
        if (!(get(base + 0x70) & 8))
            fail("features");
    } else {
        put(base + 0x28, 4096);
    }
    put(base + 0x30, 0);
    if (get(base + 0x34) < QUEUE)
        fail("queue size");
    put(base + 0x38, QUEUE);
    if (modern) {
        put(base + 0x80, (u32)(u64)ring->descriptors), put(base + 0x84, 0);
        put(base + 0x90, (u32)(u64)&ring->available), put(base + 0x94, 0);
        put(base + 0xa0, (u32)(u64)&ring->used), put(base + 0xa4, 0);
        put(base + 0x44, 1);
        put(base + 0x70, 15);
    } else {
        put(base + 0x3c, 4096);
        put(base + 0x40, (u32)((u64)ring / 4096));
        put(base + 0x70, 7);
    }
    disk->sectors = get(base + 0x100) | (u64)get(base + 0x104) << 32;
    put(GICD + 0x100 + 4 * (disk->interrupt / 32), 1u << disk->interrupt % 32);
    *(volatile u8 *)(GICD + 0x800 + disk->interrupt) = 1;
    count++;
}

static void submit(u32 which, u32 place, u32 type, u64 sector, u32 sectors)
{
    struct disk *disk = &disks[which];
    struct ring *ring = &rings[which];
    struct slot *slot = &disk->slots[place];
    struct descriptor *first = &ring->descriptors[4 * place];
    u32 length = type == 4 ? 0 : type == 13 ? 16 : sectors * 512;
    slot->header = (struct header){type, 0, type == 13 || type == 4 ? 0 : sector};
    slot->sectors = sectors;
    slot->busy = 1;
    slot->status = 0xff;
    if (type == 13) { // write zeroes: the range is the data
        *(u64 *)slot->data = sector;
        *(u64 *)(slot->data + 8) = sectors;
    }
    first[0] = (struct descriptor){(u64)&slot->header, 16, 1, (u16)(4 * place + (length ? 1 : 2))};
    first[1] = (struct descriptor){(u64)slot->data, length, type ? 1 : 3, (u16)(4 * place + 2)};
    first[2] = (struct descriptor){(u64)&slot->status, 1, 2, 0};
    ring->available.ring[ring->available.index % QUEUE] = (u16)(4 * place);
    barrier();
    *(volatile u16 *)&ring->available.index = (u16)(ring->available.index + 1);
    barrier();
    put(disk->base + 0x50, 0);
}

static void collect(u32 which) // what is done on a disk
{
    struct disk *disk = &disks[which];
    struct ring *ring = &rings[which];
    while ((u16)disk->seen != *(volatile u16 *)&ring->used.index) {
        u32 place = ring->used.ring[disk->seen % QUEUE].id / 4;
        struct slot *slot = &disk->slots[place];
        disk->seen++, disk->done++;
        timing = mix(mix(timing, which << 8 | place), now());
        if (slot->status)
            disk->errors++;
        if (!slot->busy)
            fail("a request ended twice");
        slot->busy = 0;
        if (slot->header.type == 0 && !slot->status)
            for (u32 at = 0; at < slot->sectors * 512 / 8; at++)
                disk->checksum = mix(disk->checksum, ((u64 *)slot->data)[at]);
    }
}

static void make_request(u32 which)
{
    struct disk *disk = &disks[which];
    u32 place = 0, sectors = 1 + chance(MOST_SECTORS), kind = chance(16), region = REGION;
    while (disk->slots[place].busy)
        place++;
    if (region > disk->sectors)
        region = (u32)disk->sectors;
    u64 sector = chance(region - sectors);
    if (kind < 7) {
        submit(which, place, 0, sector, sectors);
    } else if (kind < 14) {
        u64 *data = (u64 *)disk->slots[place].data;
        for (u32 at = 0; at < sectors * 64; at++)
            data[at] = seed + at;
        submit(which, place, 1, sector, sectors);
    } else {
        submit(which, place, kind == 14 ? 4 : 13, sector, sectors);
    }
    disk->made++;
}

static void read_now(u32 which, u64 sector, u32 sectors)
{
    submit(which, 0, 0, sector, sectors);
    while (disks[which].slots[0].busy) {
        __asm__ volatile("msr daifset, #2");
        if (*(volatile u16 *)&rings[which].used.index == (u16)disks[which].seen)
            __asm__ volatile("wfi");
        __asm__ volatile("msr daifclr, #2");
        collect(which);
    }
}

void interrupted(void)
{
    u32 id = get(GICC + 0x0c) & 0x3ff;
    if (id == 27) { // the virtual timer: every millisecond
        ticks++;
        __asm__ volatile("msr cntv_tval_el0, %0" ::"r"(62500UL));
    }
    for (u32 which = 0; which < count; which++)
        if (disks[which].interrupt == id) {
            put(disks[which].base + 0x64, get(disks[which].base + 0x60));
            interrupts++;
        }
    if (id < 1020)
        put(GICC + 0x10, id);
}

void main(void)
{
    put(GICD, 1);
    put(GICD + 0x100, 1u << 27);
    put(GICC + 4, 0xff);
    put(GICC, 1);
    for (u32 number = 0; number < 32 && count < DISKS; number++)
        if (get(SLOTS + number * 0x200) == 0x74726976 && get(SLOTS + number * 0x200 + 8) == 2)
            start_disk(SLOTS + number * 0x200, number);
    if (!count)
        fail("no disk");
    say("disk ready disks=");
    say_hex(count, 1);
    say(" interface=");
    say_hex(get(disks[0].base + 4), 1);
    say("\n");
    __asm__ volatile("msr cntv_tval_el0, %0; msr cntv_ctl_el0, %1; msr daifclr, #2" ::"r"(62500UL), "r"(1UL));
    seed = 0x9e3779b97f4a7c15UL;
    read_now(0, 0, 1);
    if (*(u64 *)disks[0].slots[0].data << 16 == 0x53504f4d56540000UL) // "TVMOPS"
        requests = *(u32 *)(disks[0].slots[0].data + 8);
    for (;;) {
        u32 open = 0;
        for (u32 which = 0; which < count; which++) {
            struct disk *disk = &disks[which];
            collect(which);
            while (disk->made < requests && disk->made + 1 - disk->done - (which == 0 ? 0 : 1) < DEPTH)
                make_request(which);
            open += disk->made < requests || disk->made + (which == 0) != disk->done;
        }
        if (!open)
            break;
        u32 before = interrupts, counted = 0;
        if (chance(2)) {
            for (u32 limit = chance(3000); counted < limit && before == interrupts; counted++)
                ;
            timing = mix(timing, counted);
        } else {
            __asm__ volatile("msr daifset, #2");
            u32 idle = 1;
            for (u32 which = 0; which < count; which++)
                idle &= *(volatile u16 *)&rings[which].used.index == (u16)disks[which].seen;
            if (idle)
                __asm__ volatile("wfi");
            __asm__ volatile("msr daifclr, #2");
            timing = mix(timing, now());
        }
    }
    for (u32 which = 0; which < count; which++) {
        struct disk *disk = &disks[which];
        u32 end = disk->sectors < REGION ? (u32)disk->sectors : REGION;
        disk->checksum = 0xcbf29ce484222325UL;
        for (u32 sector = 0; sector + MOST_SECTORS <= end; sector += MOST_SECTORS)
            read_now(which, sector, MOST_SECTORS);
        say("disk ");
        say_hex(which, 1);
        say(" requests=");
        say_hex(disk->made, 4);
        say(" data=");
        say_hex(disk->checksum, 16);
        if (disk->errors) {
            say(" errors=");
            say_hex(disk->errors, 4);
        }
        say("\n");
    }
    say("bye timing=");
    say_hex(timing, 16);
    say(" ticks=");
    say_hex(ticks, 8);
    say("\n");
    power_off();
}

__asm__(".section .text.start, \"ax\"\n"
        ".globl _start\n"
        "_start:\n"
        "    ldr x0, =stack_top\n"
        "    mov sp, x0\n"
        "    mov x0, #(3 << 20)\n"
        "    msr cpacr_el1, x0\n"
        "    ldr x0, =vectors\n"
        "    msr vbar_el1, x0\n"
        "    isb\n"
        "    bl main\n"
        "irq:\n"
        "    sub sp, sp, #192\n"
        "    stp x0, x1, [sp]\n"
        "    stp x2, x3, [sp, #16]\n"
        "    stp x4, x5, [sp, #32]\n"
        "    stp x6, x7, [sp, #48]\n"
        "    stp x8, x9, [sp, #64]\n"
        "    stp x10, x11, [sp, #80]\n"
        "    stp x12, x13, [sp, #96]\n"
        "    stp x14, x15, [sp, #112]\n"
        "    stp x16, x17, [sp, #128]\n"
        "    stp x18, x30, [sp, #144]\n"
        "    bl interrupted\n"
        "    ldp x0, x1, [sp]\n"
        "    ldp x2, x3, [sp, #16]\n"
        "    ldp x4, x5, [sp, #32]\n"
        "    ldp x6, x7, [sp, #48]\n"
        "    ldp x8, x9, [sp, #64]\n"
        "    ldp x10, x11, [sp, #80]\n"
        "    ldp x12, x13, [sp, #96]\n"
        "    ldp x14, x15, [sp, #112]\n"
        "    ldp x16, x17, [sp, #128]\n"
        "    ldp x18, x30, [sp, #144]\n"
        "    add sp, sp, #192\n"
        "    eret\n"
        "bad:\n"
        "    mov w0, #'!'\n"
        "    mov x1, #0x09000000\n"
        "    str w0, [x1]\n"
        "1:  wfi\n"
        "    b 1b\n"
        "    .ltorg\n"
        "    .macro vector target\n"
        "    .balign 128\n"
        "    b \\target\n"
        "    .endm\n"
        "    .balign 2048\n"
        "vectors:\n"
        "    .rept 5\n"
        "    vector bad\n"
        "    .endr\n"
        "    vector irq\n"
        "    .rept 10\n"
        "    vector bad\n"
        "    .endr\n"
        "    .bss\n"
        "    .balign 16\n"
        "    .skip 16384\n"
        "stack_top:\n"
        "    .text\n");
