// Message, registers and a backtrace by frame pointers: as text through the nub and as a crash record. Then the machine ends.
#include "kernel/boot/panic.h"

#include <string.h>

#include "abi/control_records.h"
#include "base/format.h"
#include "base/panic.h"
#include "kernel/sched/traps.h"
#include "platform/platform.h"

extern "C" const char kernel_text_start[], kernel_text_end[];

namespace husk {
namespace {

constexpr u32 kFramesMax = 32;
constexpr size_t kMessageMax = 256;
constexpr u64 kStackMax = 32 * kKiB;  // no stack is larger

struct Report {
  abi::CrashRecord record;
  abi::CrashFrame frames[kFramesMax];
  char text[kMessageMax];
};

constinit Report report;
constinit u64 kernel_base = 0;
constinit CrashSink crash_sink = nullptr;
constinit bool panicking = false;

bool in_text(u64 address) { return address >= reinterpret_cast<u64>(kernel_text_start) && address < reinterpret_cast<u64>(kernel_text_end); }

void add_frame(u64 address) {
  if (report.record.frame_count == kFramesMax) return;
  report.frames[report.record.frame_count++] = {address, address - kernel_base};
}

// {caller's rbp, return address} at each rbp. Stacks grow down, so callers' frames are at higher addresses.
void walk(u64 rbp) {
  for (u64 low = rbp; rbp >= low && rbp < low + kStackMax && is_aligned(rbp, 8) && rbp != 0;) {
    const u64* pair = reinterpret_cast<const u64*>(rbp);
    if (!in_text(pair[1])) return;
    add_frame(pair[1]);
    if (pair[0] <= rbp) return;
    rbp = pair[0];
  }
}

void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
void say(const char* format, ...) {
  char line[kMessageMax + 64];
  va_list arguments;
  va_start(arguments, format);
  size_t length = format_to_v(line, sizeof(line), format, arguments);
  va_end(arguments);
  platform::debug_write(line, length < sizeof(line) ? length : sizeof(line) - 1);
}

void send_record(const char* message) {
  static constinit u8 bytes[sizeof(Report)]{};
  size_t size = 0;
  auto append = [&](const void* from, size_t length) {
    memcpy(bytes + size, from, length);
    size += length;
  };
  report.record.message_size = strlen(message);
  append(&report.record, sizeof(report.record));
  append(report.frames, report.record.frame_count * sizeof(abi::CrashFrame));
  append(message, report.record.message_size);
  crash_sink({bytes, size});
}

[[noreturn]] void end(const char* message) {
  if (!panicking) {
    panicking = true;
    say("husk: kernel panic: %s\n", message);
    for (u32 i = 0; i < report.record.frame_count; ++i) {
      say("  kernel+%#llx\n", static_cast<unsigned long long>(report.frames[i].module_offset));
    }
    if (crash_sink != nullptr) send_record(message);
  }
  platform::power_off(kPanicStatus);
}

}  // namespace

void init_panic(const abi::BootInfo& info) { kernel_base = info.kernel_base; }
void set_crash_sink(CrashSink sink) { crash_sink = sink; }

void panic(const char* file, int line, const char* message) {
  char text[kMessageMax];
  format_to(text, sizeof(text), "%s:%d: %s", file, line, message);
  if (!panicking) walk(reinterpret_cast<u64>(__builtin_frame_address(0)));
  end(text);
}

void panic_with_registers(const TrapFrame& f, const char* message) {
  if (!panicking) {
    u64 registers[] = {f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.rsp, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15, f.rip, f.rflags};
    static_assert(sizeof(registers) == sizeof(report.record.registers));
    memcpy(report.record.registers, registers, sizeof(registers));
    report.record.code = static_cast<u32>(f.vector);
    report.record.fault_address = f.address;
    add_frame(f.rip);
    walk(f.rbp);
  }
  end(message);
}

}  // namespace husk
