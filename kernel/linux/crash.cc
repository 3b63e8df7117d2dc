// See crash.h. The kernel sends facts: registers, the bytes of the stack, which file is executed where. Who receives them walks the
// stack by the files' unwind tables, which takes more code than a kernel should have.
#include "kernel/linux/crash.h"

#include <string.h>
#include <sys/mman.h>

#include <algorithm>

#include "abi/control_records.h"
#include "kernel/drivers/console.h"
#include "kernel/linux/task.h"
#include "kernel/mem/user_copy.h"

namespace husk::linux {
namespace {

constexpr size_t kModulesMax = 20 * kKiB, kPathMax = 4 * kKiB;
constexpr size_t kStackMax[2] = {24 * kKiB, 14 * kKiB};
static_assert(sizeof(abi::CrashRecord) + kModulesMax + sizeof(abi::CrashModule) + kPathMax + kStackMax[0] + kStackMax[1] <= abi::kRecordSizeMax);

u8* add_modules(const mem::AddressSpace& space, abi::CrashRecord& record, u8* to) {
  const u8* limit = to + kModulesMax;
  mem::MappingInfo info;
  for (u64 at = 0; to < limit && space.find(at, &info); at = info.end) {
    if ((info.protection & PROT_EXEC) == 0) continue;
    abi::CrashModule module = {info.start, info.end, info.offset, strnlen(info.name, kPathMax)};
    memcpy(to, &module, sizeof(module));
    memcpy(to + sizeof(module), info.name, module.path_size);
    to += sizeof(module) + module.path_size;
    ++record.module_count;
  }
  return to;
}

// After an overflow the stack pointer is below all that can be read.
u8* add_stack(const mem::AddressSpace& space, abi::CrashRecord::Stack& stack, size_t size, u8* to) {
  mem::MappingInfo info = {};
  u64 from = stack.address;
  while (space.find(from, &info) && (info.protection & PROT_READ) == 0) from = info.end;
  stack.address = std::max(from, info.start);
  stack.size = mem::copy_from_user_partial(to, stack.address, size);
  return to + stack.size;
}

}  // namespace

void report_crash(Task& task, const TrapFrame& f, const SignalInfo& info) {
  const mem::AddressSpace& space = *task.process->space;
  abi::CrashRecord record = {
      .signal = static_cast<u32>(info.number),
      .code = static_cast<u32>(info.code),
      .fault_address = info.code > 0 && info.code != SI_KERNEL ? info.fields.fault.address : 0,
      .registers = {f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.rsp, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15, f.rip, f.rflags},
      .stacks = {{f.rsp, 0}, {task.interrupted_stack, 0}},
  };
  std::span<const u8> message{reinterpret_cast<const u8*>(&record), sizeof(record)};  // all that there is if memory is short
  Vec<u8> bytes;
  if (bytes.resize(abi::kRecordSizeMax).ok()) {
    u8* end = add_modules(space, record, bytes.data() + sizeof(record));
    for (size_t i = 0; i < 2; ++i) end = add_stack(space, record.stacks[i], kStackMax[i], end);
    memcpy(bytes.data(), &record, sizeof(record));
    message = {bytes.data(), end};
  }
  drivers::send_record(abi::RecordType::crash, message, true);
}

}  // namespace husk::linux
