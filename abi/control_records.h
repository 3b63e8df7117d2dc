// Records on the control console, the third virtio console: logs and statistics out, events in.
//
// virtio console 0 carries stdin and stdout, 1 carries stderr, 2 carries these. Each record is a RecordHeader and
// `size` bytes. A stream of them may be cut anywhere by buffer boundaries; receivers reassemble. Both directions are untrusted:
// a receiver drops the connection's meaning (not itself) at the first record that is malformed.
#pragma once

#include "base/types.h"

namespace husk::abi {

enum class RecordType : u32 {
  // guest → monitor
  log = 1,     // u8 level (boot_config.h), then text without newline
  trace = 2,   // text: one system call
  crash = 3,   // CrashRecord, then frame_count × CrashFrame, the message, module_count × CrashModule with its path, the stacks' bytes
  exit = 4,    // ExitRecord; nothing follows it
  ready = 5,   // empty: the program's entry point is about to run
  window = 6,  // u8 raw: 1 the program switched its terminal to raw mode (informative)
  // monitor → guest
  input_end = 64,      // u64: number of bytes of stdin that were or will be sent; then end of file
  window_size = 65,    // u16 rows, u16 columns
  signal = 66,         // u32 Linux signal number for the program
  output_closed = 67,  // u32: 1 stdout, 2 stderr; from bit 8 on what writes fail with: EPIPE, the reader is gone; ENOSPC and others
};

struct RecordHeader {
  RecordType type;
  u32 size;
};
constexpr u32 kRecordSizeMax = 64 * 1024;

struct ExitRecord {
  u32 status;  // as the shell sees it: exit code, or 128 + signal
  u32 signal;  // 0 if the program exited
  u64 syscalls_called, syscalls_trapped, page_faults, memory_used_peak;
  u64 tsc_kernel_start, tsc_program_start, tsc_program_exit;
};

// Facts only: who receives them walks the program's stack and finds the names. A kernel panic has frames of the kernel and no more;
// a crash of the program has modules and stacks.
struct CrashRecord {
  u32 signal;  // 0: kernel panic
  u32 code;    // si_code
  u64 fault_address;
  u64 registers[18];  // rax rbx rcx rdx rsi rdi rbp rsp r8..r15 rip rflags
  u32 frame_count, module_count;
  u64 message_size;
  struct Stack {
    u64 address, size;
  } stacks[2];  // from the stack pointer, and from where it was when the last signal handler was called
};
struct CrashFrame {   // of the kernel
  u64 address;        // in the guest
  u64 module_offset;  // address as in kernel.elf
};
struct CrashModule {  // executable mapping
  u64 start, end;
  u64 file_offset;  // what `start` shows of the file
  u64 path_size;    // the path's bytes follow; none if there is no file
};

}  // namespace husk::abi
