/* The devices of -M virt that the demo uses: PL011 and GICv2, the virtual counter, PSCI. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

void board_start(void);

/* Waits (WFI) for a line, echoes it, stores at most `size` - 1 characters and a terminator; returns its length. */
size_t read_line(char *line, size_t size);

void put_char(char character);
void put_text(const char *text);
void put_number(int64_t number);
void put_hex(uint64_t number);

/* The virtual counter in microseconds since it started. */
uint64_t microseconds(void);

_Noreturn void power_off(void);

#endif
