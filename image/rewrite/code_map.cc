// Collection of functions and jump targets; see code_map.h.
#include "image/rewrite/code_map.h"

#include <algorithm>
#include <optional>

namespace husk::image {
namespace {

// Overlapping function descriptions (damaged or hostile files) must not cost more than this for each byte of file.
constexpr u64 kDecodeEffort = 8;
constexpr u64 kJumpTableMax = 4096;
constexpr u64 kGapMax = 256;  // bytes between two functions that are looked at for the rest of the first

bool is_direct_branch(const ZydisDecodedInstruction& instruction) { return instruction.raw.imm[0].is_relative != 0; }

InstructionClass classify(const ZydisDecodedInstruction& instruction) {
  if (instruction.mnemonic == ZYDIS_MNEMONIC_CPUID) return instruction.length == 2 ? kCpuid : kUnmovable;
  switch (instruction.meta.category) {
    case ZYDIS_CATEGORY_SYSCALL: return instruction.mnemonic == ZYDIS_MNEMONIC_SYSCALL && instruction.length == 2 ? kSyscall : kUnmovable;
    case ZYDIS_CATEGORY_COND_BR:
      // JRCXZ and LOOP have no long form; prefixes would be lost.
      return instruction.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT
                 ? (instruction.opcode >= 0x70 && instruction.opcode <= 0x7f && instruction.length == 2 ? kBranch : kUnmovable)
                 : (instruction.length == 6 ? kBranch : kUnmovable);
    case ZYDIS_CATEGORY_UNCOND_BR:
      return (instruction.opcode == 0xeb && instruction.length == 2) || (instruction.opcode == 0xe9 && instruction.length == 5) ? kBranch
                                                                                                                                : kUnmovable;
    case ZYDIS_CATEGORY_RET: return instruction.mnemonic == ZYDIS_MNEMONIC_RET && instruction.length == 1 ? kReturn : kUnmovable;
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_CET:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP: return kUnmovable;
    default:
      switch (instruction.mnemonic) {
        case ZYDIS_MNEMONIC_UD0:
        case ZYDIS_MNEMONIC_UD1:
        case ZYDIS_MNEMONIC_UD2:
        case ZYDIS_MNEMONIC_XBEGIN:
        case ZYDIS_MNEMONIC_HLT:
        case ZYDIS_MNEMONIC_LEAVE:
        case ZYDIS_MNEMONIC_ENTER: return kUnmovable;
        default: return kPlain;
      }
  }
}

std::optional<ZydisDecodedInstruction> decode_at(const ElfView& elf, u64 address) {
  for (u64 size = ZYDIS_MAX_INSTRUCTION_LENGTH; size > 0; --size) {  // fewer bytes at the end of a segment
    auto code = elf.at_address(address, size);
    if (!code) continue;
    return decode_instruction(*code);
  }
  return std::nullopt;
}
u64 decoded_length(const ElfView& elf, u64 address) {
  auto decoded = decode_at(elf, address);
  return decoded ? decoded->length : 0;
}
// The length of an instruction that goes on to the one behind it (if only when a condition is false), else 0.
u64 goes_on(const ElfView& elf, u64 address) {
  auto decoded = decode_at(elf, address);
  if (!decoded) return 0;
  switch (decoded->meta.category) {
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SYSRET: return 0;
    default: break;
  }
  bool stops = decoded->mnemonic == ZYDIS_MNEMONIC_HLT || decoded->mnemonic == ZYDIS_MNEMONIC_UD2;
  return stops ? 0 : decoded->length;
}

bool is_rip_lea(const ZydisDecodedInstruction& instruction) {
  return instruction.mnemonic == ZYDIS_MNEMONIC_LEA && instruction.raw.modrm.mod == 0 && instruction.raw.modrm.rm == 5 &&
         instruction.address_width == 64;
}

}  // namespace

TargetSet::TargetSet(const ElfView& elf) {
  for (const auto& segment : elf.segments()) {
    if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X)) {
      ranges_.push_back({segment.p_vaddr, std::vector<bool>(segment.p_filesz)});
    }
  }
}

void TargetSet::add(u64 address) {
  for (auto& range : ranges_) {
    if (address - range.start < range.bits.size()) range.bits[address - range.start] = true;
  }
}

bool TargetSet::contains(u64 address) const {
  for (const auto& range : ranges_) {
    if (address - range.start < range.bits.size() && range.bits[address - range.start]) return true;
  }
  return false;
}

bool TargetSet::any(u64 start, u64 end) const {
  for (u64 address = start; address < end; ++address) {
    if (contains(address)) return true;
  }
  return false;
}

CodeMap::CodeMap(const ElfView& elf) : elf_(elf), unwind_(read_unwind_table(elf)), targets_(elf) {
  add_unwind_functions();
  add_symbols();
  add_go_functions();
  add_unfinished_functions();
  targets_.add(elf.header().e_entry);
}

