// Call frame instructions made by hand: each form that compilers and the C library use, and those that a hostile file may have.
#include "image/elf/call_frames.h"

#include <gtest/gtest.h>

namespace husk::image {
namespace {

using Code = std::vector<u8>;
constexpr u64 kStack = 0x7000, kStart = 0x1000;

std::optional<u64> word(u64 address) {
  // The word at kStack + n is 0x100 + n.
  if (address < kStack || address >= kStack + 0x200) return std::nullopt;
  return 0x100 + (address - kStack);
}

DwarfRegisters registers() {
  DwarfRegisters result;
  for (unsigned i = 0; i < kDwarfRegisters; ++i) result[i] = 0x9000 + i;
  result[kDwarfRsp] = kStack;
  result[kDwarfRbp] = kStack + 0x40;
  return result;
}

// At the start of a function: CFA = rsp + 8, the return address below it.
const Code kUsual = {0x0c, 7, 8, 0x90, 1};

std::optional<DwarfRegisters> run(const Code& common, const Code& own, u64 distance) {
  CallFrame frame;
  frame.cie.code_factor = 1, frame.cie.data_factor = -8, frame.cie.return_register = 16, frame.cie.instructions = common;
  frame.fde.start = kStart, frame.fde.end = kStart + 0x1000, frame.fde.instructions = own;
  return caller_registers(frame, kStart + distance, registers(), word);
}

std::optional<u64> value(const Code& expression) { return evaluate(expression, registers(), std::nullopt, word); }

TEST(CallFrames, rows_apply_from_their_address_on) {
  // push %rbp; sub $24,%rsp; …; a tail that has undone both
  const Code own = {0x41, 0x0e, 16, 0x86, 2, 0x44, 0x0e, 40, 0x50, 0x0a, 0x0e, 8, 0xc6, 0x42, 0x0b, 0x00};
  struct {
    u64 at, stack_pointer, back, rbp;
  } rows[] = {{0, 8, 0x100, kStack + 0x40}, {1, 16, 0x108, 0x100},         {4, 16, 0x108, 0x100},         {5, 40, 0x120, 0x118},
              {20, 40, 0x120, 0x118},       {21, 8, 0x100, kStack + 0x40}, {22, 8, 0x100, kStack + 0x40}, {23, 40, 0x120, 0x118}};
  for (const auto& row : rows) {
    auto caller = run(kUsual, own, row.at);
    ASSERT_TRUE(caller) << row.at;
    EXPECT_EQ(caller->at(kDwarfRsp), kStack + row.stack_pointer) << row.at;
    EXPECT_EQ(caller->at(kDwarfRip), row.back) << row.at;
    EXPECT_EQ(caller->at(kDwarfRbp), row.rbp) << row.at;
  }
}

TEST(CallFrames, every_kind_of_rule) {
  const Code common = {0x0c, 7, 16, 0x90, 1};
  auto at = [&](const Code& own, unsigned number) { return run(common, own, 0)->at(number); };
  EXPECT_EQ(at({0x07, 3}, 3), std::nullopt);
  EXPECT_EQ(at({0x08, 3}, 3), 0x9003u);
  EXPECT_EQ(at({0x09, 3, 12}, 3), 0x900cu);
  EXPECT_EQ(at({0x05, 3, 2}, 3), 0x100u);
  EXPECT_EQ(at({0x11, 3, 0x7e}, 3), 0x120u);  // -2 × -8
  EXPECT_EQ(at({0x14, 3, 1}, 3), kStack + 8);
  EXPECT_EQ(at({0x15, 3, 0x7f}, 3), kStack + 24);
  EXPECT_EQ(at({0x10, 3, 2, 0x77, 8}, 3), 0x108u);       // at rsp + 8
  EXPECT_EQ(at({0x16, 3, 2, 0x23, 1}, 3), kStack + 17);  // the CFA is on the expression's stack
  EXPECT_EQ(at({0x16, 7, 2, 0x77, 32}, kDwarfRsp), kStack + 32);
  EXPECT_EQ(at({0x12, 6, 0x7f}, kDwarfRsp), kStack + 0x48);  // CFA = rbp - 1 × -8
  EXPECT_EQ(at({0x0d, 6}, kDwarfRsp), kStack + 0x50);
  EXPECT_EQ(at({0x13, 0x7d}, kDwarfRsp), kStack + 24);
  EXPECT_EQ(at({0x0f, 2, 0x77, 0x30}, kDwarfRsp), kStack + 48);
}

TEST(CallFrames, outermost_function_has_no_caller) {
  auto caller = run({0x0c, 7, 8, 0x07, 16}, {}, 0);
  ASSERT_TRUE(caller);
  EXPECT_EQ(caller->at(kDwarfRip), std::nullopt);
}

TEST(CallFrames, what_is_not_known_gives_nothing) {
  EXPECT_FALSE(run({}, {}, 0));                           // no CFA
  EXPECT_FALSE(run({0x0c, 7, 8}, {}, 0));                 // no rule for the return address
  EXPECT_FALSE(run({0x0c, 40, 8, 0x90, 1}, {}, 0));       // a register that there is not
  EXPECT_FALSE(run({0x0c, 7, 8, 0x90, 0x80, 1}, {}, 0));  // the return address lies outside the known stack
  EXPECT_FALSE(run(kUsual, {0x0b}, 0));                   // nothing to restore
  EXPECT_FALSE(run(kUsual, {0x3f}, 0));                   // no such instruction
  EXPECT_FALSE(run(kUsual, {0x10, 3, 0x7f, 0}, 0));       // an expression longer than the entry
  EXPECT_FALSE(run(kUsual, {0x0e}, 0));                   // cut
  EXPECT_FALSE(run(kUsual, Code(100, 0x0a), 0));          // remembers without end
  EXPECT_FALSE(run(kUsual, Code(kMiB), 0));
}

TEST(DwarfExpression, plt_entry) {
  // CFA = rsp + 8 + ((rip & 15) >= 11) * 8, as linkers write it for .plt
  for (u64 low : {u64{10}, u64{11}}) {
    DwarfRegisters state = registers();
    state[kDwarfRip] = 0x4010 + low;
    EXPECT_EQ(evaluate(Code{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}, state, std::nullopt, word), kStack + (low >= 11 ? 16 : 8));
  }
}

TEST(DwarfExpression, operations) {
  EXPECT_EQ(value({0x09, 0xff}), ~u64{0});
  EXPECT_EQ(value({0x0b, 0xfe, 0xff}), ~u64{1});
  EXPECT_EQ(value({0x11, 0x7c}), ~u64{3});
  EXPECT_EQ(value({0x35, 0x33, 0x1c}), 2u);
  EXPECT_EQ(value({0x35, 0x33, 0x16, 0x1c}), ~u64{1});
  EXPECT_EQ(value({0x31, 0x08, 200, 0x24}), 0u);  // shifted by more than there is
  EXPECT_EQ(value({0x09, 0x80, 0x08, 200, 0x26}), ~u64{0});
  EXPECT_EQ(value({0x31, 0x32, 0x15, 1}), 1u);           // pick
  EXPECT_EQ(value({0x31, 0x28, 1, 0, 0x96, 0x35}), 5u);  // bra over a nop
  EXPECT_EQ(value({0x2f, 1, 0, 0x06, 0x35}), 5u);        // skip over a deref
}

TEST(DwarfExpression, hostile_ones_end) {
  EXPECT_EQ(value({0x2f, 0xfd, 0xff}), std::nullopt);        // jumps to itself
  EXPECT_EQ(value({0x30, 0x2f, 0xfc, 0xff}), std::nullopt);  // and pushes
  EXPECT_EQ(value({0x2f, 0x00, 0x80}), std::nullopt);        // before the start
  EXPECT_EQ(value({0x2f, 0xff, 0x7f}), std::nullopt);        // behind the end
  EXPECT_EQ(value({0x22}), std::nullopt);                    // nothing on the stack
  EXPECT_EQ(value({}), std::nullopt);
  EXPECT_EQ(value({0x30, 0x06}), std::nullopt);        // reads what is not known
  EXPECT_EQ(value({0x0e, 1, 2}), std::nullopt);        // cut
  EXPECT_EQ(value({0x31, 0x31, 0x1b}), std::nullopt);  // no compiler divides here
  EXPECT_EQ(value({0x30, 0x15, 9}), std::nullopt);
  EXPECT_EQ(value(Code(100, 0x30)), std::nullopt);  // more than the stack holds
}

// --- finding -----------------------------------------------------------------------------------------------------------------

// An ELF file whose one segment has, from 0x1000 on, .eh_frame with two functions, and before it a search table.
class Tables {
 public:
  static constexpr u64 kFrames = 0x200, kHeader = 0x180;
  explicit Tables(u8 table_encoding) : file_(0x1000) {
    Elf64_Ehdr header = {};
    memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64, header.e_ident[EI_DATA] = ELFDATA2LSB, header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_DYN, header.e_machine = EM_X86_64, header.e_version = EV_CURRENT;
    header.e_phoff = sizeof(header), header.e_ehsize = sizeof(header), header.e_phentsize = sizeof(Elf64_Phdr), header.e_phnum = 2;
    write_at(file_, 0, header);
    write_at(file_, sizeof(header), Elf64_Phdr{PT_LOAD, PF_R | PF_X, 0, 0, 0, 0x1000, 0x1000, 0x1000});
    write_at(file_, sizeof(header) + sizeof(Elf64_Phdr), Elf64_Phdr{PT_GNU_EH_FRAME, PF_R, kHeader, kHeader, kHeader, 0x20, 0x20, 4});
    put(kFrames, {20, 0, 0, 0, 0, 0, 0, 0, 1, 'z', 'R', 'S', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0});
    frame(kFrames + 24, 0x400, 0x10);
    frame(kFrames + 48, 0x500, 0x20);
    put(kHeader, {1, 0x1b, 0x03, table_encoding});
    put32(kHeader + 4, kFrames - (kHeader + 4));
    put32(kHeader + 8, 2);
    put32(kHeader + 12, 0x400 - kHeader), put32(kHeader + 16, kFrames + 24 - kHeader);
    put32(kHeader + 20, 0x500 - kHeader), put32(kHeader + 24, kFrames + 48 - kHeader);
  }
  void put(u64 at, const Code& bytes) { std::copy(bytes.begin(), bytes.end(), file_.begin() + static_cast<ptrdiff_t>(at)); }
  void put32(u64 at, u64 number) { write_at(file_, at, static_cast<u32>(number)); }
  std::vector<u8>& bytes() { return file_; }
  u64 found(u64 address) const {
    auto frame = find_call_frame(ElfView::parse(file_, "test"), address);
    return frame ? frame->fde.start : 0;
  }

