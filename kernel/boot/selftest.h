// What the self-test kernel and its little programs share.
#pragma once

// Offsets in struct Area, for assembly.
#define AREA_FLAGS_IN 0x00
#define AREA_BY_TRAP 0x08
#define AREA_ROUNDS 0x10
#define AREA_AFTER 0x18  // rax rbx rcx rdx rsi rdi rbp rsp r8..r15 flags
#define AREA_RETURN 0xa0

#define CALL_HASH 1
#define CALL_CHECK 2
#define CALL_EXIT 3
#define CALL_YIELD 4
#define CALL_PARENT 5
#define CALL_REPORT 6
#define CALL_COPY 7
#define CALL_FAIL 8
