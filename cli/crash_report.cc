// See cli/crash_report.h.
#include "cli/crash_report.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>

#include "abi/control_records.h"

namespace husk::cli {
namespace {

constexpr u64 kFramesMax = 256, kModulesMax = 4096, kPathMax = 4096;
constexpr const char* kRegisters[18] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8",
                                        "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"};

template <typename... Arguments>
std::string text(const char* format, Arguments... arguments) {
  char buffer[512];
  snprintf(buffer, sizeof(buffer), format, arguments...);
  return buffer;
}

// What comes from the guest goes to a terminal: printable characters only.
std::string printable(std::string_view bytes) {
  std::string out;
  for (char c : bytes) out += c == '\n' || (c >= ' ' && c != 0x7f) ? c : '?';
  return out;
}

const char* meaning(u32 signal, u32 code) {
  if (signal == SIGSEGV) return code == SEGV_MAPERR ? " (nothing is mapped there)" : code == SEGV_ACCERR ? " (access not permitted)" : "";
  if (signal == SIGFPE) return code == FPE_INTDIV ? " (integer division by zero)" : "";
  if (signal == SIGILL) return " (illegal instruction)";
  return "";
}

std::string headline(const husk::abi::CrashRecord& crash) {
  if (crash.signal == 0) return "husk: the kernel panicked\n";
  const char* name = crash.signal < 65 ? sigabbrev_np(static_cast<int>(crash.signal)) : nullptr;
  std::string out = text("husk: the program crashed: SIG%s%s", name == nullptr ? "?" : name, meaning(crash.signal, crash.code));
  bool has_address = crash.signal == SIGSEGV || crash.signal == SIGBUS;
  return out + (has_address ? text(" at address 0x%lx\n", crash.fault_address) : "\n");
}

std::string registers(const husk::abi::CrashRecord& crash) {
  std::string out;
  for (size_t i = 0; i < 18; ++i) out += text("  %-6s %016lx%s", kRegisters[i], crash.registers[i], i % 3 == 2 ? "\n" : "");
  return out;
}

// Takes the record apart from the front; what is not there is empty.
class Reader {
 public:
  explicit Reader(std::span<const u8> bytes) : bytes_(bytes) {}
  std::span<const u8> take(u64 size) {
    auto part = bytes_.first(std::min<u64>(size, bytes_.size()));
    bytes_ = bytes_.subspan(part.size());
    return part;
  }
  std::string_view take_text(u64 size) { return image::as_text(take(size)); }
  template <typename T>
  bool take_value(T* value) {
    auto found = image::read_at<T>(bytes_, 0);
    if (found) *value = *found;
    take(sizeof(T));
    return found.has_value();
  }

 private:
  std::span<const u8> bytes_;
};

std::string frame_line(size_t number, const Frame& frame) {
  return text("  #%-2lu 0x%012lx ", number, frame.address) + (frame.name.empty() ? "?" : printable(frame.name)) + " in " +
         (frame.path.empty() ? "?" : printable(frame.path)) + text(" (0x%lx)\n", frame.module_address);
}

std::string kernel_frames(Reader& reader, u64 count, std::span<const u8> kernel_elf) {
  std::string out;
  husk::abi::CrashFrame frame;
  if (count == 0) return out;
  SymbolFile kernel({kernel_elf.begin(), kernel_elf.end()});
  for (u64 i = 0; i < count && reader.take_value(&frame); ++i) {
    if (i >= kFramesMax) continue;
    // A return address may be the first byte behind its function: look one byte earlier in all frames but the first.
    auto symbol = kernel.symbol_at(frame.module_offset - (i == 0 ? 0 : 1));
    std::string name = symbol ? symbol->name + text("+0x%lx", frame.module_offset - symbol->address) : "";
    out += frame_line(i, {frame.address, frame.module_offset, "[kernel]", name});
  }
  return out;
}

// It is no file of the image, but lies in the kernel.
std::vector<u8> vdso_of(std::span<const u8> kernel_elf) {
  SymbolFile kernel({kernel_elf.begin(), kernel_elf.end()});
  if (kernel.elf() == nullptr) return {};
  auto start = kernel.elf()->symbol("husk_vdso_start"), end = kernel.elf()->symbol("husk_vdso_end");
  if (!start || !end || *start > *end) return {};
  auto bytes = kernel.elf()->at_address(*start, *end - *start).value_or(image::Bytes());
  return {bytes.begin(), bytes.end()};
}

std::string program_frames(const husk::abi::CrashRecord& crash, Reader& reader, const ReadFile& read_file, std::span<const u8> kernel_elf) {
  std::vector<Module> modules;
  husk::abi::CrashModule module;
  for (u32 i = 0; i < crash.module_count && i < kModulesMax && reader.take_value(&module); ++i) {
    std::string_view path = reader.take_text(module.path_size);
    if (path.size() <= kPathMax) modules.push_back({module.start, module.end, module.file_offset, std::string(path)});
  }
  std::vector<StackBytes> stacks;
  for (const auto& stack : crash.stacks) stacks.push_back({stack.address, reader.take(stack.size)});
  auto read = [&](const std::string& path) { return path == "[vdso]" ? vdso_of(kernel_elf) : read_file(path); };
  Backtrace backtrace(std::move(modules), std::move(stacks), read);
  backtrace.walk(crash.registers);
  std::string out;
  for (size_t i = 0; i < backtrace.frames().size(); ++i) out += frame_line(i, backtrace.frames()[i]);
  if (!backtrace.why_it_ended().empty()) out += "  the backtrace ends here: " + backtrace.why_it_ended() + "\n";
  return out;
}

}  // namespace

std::string describe_crash(std::span<const u8> record, const ReadFile& read_file, std::span<const u8> kernel_elf) {
  husk::abi::CrashRecord crash;
  Reader reader(record);
  if (!reader.take_value(&crash)) return "husk: the guest sent a crash report that is too short\n";
  std::string frames = kernel_frames(reader, crash.frame_count, kernel_elf);
  std::string_view message = reader.take_text(crash.message_size);
  std::string out = headline(crash);
  if (!message.empty()) out += "  " + printable(message) + "\n";
  out += registers(crash) + frames;
  if (crash.signal != 0) out += program_frames(crash, reader, read_file, kernel_elf);
  return out;
}

}  // namespace husk::cli
