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
  crash = 3,   // CrashRecord, then frame_count × CrashFrame, then the text of the modules' paths
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

struct CrashFrame {
  u64 address;        // in the guest
  u64 module_offset;  // address as in the ELF file of the module (virtual address minus load bias)
  u32 path_offset;    // into the text behind the frames; kernel frames have the path "[kernel]"
  u32 path_size;
};
struct CrashRecord {
  u32 signal;  // 0: kernel panic
  u32 code;    // si_code
  u64 fault_address;
  u64 registers[18];  // rax rbx rcx rdx rsi rdi rbp rsp r8..r15 rip rflags
  u32 frame_count;
  u32 message_size;  // text before the modules' paths
};

}  // namespace husk::abi