 private:
  void frame(u64 at, u64 start, u64 size) {
    put32(at, 20), put32(at + 4, at + 4 - kFrames), put32(at + 8, start - (at + 8)), put32(at + 12, size);
    put(at + 16, {0, 0x44, 0x0e, 16, 0, 0, 0, 0});
  }
  std::vector<u8> file_;
};

TEST(CallFrames, functions_are_found_by_search_and_by_walk) {
  for (u8 encoding : {u8{0x3b}, u8{0xff}}) {
    Tables tables(encoding);
    EXPECT_EQ(tables.found(0x3ff), 0u);
    EXPECT_EQ(tables.found(0x400), 0x400u);
    EXPECT_EQ(tables.found(0x40f), 0x400u);
    EXPECT_EQ(tables.found(0x410), 0u);
    EXPECT_EQ(tables.found(0x51f), 0x500u);
    EXPECT_EQ(tables.found(0x520), 0u);
    EXPECT_EQ(tables.found(~u64{0}), 0u);
    ElfView elf = ElfView::parse(tables.bytes(), "test");
    auto frame = find_call_frame(elf, 0x505);
    ASSERT_TRUE(frame && frame->cie.signal_frame);
    EXPECT_EQ(caller_registers(*frame, 0x505, registers(), word)->at(kDwarfRsp), kStack + 16);
  }
}

TEST(CallFrames, damaged_tables_find_nothing_or_something_but_stay_inside) {
  for (u8 encoding : {u8{0x3b}, u8{0xff}}) {
    const Tables good(encoding);
    for (u64 at = Tables::kHeader; at < Tables::kFrames + 80; ++at) {
      for (u8 value : {u8{0}, u8{0x7f}, u8{0x80}, u8{0xff}}) {
        Tables bad = good;
        bad.bytes()[at] = value;
        ElfView elf = ElfView::parse(bad.bytes(), "test");
        for (u64 address : {u64{0x400}, u64{0x505}}) {
          if (auto frame = find_call_frame(elf, address)) caller_registers(*frame, address, registers(), word);
        }
      }
    }
  }
}

TEST(CallFrames, a_record_that_is_its_own_follower_ends) {
  Tables tables(0xff);
  tables.put32(Tables::kFrames + 24, 0xffffffff);
  write_at(tables.bytes(), Tables::kFrames + 28, ~u64{0} - 11);  // its end would be its start
  EXPECT_EQ(tables.found(0x505), 0u);
}

}  // namespace
}  // namespace husk::image
