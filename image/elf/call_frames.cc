// See call_frames.h.
#include "image/elf/call_frames.h"

#include <vector>

namespace husk::image {
namespace {

// A hostile file must not keep us long; real ones stay far below.
constexpr size_t kRecordsMax = 1 << 18, kCieMax = 256;  // of .eh_frame that a walk looks at
constexpr size_t kInstructionsMax = 256 * kKiB, kRowsMax = 32;
constexpr u8 kSearchable = 0x3b;  // table of 32-bit distances from the start of .eh_frame_hdr

// --- finding ------------------------------------------------------------------------------------------------------------

struct Record {
  Bytes body;        // behind the length
  u64 address, end;  // of the body
};

std::optional<Record> record_at(const ElfView& elf, u64 address) {
  auto bytes = elf.from_address(address);
  auto record = bytes ? eh_record_at(*bytes, 0) : std::nullopt;
  if (!record) return std::nullopt;
  return Record{record->body, address + record->start, address + record->end};
}

// Nothing if it is a CIE or damaged.
std::optional<CallFrame> frame_of(const ElfView& elf, const Record& record) {
  u32 distance = read_at<u32>(record.body, 0).value_or(0);
  auto cie_record = distance != 0 ? record_at(elf, record.address - distance) : std::nullopt;
  if (!cie_record || cie_record->body.size() > kCieMax || read_at<u32>(cie_record->body, 0) != 0u) return std::nullopt;
  CallFrame frame{parse_cie(cie_record->body, cie_record->address), {}};
  auto fde = frame.cie.understood ? parse_fde(record.body, record.address, frame.cie) : std::nullopt;
  if (!fde) return std::nullopt;
  frame.fde = *fde;
  return frame;
}

bool covers(const std::optional<CallFrame>& frame, u64 address) { return frame && frame->fde.start <= address && address < frame->fde.end; }

struct SearchTable {
  u64 address, eh_frame = 0;
  Bytes entries;  // pairs of i32: function, FDE; sorted
};

std::optional<SearchTable> search_table(const ElfView& elf) {
  const Elf64_Phdr* segment = elf.segment(PT_GNU_EH_FRAME);
  auto bytes = segment ? elf.from_address(segment->p_vaddr) : std::nullopt;
  if (!bytes) return std::nullopt;
  DwarfCursor cursor(*bytes, segment->p_vaddr);
  u8 version = cursor.get<u8>(), frame_encoding = cursor.get<u8>(), count_encoding = cursor.get<u8>(), table_encoding = cursor.get<u8>();
  SearchTable table{segment->p_vaddr, 0, {}};
  if (version != 1 || frame_encoding == kPointerOmitted) return std::nullopt;
  table.eh_frame = cursor.pointer(frame_encoding);
  if (!cursor.ok()) return std::nullopt;
  if (count_encoding == kPointerOmitted || table_encoding != kSearchable) return table;
  u64 count = cursor.pointer(count_encoding);
  if (cursor.ok() && count <= cursor.rest().size() / 8) table.entries = cursor.rest().first(count * 8);
  return table;
}

std::optional<CallFrame> search(const ElfView& elf, const SearchTable& table, u64 address) {
  auto value = [&](u64 index, u64 field) { return table.address + static_cast<u64>(i64{*read_at<i32>(table.entries, index * 8 + field)}); };
  u64 low = 0, high = table.entries.size() / 8;  // entries below `low` start at or before the address
  while (low < high) {
    u64 middle = low + (high - low) / 2;
    if (value(middle, 0) <= address) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  auto record = low > 0 ? record_at(elf, value(low - 1, 4)) : std::nullopt;
  return record ? frame_of(elf, *record) : std::nullopt;
}

// A section may have terminators between the parts of several objects; without one the first ends the walk.
constexpr u64 kToTerminator = ~u64{0};

std::optional<CallFrame> walk(const ElfView& elf, u64 start, u64 end, u64 address) {
  for (size_t i = 0; i < kRecordsMax && start < end; ++i) {
    auto record = record_at(elf, start);
    if (!record || record->end <= start || (record->body.empty() && end == kToTerminator)) return std::nullopt;
    auto frame = frame_of(elf, *record);
    if (covers(frame, address)) return frame;
    start = record->end;
  }
  return std::nullopt;
}

// --- what the instructions say -------------------------------------------------------------------------------------------

struct Rule {
  enum class Kind : u8 { same, undefined, saved, is_distance, in_register, saved_at_expression, is_expression } kind = Kind::same;
  u64 value = 0;  // distance from the CFA, or a register
  Bytes expression;
};
struct Row {
  u64 cfa_register = kDwarfRegisters, cfa_distance = 0;
  std::optional<Bytes> cfa_expression;
  std::array<Rule, kDwarfRegisters> rules;
};

class Interpreter {
 public:
  Interpreter(const CallFrame& frame, u64 target) : frame_(frame), target_(target), location_(frame.fde.start) {}
  std::optional<Row> run() {
    if (!execute(frame_.cie.instructions)) return std::nullopt;
    initial_ = row_;
    location_ = frame_.fde.start;
    if (!execute(frame_.fde.instructions)) return std::nullopt;
    return row_;
  }

 private:
  bool execute(Bytes instructions);
  bool step(DwarfCursor& cursor, u8 instruction);
  bool other(DwarfCursor& cursor, u8 instruction);
  u64 scaled(u64 value) const { return value * static_cast<u64>(frame_.cie.data_factor); }
  void set(u64 number, Rule::Kind kind, u64 value = 0, Bytes expression = {}) {
    if (number < kDwarfRegisters) row_.rules[number] = {kind, value, expression};  // vector registers do not lead to a caller
  }
  void restore(u64 number) {
    if (number < kDwarfRegisters) row_.rules[number] = initial_.rules[number];
  }
  void set_cfa(u64 number, u64 distance) { row_.cfa_register = number, row_.cfa_distance = distance, row_.cfa_expression.reset(); }
  void advance(u64 count) { location_ += count * frame_.cie.code_factor; }
  static Bytes block(DwarfCursor& cursor) {
    u64 size = cursor.uleb();
    Bytes rest = cursor.rest();
    cursor.skip(size);
    return cursor.ok() ? rest.first(size) : Bytes();
  }

  const CallFrame& frame_;
  u64 target_, location_;
  Row row_, initial_;
  std::vector<Row> remembered_;
};

bool Interpreter::execute(Bytes instructions) {
  if (instructions.size() > kInstructionsMax) return false;
  for (DwarfCursor cursor(instructions, 0); !cursor.at_end() && location_ <= target_;) {
    if (!step(cursor, cursor.get<u8>()) || !cursor.ok()) return false;
  }
  return true;
}

// DWARF 5 §7.24.
bool Interpreter::step(DwarfCursor& cursor, u8 instruction) {
  u8 operand = instruction & 0x3f;
  switch (instruction & 0xc0) {
    case 0x40: advance(operand); return true;
    case 0x80: set(operand, Rule::Kind::saved, scaled(cursor.uleb())); return true;
    case 0xc0: restore(operand); return true;
    default: return other(cursor, instruction);
  }
}

bool Interpreter::other(DwarfCursor& cursor, u8 instruction) {
  auto number = [&] { return cursor.uleb(); };
  auto signed_scaled = [&] { return scaled(static_cast<u64>(cursor.sleb())); };
  u64 target = 0;
  switch (instruction) {
    case 0x00: return true;
    case 0x02: advance(cursor.get<u8>()); return true;
    case 0x03: advance(cursor.get<u16>()); return true;
    case 0x04: advance(cursor.get<u32>()); return true;
    case 0x05: target = number(), set(target, Rule::Kind::saved, scaled(cursor.uleb())); return true;
    case 0x06: restore(number()); return true;
    case 0x07: set(number(), Rule::Kind::undefined); return true;
    case 0x08: set(number(), Rule::Kind::same); return true;
    case 0x09: target = number(), set(target, Rule::Kind::in_register, cursor.uleb()); return true;
    case 0x0a: remembered_.push_back(row_); return remembered_.size() <= kRowsMax;
    case 0x0b:
      if (remembered_.empty()) return false;
      row_ = remembered_.back();
      remembered_.pop_back();
      return true;
    case 0x0c: target = number(), set_cfa(target, cursor.uleb()); return true;
    case 0x0d: set_cfa(number(), row_.cfa_distance); return true;
    case 0x0e: set_cfa(row_.cfa_register, cursor.uleb()); return true;
    case 0x0f: row_.cfa_expression = block(cursor); return true;
    case 0x10: target = number(), set(target, Rule::Kind::saved_at_expression, 0, block(cursor)); return true;
    case 0x11: target = number(), set(target, Rule::Kind::saved, signed_scaled()); return true;
    case 0x12: target = number(), set_cfa(target, signed_scaled()); return true;
    case 0x13: set_cfa(row_.cfa_register, signed_scaled()); return true;
    case 0x14: target = number(), set(target, Rule::Kind::is_distance, scaled(cursor.uleb())); return true;
    case 0x15: target = number(), set(target, Rule::Kind::is_distance, signed_scaled()); return true;
    case 0x16: target = number(), set(target, Rule::Kind::is_expression, 0, block(cursor)); return true;
    case 0x2e: cursor.uleb(); return true;  // GNU_args_size: of the arguments on the stack, for landing pads
    default: return false;                  // 0x01, set_loc, too: no compiler writes it here
  }
}

std::optional<u64> register_value(const DwarfRegisters& registers, u64 number) { return number < kDwarfRegisters ? registers[number] : std::nullopt; }

std::optional<u64> value_of(const Rule& rule, unsigned number, u64 cfa, const DwarfRegisters& registers, const ReadWord& read) {
  switch (rule.kind) {
    case Rule::Kind::same: return registers[number];
    case Rule::Kind::undefined: return std::nullopt;
    case Rule::Kind::saved: return read(cfa + rule.value);
    case Rule::Kind::is_distance: return cfa + rule.value;
    case Rule::Kind::in_register: return register_value(registers, rule.value);
    case Rule::Kind::saved_at_expression: {
      auto address = evaluate(rule.expression, registers, cfa, read);
      return address ? read(*address) : std::nullopt;
    }
    case Rule::Kind::is_expression: return evaluate(rule.expression, registers, cfa, read);
  }
  return std::nullopt;
}

}  // namespace

std::optional<CallFrame> find_call_frame(const ElfView& elf, u64 address) {
  std::optional<CallFrame> frame;
  auto table = search_table(elf);
  const Elf64_Shdr* section = elf.section(".eh_frame");
  if (table && !table->entries.empty()) {
    frame = search(elf, *table, address);
  } else if (section) {
    u64 end;
    if (checked_add(section->sh_addr, section->sh_size, &end)) frame = walk(elf, section->sh_addr, end, address);
  } else if (table) {
    frame = walk(elf, table->eh_frame, kToTerminator, address);
  }
  return covers(frame, address) ? frame : std::nullopt;
}

std::optional<DwarfRegisters> caller_registers(const CallFrame& frame, u64 address, const DwarfRegisters& registers, const ReadWord& read) {
  if (frame.cie.return_register != kDwarfRip) return std::nullopt;
  auto row = Interpreter(frame, address).run();
  if (!row) return std::nullopt;
  std::optional<u64> cfa;
  if (row->cfa_expression) {
    cfa = evaluate(*row->cfa_expression, registers, std::nullopt, read);
  } else if (auto base = register_value(registers, row->cfa_register)) {
    cfa = *base + row->cfa_distance;
  }
  if (!cfa) return std::nullopt;
  DwarfRegisters caller;
  for (unsigned i = 0; i < kDwarfRegisters; ++i) caller[i] = value_of(row->rules[i], i, *cfa, registers, read);
  // The stack pointer is the CFA, unless a rule says otherwise (signal trampolines). No rule for the return address: none is known.
  if (row->rules[kDwarfRsp].kind == Rule::Kind::same) caller[kDwarfRsp] = cfa;
  const Rule& back = row->rules[kDwarfRip];
  if (back.kind == Rule::Kind::same || (back.kind != Rule::Kind::undefined && !caller[kDwarfRip])) return std::nullopt;
  return caller;
}

}  // namespace husk::image
