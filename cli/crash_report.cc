// See cli/crash_report.h.
#include "cli/crash_report.h"

#include <cxxabi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>

#include "abi/control_records.h"
#include "image/elf/view.h"

namespace husk::cli {
namespace {

constexpr u32 kFramesMax = 256;
constexpr const char* kRegisters[18] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8",
                                        "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"};

template <typename... Arguments>
std::string text(const char* format, Arguments... arguments) {
  char buffer[512];
  snprintf(buffer, sizeof(buffer), format, arguments...);
  return buffer;
}

std::string demangle(const std::string& name) {
  int status = 0;
  char* plain = ::abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = plain != nullptr ? plain : name;
  free(plain);
  return result;
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

}  // namespace

std::string symbol_at(std::span<const u8> elf_file, u64 offset) {
  try {
    auto elf = image::ElfView::parse(elf_file, "crash");
    const image::ElfSymbol* best = nullptr;
    std::vector<image::ElfSymbol> symbols = elf.symbols();
    for (const image::ElfSymbol& symbol : symbols) {
      if (symbol.type != STT_FUNC && symbol.type != STT_NOTYPE && symbol.type != STT_GNU_IFUNC) continue;
      if (symbol.name.empty() || symbol.value == 0 || symbol.value > offset) continue;
      if (symbol.size != 0 && offset - symbol.value >= symbol.size) continue;
      if (best == nullptr || symbol.value > best->value || (symbol.value == best->value && symbol.size > best->size)) best = &symbol;
    }
    if (best == nullptr) return "";
    return demangle(std::string(best->name)) + text("+0x%lx", offset - best->value);
  } catch (const image::Error&) {
    return "";
  }
}

std::string describe_crash(std::span<const u8> record, const ImageFiles& files, std::span<const u8> kernel_elf) {
  husk::abi::CrashRecord crash;
  if (record.size() < sizeof(crash)) return "husk: the guest sent a crash report that is too short\n";
  memcpy(&crash, record.data(), sizeof(crash));
  record = record.subspan(sizeof(crash));
  u64 count = std::min<u64>(crash.frame_count, kFramesMax);
  u64 frame_bytes = u64{crash.frame_count} * sizeof(husk::abi::CrashFrame);
  if (frame_bytes > record.size()) return headline(crash) + registers(crash);
  std::string_view strings(reinterpret_cast<const char*>(record.data()) + frame_bytes, record.size() - frame_bytes);
  size_t message_size = std::min<size_t>(crash.message_size, strings.size());
  std::string out = headline(crash);
  if (message_size != 0) out += "  " + printable(strings.substr(0, message_size)) + "\n";
  strings.remove_prefix(message_size);
  out += registers(crash);
  std::map<std::string, std::vector<u8>> loaded;
  for (u64 i = 0; i < count; ++i) {
    husk::abi::CrashFrame frame;
    memcpy(&frame, record.data() + i * sizeof(frame), sizeof(frame));
    std::string path;
    if (frame.path_offset <= strings.size()) path = strings.substr(frame.path_offset, frame.path_size);
    std::string name;
    // A return address may be the first byte behind its function: look one byte earlier in all frames but the first.
    u64 offset = frame.module_offset - (i == 0 ? 0 : 1);
    if (path == "[kernel]") {
      name = symbol_at(kernel_elf, offset);
    } else if (!path.empty()) {
      if (!loaded.contains(path)) loaded[path] = files.read(path).value_or(std::vector<u8>());
      name = symbol_at(loaded[path], offset);
    }
    out += text("  #%-2lu 0x%012lx ", i, frame.address) + (name.empty() ? "?" : printable(name)) + " in " + (path.empty() ? "?" : printable(path)) +
           text(" (0x%lx)\n", frame.module_offset);
  }
  return out;
}

}  // namespace husk::cli