void CodeMap::add_unwind_functions() {
  std::vector<Function> more;
  for (const auto& entry : unwind_.entries) {
    // Unwinders look up (return address - 1), so the entry of a signal return begins one byte before its code.
    u64 start = entry.start + (entry.signal_frame ? 1 : 0);
    if (!elf_.is_executable(start) || start >= entry.end || !elf_.at_address(start, entry.end - start)) continue;
    more.push_back({start, entry.end, &entry});
    targets_.add(start);
  }
  add_functions(std::move(more));
}

void CodeMap::add_symbols() {
  std::vector<Function> more;
  for (const auto& symbol : elf_.symbols()) {
    if (symbol.type == STT_TLS || symbol.type == STT_SECTION || symbol.type == STT_FILE) continue;
    targets_.add(symbol.value);
    u64 end;
    if (symbol.type != STT_FUNC || symbol.size == 0 || !checked_add(symbol.value, symbol.size, &end)) continue;
    if (!elf_.is_executable(symbol.value) || !elf_.at_address(symbol.value, symbol.size)) continue;
    // Hand-written functions may end their unwind entry early (glibc's clone): the rest is known from the symbol.
    const Function* known = function_at(symbol.value);
    u64 start = known ? known->end : symbol.value;
    if (start < end && !function_at(start)) more.push_back({start, end, nullptr});
  }
  add_functions(std::move(more));
}

// Go's linker leaves its own function table also in stripped files: runtime/symtab.go, type pcHeader.
void CodeMap::add_go_functions() {
  const Elf64_Shdr* section = elf_.section(".gopclntab");
  auto table = section ? elf_.contents(*section) : std::nullopt;
  if (!table) return;
  u32 magic = read_at<u32>(*table, 0).value_or(0);
  u64 count = read_at<u64>(*table, 8).value_or(0), text = read_at<u64>(*table, 24).value_or(0);
  u64 functions_at = read_at<u64>(*table, 64).value_or(0);
  if ((magic != 0xfffffff0 && magic != 0xfffffff1) || !elf_.is_executable(text)) return;
  std::vector<Function> more;
  for (u64 i = 0; i < count; ++i) {
    u64 entry;
    if (!checked_add(functions_at, i * 8, &entry)) return;
    auto start = read_at<u32>(*table, entry), end = read_at<u32>(*table, entry + 8);
    if (!start || !end) return;
    targets_.add(text + *start);
    bool usable = *start < *end && elf_.at_address(text + *start, *end - *start);
    if (usable && !function_at(text + *start)) more.push_back({text + *start, text + *end, nullptr});
  }
  add_functions(std::move(more));
}

// glibc's clone3 ends its unwind entry before the system call, and in a stripped file no symbol knows the rest. But where the last
// instruction of an entry goes on to the next, what follows is code, up to the first instruction that does not go on.
void CodeMap::add_unfinished_functions() {
  std::vector<Function> more;
  for (size_t i = 0; i + 1 < functions_.size(); ++i) {
    const Function& function = functions_[i];
    u64 gap = functions_[i + 1].start - function.end;
    if (function.unwind == nullptr || functions_[i + 1].start <= function.end || gap > kGapMax) continue;
    auto bytes = elf_.at_address(function.end, gap);
    constexpr u8 kSyscallBytes[] = {0x0f, 0x05};
    if (!bytes || std::search(bytes->begin(), bytes->end(), std::begin(kSyscallBytes), std::end(kSyscallBytes)) == bytes->end()) continue;
    const DecodedFunction& known = decode(function);
    if (!known.problem.empty() || known.instructions.empty() || known.instructions.back().end() != function.end) continue;
    if (!goes_on(elf_, known.instructions.back().address)) continue;
    u64 end = function.end, limit = function.end + gap;
    for (u64 length = 1; length != 0 && end < limit; end += length) length = goes_on(elf_, end);
    end += decoded_length(elf_, end);  // the instruction that does not go on belongs to it
    if (end <= limit) more.push_back({function.end, end, nullptr});
  }
  add_functions(std::move(more));
}

void CodeMap::add_functions(std::vector<Function> more) {
  functions_.insert(functions_.end(), more.begin(), more.end());
  std::stable_sort(functions_.begin(), functions_.end(),
                   [](const Function& a, const Function& b) { return a.start != b.start ? a.start < b.start : a.end < b.end; });
}

const Function* CodeMap::function_at(u64 address) const {
  auto after =
      std::upper_bound(functions_.begin(), functions_.end(), address, [](u64 value, const Function& function) { return value < function.start; });
  if (after == functions_.begin()) return nullptr;
  const Function& function = *std::prev(after);
  return address < function.end ? &function : nullptr;
}

const DecodedFunction& CodeMap::decode(const Function& function) {
  auto known = decoded_.find(function.start);
  if (known == decoded_.end()) known = decoded_.emplace(function.start, decode_new(function)).first;
  return known->second;
}

