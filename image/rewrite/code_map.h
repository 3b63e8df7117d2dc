// What is known about the code of one file: functions, instructions of those that matter, and every address that
// something may jump to.
//
// rewrite.cc asks it whether a few bytes around a `syscall` may be replaced. The answer must be a proof, so all
// sources of jumps are collected: direct branches, jump tables, landing pads, symbols, addresses in data. When in
// doubt, an address counts as a target; the site then stays a trapping system call, which is slow but right.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "image/elf/unwind.h"
#include "image/elf/view.h"
#include "image/rewrite/decoder.h"

namespace husk::image {

struct Function {
  u64 start, end;
  const UnwindEntry* unwind;  // null: known from a symbol only
};

struct Instruction {
  u64 address;
  u8 length;
  u8 mnemonic_class;  // InstructionClass
  u64 end() const { return address + length; }
};

enum InstructionClass : u8 {
  kPlain,    // goes on to the next instruction
  kSyscall,  // the two bytes 0f 05
  kCpuid,    // the two bytes 0f a2
  kBranch,   // conditional or unconditional direct jump, 2 to 6 bytes, no counter register
  kReturn,
  kUnmovable,  // calls, indirect jumps, traps, ENDBR, ...
};

struct DecodedFunction {
  std::vector<Instruction> instructions;
  std::string problem;  // not empty: nothing can be proven here, and why
};

// Addresses that something may jump to: a bit for each byte of the executable segments.
class TargetSet {
 public:
  explicit TargetSet(const ElfView& elf);
  void add(u64 address);
  bool contains(u64 address) const;
  // Is there one in [start, end)?
  bool any(u64 start, u64 end) const;

 private:
  struct Range {
    u64 start;
    std::vector<bool> bits;
  };
  std::vector<Range> ranges_;
};

class CodeMap {
 public:
  explicit CodeMap(const ElfView& elf);
  const ElfView& elf() const { return elf_; }
  const TargetSet& targets() const { return targets_; }
  const Function* function_at(u64 address) const;
  // Decodes a function from its start to its end (once), adds the targets of its jumps, tables and landing pads.
  const DecodedFunction& decode(const Function& function);
  // Adds the targets of all short jumps that can reach [start, end): decodes the functions around it, and takes every
  // byte between functions that looks like a short jump for one.
  void add_short_jumps(u64 start, u64 end);
  // Adds what long jumps, LEA and words in data point at, as far as it lies in `interesting`.
  void scan_everything(const TargetSet& interesting);

 private:
  void add_functions(std::vector<Function> more);
  void add_unwind_functions();
  void add_unfinished_functions();
  void add_go_functions();
  void add_symbols();
  void add_jump_table(u64 address);
  DecodedFunction decode_new(const Function& function);
  void scan_code(const Elf64_Phdr& segment, const TargetSet& interesting);
  void scan_words(const Elf64_Phdr& segment, const TargetSet& interesting);

  const ElfView& elf_;
  UnwindTable unwind_;
  std::vector<Function> functions_;         // by start, then by end
  std::map<u64, DecodedFunction> decoded_;  // by the function's start
  u64 decoded_bytes_ = 0;
  TargetSet targets_;
};

}  // namespace husk::image
