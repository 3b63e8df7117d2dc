// See cli/backtrace.h.
#include "cli/backtrace.h"

#include <cxxabi.h>
#include <stdlib.h>

#include <algorithm>
#include <utility>

namespace husk::cli {
namespace {

using image::DwarfRegisters;
using image::kDwarfRbp;
using image::kDwarfRegisters;
using image::kDwarfRip;
using image::kDwarfRsp;

constexpr size_t kFramesMax = 64;
constexpr size_t kNameMax = 4096;  // to be demangled
constexpr u64 kBytesReadMax = kGiB;
// Where a crash record has the register of each DWARF number: rax rdx rcx rbx rsi rdi rbp rsp r8..r15 rip.
constexpr u8 kInRecord[kDwarfRegisters] = {0, 3, 2, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
// The same for struct sigcontext: r8..r15 rdi rsi rbp rbx rdx rax rcx rsp rip; it lies 40 bytes into ucontext.
constexpr u8 kInContext[kDwarfRegisters] = {13, 12, 14, 11, 9, 8, 10, 15, 0, 1, 2, 3, 4, 5, 6, 7, 16};
constexpr u64 kContextOffset = 40;
constexpr u8 kSignalReturn[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};  // mov $15,%rax; syscall

std::string hexadecimal(const char* format, u64 value) {
  char text[32];
  snprintf(text, sizeof(text), format, value);
  return text;
}

std::string demangle(const std::string& name) {
  int status = 0;
  if (name.size() > kNameMax) return name;
  char* plain = ::abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  std::string result = plain != nullptr ? plain : name;
  free(plain);
  return result;
}

// The file's address of what a mapping shows; nothing if no executable segment has that.
std::optional<u64> address_in_file(const image::ElfView& elf, u64 offset) {
  for (const auto& segment : elf.segments()) {
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    if (offset >= align_down(segment.p_offset, kPageSize) && offset < segment.p_offset + segment.p_filesz)
      return offset - segment.p_offset + segment.p_vaddr;
  }
  return std::nullopt;
}

// A trampoline of the image builder (image/rewrite/README.md) has no unwind table: what holds there is what holds at the jump that
// leads to it. The jump is looked for in the rest of the code, the last trampoline that starts at or below the address.
u64 site_of_trampoline(const image::ElfView& elf, u64 address) {
  constexpr u64 kTrampolineMax = 128, kCodeMax = 64 * kMiB;
  constexpr u8 kEnter[] = {0x65, 0xff, 0x24, 0x25};  // jmp *%gs:entry
  const Elf64_Phdr* last = nullptr;
  for (const auto& segment : elf.segments()) {
    if (segment.p_type == PT_LOAD && (last == nullptr || segment.p_vaddr > last->p_vaddr)) last = &segment;
  }
  if (last == nullptr || (last->p_flags & PF_X) == 0 || address - last->p_vaddr >= last->p_filesz) return address;
  u64 site = address, nearest = kTrampolineMax;
  for (const auto& segment : elf.segments()) {
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0 || &segment == last) continue;
    image::Bytes code = elf.contents(segment);
    code = code.first(std::min<u64>(code.size(), kCodeMax));
    for (size_t i = 0; i + 5 <= code.size(); ++i) {
      if (code[i] != 0xe9) continue;
      u64 here = segment.p_vaddr + i, target = here + 5 + static_cast<u64>(i64{*image::read_at<i32>(code, i + 1)});
      if (address - target < nearest) site = here, nearest = address - target;
    }
  }
  auto behind = elf.from_address(address - (site == address ? 0 : nearest));
  if (!behind) return address;
  image::Bytes trampoline = behind->first(std::min<size_t>(behind->size(), kTrampolineMax));
  return std::search(trampoline.begin(), trampoline.end(), std::begin(kEnter), std::end(kEnter)) != trampoline.end() ? site : address;
}

}  // namespace

// --- files and names ------------------------------------------------------------------------------------------------------

SymbolFile::SymbolFile(std::vector<u8> bytes) : bytes_(std::move(bytes)) {
  try {
    elf_ = image::ElfView::parse(bytes_, "crash");
    symbols_ = elf_->symbols();
  } catch (const image::Error&) {}
}

// Of several names for one place the shortest: the others are mostly for the C library's own use.
std::optional<Symbol> SymbolFile::symbol_at(u64 address, u64 lowest) const {
  const image::ElfSymbol* best = nullptr;
  auto better = [&](const image::ElfSymbol& a, const image::ElfSymbol& b) {
    if (a.value != b.value) return a.value > b.value;
    return a.size != b.size ? a.size > b.size : a.name.size() < b.name.size();
  };
  for (const image::ElfSymbol& symbol : symbols_) {
    if (symbol.type != STT_FUNC && symbol.type != STT_NOTYPE && symbol.type != STT_GNU_IFUNC) continue;
    if (symbol.name.empty() || symbol.value == 0 || symbol.value > address || symbol.value < lowest) continue;
    if (symbol.size != 0 && address - symbol.value >= symbol.size) continue;
    if (best == nullptr || better(symbol, *best)) best = &symbol;
  }
  if (best == nullptr) return std::nullopt;
  return Symbol{demangle(std::string(best->name)), best->value};
}

const SymbolFile* Backtrace::file_of(const std::string& path) {
  auto& file = files_[path];
  if (!file) {
    auto bytes = bytes_read_ < kBytesReadMax ? read_file_(path) : std::vector<u8>();
    bytes_read_ += bytes.size();
    file = std::make_unique<SymbolFile>(std::move(bytes));
  }
  return file.get();
}

Backtrace::Place Backtrace::find(u64 address) {
  Place place;
  for (const Module& module : modules_) {
    if (address < module.start || address >= module.end) continue;
    place.module = &module;
    const SymbolFile* file = module.path.empty() ? nullptr : file_of(module.path);
    auto start = file != nullptr && file->elf() ? address_in_file(*file->elf(), module.file_offset) : std::nullopt;
    if (start) place.file = file, place.address = address - module.start + *start;
    break;
  }
  return place;
}

// --- walking --------------------------------------------------------------------------------------------------------------

Backtrace::Backtrace(std::vector<Module> modules, std::vector<StackBytes> stacks, ReadFile read_file)
    : modules_(std::move(modules)), stacks_(std::move(stacks)), read_file_(std::move(read_file)) {}

std::optional<u64> Backtrace::word(u64 address) const {
  for (const StackBytes& stack : stacks_) {
    if (auto value = image::read_at<u64>(stack.bytes, address - stack.address)) return value;
  }
  return std::nullopt;
}

// Code without an unwind table, such as Go's or what was compiled while it runs, keeps frame pointers. {caller's rbp, return address}
// must lie where a caller's frame can be, and lead to code.
std::optional<DwarfRegisters> Backtrace::caller_by_frame_pointer(const DwarfRegisters& registers) {
  auto frame = registers[kDwarfRbp], stack = registers[kDwarfRsp];
  if (!frame || !stack || *frame < *stack || !is_aligned(*frame, 8)) return std::nullopt;
  DwarfRegisters caller;
  caller[kDwarfRbp] = word(*frame);
  caller[kDwarfRip] = word(*frame + 8);
  caller[kDwarfRsp] = *frame + 16;
  if (!caller[kDwarfRip] || find(*caller[kDwarfRip]).module == nullptr) return std::nullopt;
  return caller;
}

std::optional<DwarfRegisters> Backtrace::caller_by_signal_frame(const DwarfRegisters& registers) const {
  DwarfRegisters caller;
  for (unsigned i = 0; i < kDwarfRegisters; ++i) caller[i] = word(*registers[kDwarfRsp] + kContextOffset + u64{8} * kInContext[i]);
  return caller[kDwarfRip] && caller[kDwarfRsp] ? std::optional(caller) : std::nullopt;
}

// Whether a call instruction ends there: of that function if one is given.
bool Backtrace::is_behind_call(u64 address, const SymbolFile* file, std::optional<u64> function) {
  Place place = find(address);
  auto code = place.file != nullptr ? place.file->elf()->at_address(place.address - 7, 7) : std::nullopt;
  if (!code) return false;
  bool direct = (*code)[2] == 0xe8;  // call rel32
  if (function) return direct && place.file == file && place.address + static_cast<u64>(i64{*image::read_at<i32>(*code, 3)}) == *function;
  auto indirect = [&](size_t at) { return (*code)[at] == 0xff && ((*code)[at + 1] & 0x38) == 0x10; };
  return direct || indirect(5) || indirect(4) || indirect(3) || indirect(1) || indirect(0);  // call r/m of 2, 3, 4, 6, 7 bytes
}

// The return address is the last word on the stack: of a call that led nowhere, and of a function that has not touched the stack.
std::optional<DwarfRegisters> Backtrace::caller_by_call(const DwarfRegisters& registers, const SymbolFile* file, std::optional<u64> function) {
  auto back = word(*registers[kDwarfRsp]);
  if (!back || !is_behind_call(*back, file, function)) return std::nullopt;
  DwarfRegisters next = registers;
  next[kDwarfRip] = back;
  next[kDwarfRsp] = *registers[kDwarfRsp] + 8;
  return next;
}

// Adds the frame of `registers` and gives those of its caller.
std::optional<DwarfRegisters> Backtrace::caller(const DwarfRegisters& registers) {
  const u64 address = *registers[kDwarfRip];
  const bool exact = std::exchange(exact_, false);
  const Place place = find(address);
  Frame& frame = frames_.emplace_back(Frame{address, place.address, place.module == nullptr ? "" : place.module->path, ""});
  ended_ = "there is no unwind information for the last function";
  if (place.file == nullptr) {
    if (place.module != nullptr) return caller_by_frame_pointer(registers);
    ended_ = "the last address is not in the program's code";
    return exact ? caller_by_call(registers, nullptr, std::nullopt) : std::nullopt;
  }

  const image::ElfView& elf = *place.file->elf();
  u64 inside = place.address - (exact ? 0 : 1);  // a return address may be the first byte behind its function
  u64 shown = place.address;
  auto entry = image::find_call_frame(elf, inside);
  if (!entry) {
    u64 site = site_of_trampoline(elf, inside);
    if (site != inside) entry = image::find_call_frame(elf, inside = shown = site);
  }
  auto code = elf.at_address(place.address, sizeof(kSignalReturn));
  bool known_bytes = code && std::equal(code->begin(), code->end(), std::begin(kSignalReturn));
  if (known_bytes && !(entry && entry->cie.signal_frame)) entry.reset();  // of the function before it
  auto symbol = place.file->symbol_at(inside, entry ? entry->fde.start : 0);
  if (known_bytes || (entry && entry->cie.signal_frame)) {
    frame.name = "<signal handler called>";
    exact_ = true;
  } else if (symbol) {
    frame.name = symbol->name + hexadecimal("+0x%lx", shown - symbol->address);
  }
  if (!entry) {
    if (known_bytes) return caller_by_signal_frame(registers);
    auto next = exact && symbol ? caller_by_call(registers, place.file, symbol->address) : std::nullopt;
    return next ? next : caller_by_frame_pointer(registers);
  }
  ended_ = "the stack is damaged or goes on behind what the kernel sent";
  return image::caller_registers(*entry, inside, registers, [this](u64 at) { return word(at); });
}

void Backtrace::walk(const u64 (&recorded)[18]) {
  DwarfRegisters registers;
  for (unsigned i = 0; i < kDwarfRegisters; ++i) registers[i] = recorded[kInRecord[i]];
  while (frames_.size() < kFramesMax) {
    auto next = caller(registers);
    if (!next) return;
    // Outermost functions say that nobody called them, or have 0 there. What a signal interrupted may well have been at 0.
    if (next->at(kDwarfRip).value_or(0) == 0 && !(exact_ && next->at(kDwarfRip))) return ended_.clear();
    if (!next->at(kDwarfRsp)) return;
    if (next->at(kDwarfRsp) == registers[kDwarfRsp] && next->at(kDwarfRip) == registers[kDwarfRip]) return;
    registers = *next;
  }
  ended_ = "there are more frames";
}

}  // namespace husk::cli
