// Walks the stack of a crashed program from the outside: registers, the stack's bytes and the executable mappings come from a crash record,
// unwind tables and names from the ELF files in the image.
//
// A caller is found by .eh_frame (image/elf/call_frames.h), else by the frame pointer, else not at all: nothing is guessed. Record and
// image are not trusted: frames and what is read are bounded. Runs in the jailed monitor.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "abi/control_records.h"
#include "image/elf/call_frames.h"

namespace husk::cli {

// The contents of a file that the program executed; empty if there is no such file.
using ReadFile = std::function<std::vector<u8>(const std::string& path)>;

struct Symbol {
  std::string name;  // demangled
  u64 address;
};

// An ELF file with its names. One that cannot be understood has none.
class SymbolFile {
 public:
  explicit SymbolFile(std::vector<u8> bytes);
  SymbolFile(const SymbolFile&) = delete;
  const image::ElfView* elf() const { return elf_ ? &*elf_ : nullptr; }
  // What covers an address of the file; symbols below `lowest` belong to something else.
  std::optional<Symbol> symbol_at(u64 address, u64 lowest = 0) const;

 private:
  std::vector<u8> bytes_;
  std::optional<image::ElfView> elf_;
  std::vector<image::ElfSymbol> symbols_;
};

struct Module {
  u64 start, end, file_offset;
  std::string path;  // "" if there is no file
};
struct StackBytes {
  u64 address;
  std::span<const u8> bytes;
};
struct Frame {
  u64 address;         // where the program is, or goes on after a call
  u64 module_address;  // the same in the file
  std::string path, name;
};

class Backtrace {
 public:
  Backtrace(std::vector<Module> modules, std::vector<StackBytes> stacks, ReadFile read_file);
  // `registers` as in the crash record.
  void walk(const u64 (&registers)[18]);
  const std::vector<Frame>& frames() const { return frames_; }
  const std::string& why_it_ended() const { return ended_; }  // "" if the last frame is the outermost

 private:
  struct Place {
    const Module* module = nullptr;  // executable mapping that holds the address
    const SymbolFile* file = nullptr;
    u64 address = 0;  // in the file
  };
  Place find(u64 address);
  const SymbolFile* file_of(const std::string& path);
  std::optional<u64> word(u64 address) const;
  std::optional<image::DwarfRegisters> caller(const image::DwarfRegisters& registers);
  bool is_behind_call(u64 address, const SymbolFile* file, std::optional<u64> function);
  std::optional<image::DwarfRegisters> caller_by_call(const image::DwarfRegisters& registers, const SymbolFile* file, std::optional<u64> function);
  std::optional<image::DwarfRegisters> caller_by_frame_pointer(const image::DwarfRegisters& registers);
  std::optional<image::DwarfRegisters> caller_by_signal_frame(const image::DwarfRegisters& registers) const;

  std::vector<Module> modules_;
  std::vector<StackBytes> stacks_;
  ReadFile read_file_;
  std::map<std::string, std::unique_ptr<SymbolFile>> files_;
  u64 bytes_read_ = 0;
  std::vector<Frame> frames_;
  std::string ended_;
  bool exact_ = true;  // the address is where the program is, not behind a call
};

}  // namespace husk::cli