DecodedFunction CodeMap::decode_new(const Function& function) {
  DecodedFunction result;
  Bytes code = *elf_.at_address(function.start, function.end - function.start);
  decoded_bytes_ += code.size();
  if (decoded_bytes_ > kDecodeEffort * elf_.bytes().size()) return {{}, "the file's functions overlap too much"};
  std::vector<u64> tables;
  bool indirect = false;
  for (u64 offset = 0; offset < code.size();) {
    const auto found = decode_instruction(code.subspan(offset));
    if (!found) {
      result.problem = "the function holds bytes that are no instructions";
      break;
    }
    const ZydisDecodedInstruction& decoded = *found;
    Instruction instruction{function.start + offset, decoded.length, classify(decoded)};
    result.instructions.push_back(instruction);
    if (is_direct_branch(decoded)) targets_.add(instruction.end() + decoded.raw.imm[0].value.u);
    if (decoded.mnemonic == ZYDIS_MNEMONIC_CALL) targets_.add(instruction.end());
    if (decoded.mnemonic == ZYDIS_MNEMONIC_JMP && !is_direct_branch(decoded)) indirect = true;
    if (is_rip_lea(decoded)) tables.push_back(instruction.end() + static_cast<u64>(decoded.raw.disp.value));
    offset += decoded.length;
  }
  if (indirect) {
    for (u64 table : tables) {
      add_jump_table(table);
      // Code that computes addresses inside itself (old string functions do): any byte may be a target.
      if (table > function.start && table < function.end) result.problem = "the function computes jumps into itself";
    }
  }
  std::vector<u64> pads;
  if (function.unwind && !read_landing_pads(elf_, *function.unwind, pads)) {
    result.problem = "the function's exception table cannot be read";
  }
  for (u64 pad : pads) targets_.add(pad);
  return result;
}

// A table of 32-bit distances from its own start, as compilers make for `switch`. Its length is not known, so it is
// taken to go on as long as its entries point at code: too many targets do no harm.
void CodeMap::add_jump_table(u64 address) {
  for (u64 i = 0; i < kJumpTableMax; ++i) {
    auto entry = elf_.at_address(address + 4 * i, 4);
    if (!entry) return;
    u64 target = address + static_cast<u64>(i64{*read_at<int32_t>(*entry, 0)});
    if (!elf_.is_executable(target)) return;
    targets_.add(target);
  }
}

void CodeMap::add_short_jumps(u64 start, u64 end) {
  u64 first = start < 130 ? 0 : start - 130, last = end + 130;
  for (u64 address = first; address < last;) {
    const Function* function = function_at(address);
    if (function && decode(*function).problem.empty()) {
      address = function->end;
      continue;
    }
    if (auto bytes = elf_.at_address(address, 2)) {
      u8 opcode = (*bytes)[0];
      bool jump = opcode == 0xeb || (opcode & 0xf0) == 0x70 || (opcode & 0xfc) == 0xe0;
      if (jump) targets_.add(address + 2 + static_cast<u64>(i64{static_cast<signed char>((*bytes)[1])}));
    }
    ++address;
  }
}

void CodeMap::scan_everything(const TargetSet& interesting) {
  for (const auto& segment : elf_.segments()) {
    if (segment.p_type != PT_LOAD) continue;
    if (segment.p_flags & PF_X) scan_code(segment, interesting);
    scan_words(segment, interesting);
  }
}

// Every byte that could be the opcode of a near jump, call or LEA with a 32-bit distance is taken for one.
void CodeMap::scan_code(const Elf64_Phdr& segment, const TargetSet& interesting) {
  Bytes code = elf_.contents(segment);
  bool fixed_address = elf_.header().e_type == ET_EXEC;
  for (u64 offset = 1; offset + 4 <= code.size(); ++offset) {
    u8 opcode = code[offset - 1];
    u8 before = offset >= 2 ? code[offset - 2] : u8{0};
    bool near = (opcode & 0xfe) == 0xe8 || ((opcode & 0xf0) == 0x80 && before == 0x0f) || ((opcode & 0xc7) == 0x05 && before == 0x8d) ||
                (opcode == 0xf8 && before == 0xc7);
    if (!near && !fixed_address) continue;
    u32 raw;
    memcpy(&raw, code.data() + offset, sizeof(raw));
    u64 relative = segment.p_vaddr + offset + 4 + static_cast<u64>(i64{static_cast<int32_t>(raw)});
    if (near && interesting.contains(relative)) targets_.add(relative);
    if (fixed_address && interesting.contains(raw)) targets_.add(raw);
  }
}

// Function pointers, address tables and the addends of relocations are all aligned words of the file.
void CodeMap::scan_words(const Elf64_Phdr& segment, const TargetSet& interesting) {
  Bytes data = elf_.contents(segment);
  for (u64 offset = 0; offset + 8 <= data.size(); offset += 4) {
    u64 word;
    memcpy(&word, data.data() + offset, sizeof(word));
    if (interesting.contains(word)) targets_.add(word);
  }
}

}  // namespace husk::image
