// See crash.h. The backtrace is what the stack shows: words that point behind a call instruction in executable memory. It may name
// functions that have returned already; programs of distributions keep no frame pointers to do better with little.
#include "kernel/linux/crash.h"

#include <string.h>
#include <sys/mman.h>

#include "abi/control_records.h"
#include "base/format.h"
#include "kernel/drivers/console.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {
namespace {

constexpr u32 kFramesMax = 32;
constexpr u64 kStackScanned = 16 * kKiB;

struct Module {
  mem::MappingInfo mapping;
  u64 bias = 0;
  u32 path_offset = 0;
};

class Report {
 public:
  explicit Report(Task& task) : space_(*task.process->space), layout_(task.process->layout) {}

  Result<void> build(const TrapFrame& frame, const SignalInfo& info);
  std::span<const u8> bytes() const { return {bytes_.data(), bytes_.size()}; }

 private:
  bool is_code(u64 address, mem::MappingInfo* info) const {
    return space_.find(address, info) && info->start <= address && (info->protection & PROT_EXEC) != 0;
  }
  u64 bias_of(const mem::MappingInfo& code) const;
  Result<void> add_frame(u64 address, const mem::MappingInfo& code);
  Result<void> scan_stack(u64 stack_pointer);
  Result<void> append(const void* from, size_t size);

  mem::AddressSpace& space_;
  const ImageLayout& layout_;
  Vec<abi::CrashFrame> frames_;
  String paths_;
  Vec<u8> bytes_;
};

bool behind_call(u64 address) {
  u8 code[7];
  if (!mem::copy_from_user(code, address - sizeof(code), sizeof(code)).ok()) return false;
  if (code[2] == 0xe8) return true;  // call rel32
  auto indirect = [&](size_t at) { return code[at] == 0xff && (code[at + 1] & 0x38) == 0x10; };
  return indirect(5) || indirect(4) || indirect(1) || indirect(0);  // call r/m: 2, 3, 6, 7 bytes
}

// Where address 0 of the code's ELF file would be: the start of the mapping of its first page.
u64 Report::bias_of(const mem::MappingInfo& code) const {
  if (code.start >= layout_.load_bias && code.start < layout_.heap_start && code.end > layout_.code_start && code.start < layout_.code_end) {
    return layout_.load_bias;
  }
  u64 bias = code.start - code.offset;
  space_.for_each([&](const mem::MappingInfo& info) {
    if (info.offset == 0 && info.start < code.start && info.inode == code.inode && info.device == code.device && strcmp(info.name, code.name) == 0) {
      bias = info.start;
    }
  });
  return bias;
}

Result<void> Report::add_frame(u64 address, const mem::MappingInfo& code) {
  std::string_view path = code.name;
  size_t offset = paths_.view().find(path);
  if (offset == std::string_view::npos) {
    offset = paths_.size();
    TRY(paths_.append(path));
  }
  return frames_.push_back({address, address - bias_of(code), static_cast<u32>(offset), static_cast<u32>(path.size())});
}

Result<void> Report::scan_stack(u64 stack_pointer) {
  for (u64 at = align_up(stack_pointer, 8); at < stack_pointer + kStackScanned && frames_.size() < kFramesMax; at += 8) {
    u64 word;
    if (!mem::copy_from_user(&word, at, sizeof(word)).ok()) return {};
    mem::MappingInfo code;
    if (is_code(word, &code) && behind_call(word)) TRY(add_frame(word, code));
  }
  return {};
}

Result<void> Report::append(const void* from, size_t size) {
  size_t old = bytes_.size();
  TRY(bytes_.resize(old + size));
  if (size != 0) memcpy(bytes_.data() + old, from, size);
  return {};
}

const char* signal_name(int number) {
  switch (number) {
    case SIGSEGV: return "segmentation fault";
    case SIGBUS: return "bus error";
    case SIGILL: return "illegal instruction";
    case SIGFPE: return "arithmetic exception";
    case SIGTRAP: return "trap";
    case SIGABRT: return "aborted";
    case SIGSYS: return "bad system call";
    default: return "fatal signal";
  }
}

Result<void> Report::build(const TrapFrame& f, const SignalInfo& info) {
  mem::MappingInfo code;
  if (is_code(f.rip, &code)) {
    TRY(add_frame(f.rip, code));
  } else {
    TRY(frames_.push_back({f.rip, f.rip, 0, 0}));
  }
  TRY(scan_stack(f.rsp));
  char message[160];
  size_t length = format_to(message, sizeof(message), "%s (signal %d, code %d) at address %#lx, instruction %#lx", signal_name(info.number),
                            info.number, info.code, info.code > 0 ? info.fields.fault.address : 0, f.rip);
  abi::CrashRecord record = {
      .signal = static_cast<u32>(info.number),
      .code = static_cast<u32>(info.code),
      .fault_address = info.code > 0 && info.code != SI_KERNEL ? info.fields.fault.address : 0,
      .registers = {f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.rsp, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15, f.rip, f.rflags},
      .frame_count = static_cast<u32>(frames_.size()),
      .message_size = static_cast<u32>(length),
  };
  TRY(append(&record, sizeof(record)));
  TRY(append(frames_.data(), frames_.size() * sizeof(abi::CrashFrame)));
  TRY(append(message, length));
  return append(paths_.c_str(), paths_.size());
}

}  // namespace

void report_crash(Task& task, const TrapFrame& frame, const SignalInfo& info) {
  Report report(task);
  if (report.build(frame, info).ok()) drivers::send_record(abi::RecordType::crash, report.bytes(), true);
}

}  // namespace husk::linux
