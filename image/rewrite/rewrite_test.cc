// Crafted code: which windows are taken, what the trampolines hold, and what is left with which reason.
#include "image/rewrite/rewrite.h"

#include <gtest/gtest.h>

#include "image/test_elf.h"

namespace husk::image {
namespace {

using Code = std::vector<u8>;

// The rewritten file of one function at the start of the code.
struct Rewritten {
  explicit Rewritten(TestElf elf) {
    if (elf.functions.empty()) elf.functions = {{"f", 0, elf.code.size()}};
    if (elf.data.empty()) elf.data = {0};
    original = elf.build();
    result = rewrite_system_calls(ElfView::parse(original, "test"));
    if (!result.bytes.empty()) view.emplace(ElfView::parse(result.bytes, "rewritten"));
  }
  Code code(u64 offset, u64 size) const { return at(kTestCodeAddress + offset, size); }
  Code at(u64 address, u64 size) const {
    auto bytes = view->at_address(address, size);
    return bytes ? Code(bytes->begin(), bytes->end()) : Code{};
  }
  // Where the jump at an offset of the code leads.
  u64 jump_target(u64 offset) const {
    Code jump = code(offset, 5);
    EXPECT_EQ(jump[0], 0xe9);
    return kTestCodeAddress + offset + 5 + static_cast<u64>(i64{*read_at<int32_t>(jump, 1)});
  }
  // The return address that the trampoline loads; `lea` is its offset in the trampoline.
  u64 return_address(u64 trampoline, u64 lea) const {
    Code bytes = at(trampoline + lea, 15);
    EXPECT_EQ(Code(bytes.begin(), bytes.begin() + 3), (Code{0x48, 0x8d, 0x0d}));
    EXPECT_EQ(Code(bytes.begin() + 7, bytes.end()), (Code{0x65, 0xff, 0x24, 0x25, 0, 0, 0, 0}));
    return trampoline + lea + 7 + static_cast<u64>(i64{*read_at<int32_t>(bytes, 3)});
  }
  std::string reason() const { return result.report.left.empty() ? "" : result.report.left[0].reason; }

  std::vector<u8> original;
  RewriteResult result;
  std::optional<ElfView> view;
};

const Code kMovSyscallRet = {0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3};

TEST(Rewrite, mov_before_site_keeps_the_site_and_its_return_address) {
  Rewritten r({kMovSyscallRet, {}, {}});
  ASSERT_EQ(r.result.report.rewritten, std::vector<u64>{kTestCodeAddress + 5});
  u64 trampoline = r.jump_target(0);
  EXPECT_EQ(r.code(5, 3), (Code{0x0f, 0x05, 0xc3}));
  EXPECT_EQ(r.at(trampoline, 5), (Code{0xb8, 1, 0, 0, 0}));
  EXPECT_EQ(r.return_address(trampoline, 5), kTestCodeAddress + 7);
}

// The answer's offset in the kernel's page that the trampoline looks at first, after `mov`; 0: it does not.
u32 answer_slot(const Rewritten& r, u64 trampoline, u64 mov) {
  Code load = r.at(trampoline + mov, 9);
  return Code(load.begin(), load.begin() + 5) == Code{0x65, 0x48, 0x8b, 0x0c, 0x25} ? *read_at<u32>(load, 5) : 0;
}

TEST(Rewrite, a_call_whose_answer_is_known_asks_only_if_it_is_not) {
  Rewritten r({{0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}, {}, {}});  // getppid
  u64 trampoline = r.jump_target(0), at = trampoline + 5;
  EXPECT_EQ(answer_slot(r, trampoline, 5), 0x120u);
  Code jump = r.at(at + 9, 2);
  EXPECT_EQ(jump[0], 0xe3);  // jrcxz
  EXPECT_EQ(r.return_address(at + 11 + jump[1], 0), kTestCodeAddress + 7);
  EXPECT_EQ(r.at(at + 11, 4), (Code{0x48, 0x8d, 0x41, 0xff}));
  // count, return address, and back by a direct jump
  EXPECT_EQ(r.at(at + 15, 22), (Code{0x65, 0x48, 0x8b, 0x0c, 0x25, 0x10, 1, 0, 0, 0x48, 0x8d, 0x49, 1, 0x65, 0x48, 0x89, 0x0c, 0x25, 0x10, 1, 0, 0}));
  Code end = r.at(at + 37, 12);
  EXPECT_EQ(Code(end.begin(), end.begin() + 3), (Code{0x48, 0x8d, 0x0d}));
  EXPECT_EQ(at + 44 + static_cast<u64>(i64{*read_at<int32_t>(end, 3)}), kTestCodeAddress + 7);
  EXPECT_EQ(end[7], 0xe9);
  EXPECT_EQ(at + 49 + static_cast<u64>(i64{*read_at<int32_t>(end, 8)}), kTestCodeAddress + 7);
}

TEST(Rewrite, only_a_number_that_the_trampoline_loads_itself_has_an_answer) {
  for (u8 number : {39, 110, 102, 107, 104, 108}) {
    Rewritten known({{0xb8, number, 0, 0, 0, 0x0f, 0x05, 0xc3}, {}, {}});
    EXPECT_NE(answer_slot(known, known.jump_target(0), 5), 0u) << int{number};
  }
  Rewritten other({{0xb8, 1, 0, 0, 0, 0x0f, 0x05, 0xc3}, {}, {}});  // write
  EXPECT_EQ(other.return_address(other.jump_target(0), 5), kTestCodeAddress + 7);
  Rewritten above({{0xb8, 110, 1, 0, 0, 0x0f, 0x05, 0xc3}, {}, {}});
  EXPECT_EQ(answer_slot(above, above.jump_target(0), 5), 0u);
  Rewritten other_register({{0xbf, 110, 0, 0, 0, 0x0f, 0x05, 0xc3}, {}, {}});  // mov $110, %edi
  EXPECT_EQ(answer_slot(other_register, other_register.jump_target(0), 5), 0u);
  // jmp +5 (to the syscall); mov $110, %eax; syscall; test; ret: whoever jumps comes with any number
  Rewritten jumped({{0xeb, 0x05, 0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0x48, 0x85, 0xc0, 0xc3}, {}, {}});
  u64 trampoline = jumped.jump_target(7);
  EXPECT_EQ(jumped.at(jumped.return_address(trampoline, 0) - 2, 2), (Code{0x0f, 0x05}));
}

TEST(Rewrite, long_mov_leaves_traps_in_unused_bytes) {
  Rewritten r({{0x48, 0xc7, 0xc0, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}, {}, {}});
  ASSERT_EQ(r.result.report.rewritten.size(), 1u);
  EXPECT_EQ(r.code(5, 5), (Code{0xcc, 0xcc, 0x0f, 0x05, 0xc3}));
}

TEST(Rewrite, cpuid_becomes_a_call_that_returns_behind_it) {
  // mov $1, %eax; cpuid; ret
  Rewritten r({{0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0xc3}, {}, {}});
  EXPECT_EQ(r.result.report.cpuid_rewritten, 1u);
  EXPECT_TRUE(r.result.report.rewritten.empty());
  EXPECT_TRUE(r.result.report.left.empty());
  u64 trampoline = r.jump_target(0);
  EXPECT_EQ(r.code(5, 3), (Code{0x0f, 0xa2, 0xc3}));
  EXPECT_EQ(r.at(trampoline, 5), (Code{0xb8, 1, 0, 0, 0}));
  Code jump = r.at(trampoline + 5, 15);  // lea return(%rip), %rdx; jmp *%gs:0x78
  EXPECT_EQ(Code(jump.begin(), jump.begin() + 3), (Code{0x48, 0x8d, 0x15}));
  EXPECT_EQ(trampoline + 12 + static_cast<u64>(i64{*read_at<int32_t>(jump, 3)}), kTestCodeAddress + 7);
  EXPECT_EQ(Code(jump.begin() + 7, jump.end()), (Code{0x65, 0xff, 0x24, 0x25, 0x78, 0, 0, 0}));
}

TEST(Rewrite, following_instructions_move_behind_a_site_of_the_trampoline) {
  // syscall; cmp $-4095, %rax; jae +1; ret; ret  (Go)
  Rewritten r({{0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0x73, 0x01, 0xc3, 0xc3}, {}, {}});
  ASSERT_EQ(r.result.report.rewritten.size(), 1u);
  u64 trampoline = r.jump_target(0), back = r.return_address(trampoline, 0);
  EXPECT_EQ(r.at(back - 2, 8), (Code{0x0f, 0x05, 0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff}));
  EXPECT_EQ(r.code(8, 4), (Code{0x73, 0x01, 0xc3, 0xc3}));
}

TEST(Rewrite, restart_bytes_lie_before_every_return_address) {
  // mov %rdi, %rax; syscall; test; ret: the jump covers the syscall
  Rewritten r({{0x48, 0x89, 0xf8, 0x0f, 0x05, 0xc3}, {}, {}});
  ASSERT_EQ(r.result.report.rewritten.size(), 1u);
  u64 trampoline = r.jump_target(0), back = r.return_address(trampoline, 3);
  EXPECT_EQ(r.at(back - 2, 2), (Code{0x0f, 0x05}));
  Code jump = r.at(back, 5);
  EXPECT_EQ(back + 5 + static_cast<u64>(i64{*read_at<int32_t>(jump, 1)}), kTestCodeAddress + 5);
}

TEST(Rewrite, rip_relative_operand_is_made_to_fit) {
  // mov 0x100(%rip), %eax; syscall; ret
  Rewritten r({{0x8b, 0x05, 0x00, 0x01, 0, 0, 0x0f, 0x05, 0xc3}, {}, {}});
  ASSERT_EQ(r.result.report.rewritten.size(), 1u);
  u64 trampoline = r.jump_target(0);
  Code moved = r.at(trampoline, 6);
  EXPECT_EQ(trampoline + 6 + static_cast<u64>(i64{*read_at<int32_t>(moved, 2)}), kTestCodeAddress + 6 + 0x100);
}

TEST(Rewrite, branch_behind_site_is_made_long) {
  // syscall; test %rax,%rax; js +1; ret; ret
  Rewritten r({{0x0f, 0x05, 0x48, 0x85, 0xc0, 0x78, 0x01, 0xc3, 0xc3}, {}, {}});
  ASSERT_EQ(r.result.report.rewritten.size(), 1u);
  Rewritten branch({{0x0f, 0x05, 0x90, 0x78, 0x01, 0xc3, 0xc3}, {}, {}});
  ASSERT_EQ(branch.result.report.rewritten.size(), 1u);
  u64 back = branch.return_address(branch.jump_target(0), 0);
  Code moved = branch.at(back, 7);
  EXPECT_EQ(moved[1], 0x0f);
  EXPECT_EQ(moved[2], 0x88);
  EXPECT_EQ(back + 7 + static_cast<u64>(i64{*read_at<int32_t>(moved, 3)}), kTestCodeAddress + 6);
}

TEST(Rewrite, site_that_a_jump_leads_to_is_left) {
  // jmp to the mov's end + 0 (the syscall) would be served by the syscall that stays; one to inside the moved pair is not
  Code code = {0xeb, 0x03, 0x48, 0x89, 0xfe, 0x89, 0xf8, 0x90, 0x90, 0x0f, 0x05, 0xc3};  // jumps between the two movs
  Rewritten r({code, {}, {}});
  EXPECT_EQ(r.result.report.rewritten.size(), 1u);  // window starts at the target
  EXPECT_EQ(r.code(0, 5), (Code{0xeb, 0x03, 0x48, 0x89, 0xfe}));
  // jump to the last nop: no window is free of it
  Rewritten left({{0xeb, 0x03, 0x89, 0xfe, 0x90, 0x90, 0x0f, 0x05, 0xc3}, {}, {}});
  EXPECT_TRUE(left.result.report.rewritten.empty());
  EXPECT_EQ(left.reason(), "something may jump between it and its neighbours");
  EXPECT_TRUE(left.result.bytes.empty());
}

TEST(Rewrite, address_in_data_counts_as_target) {
  // 2-byte movs, so that windows have insides; a function pointer to the second
  Code code = {0x89, 0xfe, 0x89, 0xf8, 0x90, 0x0f, 0x05, 0xc3};
  u64 inside = kTestCodeAddress + 2;
  std::vector<u8> data(16);
  memcpy(data.data() + 8, &inside, 8);
  Rewritten r({code, data, {}});
  EXPECT_EQ(r.code(0, 2), (Code{0x89, 0xfe}));  // not displaced
  u64 last = kTestCodeAddress + 4;
  memcpy(data.data(), &last, 8);
  Rewritten left({code, data, {}});
  EXPECT_EQ(left.reason(), "something may jump between it and its neighbours");
}

TEST(Rewrite, jump_table_entries_count_as_targets) {
  // lea table(%rip),%rdx; movslq (%rdx,%rdi,4),%rax; add %rdx,%rax; jmp *%rax; mov %edi,%eax; nop; syscall; ret
  Code code = {0x48, 0x8d, 0x15, 0, 0, 0, 0, 0x48, 0x63, 0x04, 0xba, 0x48, 0x01, 0xd0, 0xff, 0xe0, 0x89, 0xf8, 0x90, 0x0f, 0x05, 0xc3};
  int32_t to_table = static_cast<int32_t>(kTestDataAddress - (kTestCodeAddress + 7));
  memcpy(code.data() + 3, &to_table, 4);
  int32_t entry = static_cast<int32_t>(kTestCodeAddress + 18 - kTestDataAddress);
  std::vector<u8> data(8);
  memcpy(data.data(), &entry, 4);
  Rewritten left({code, data, {}});
  EXPECT_EQ(left.reason(), "something may jump between it and its neighbours");
  entry -= 2;  // to the window's start
  memcpy(data.data(), &entry, 4);
  EXPECT_EQ(Rewritten({code, data, {}}).result.report.rewritten.size(), 1u);
}

TEST(Rewrite, push_and_call_are_not_displaced) {
  Rewritten push({{0x57, 0x57, 0x57, 0x0f, 0x05, 0x57, 0xc3}, {}, {}});
  EXPECT_EQ(push.reason(), "too few movable bytes around it");
  Rewritten call({{0xe8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3}, {}, {}});
  EXPECT_EQ(call.reason(), "too few movable bytes around it");
}

TEST(Rewrite, unknown_function_is_left_and_false_sites_are_ignored) {
  TestElf unknown{{0xc3, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc3}, {}, {{"f", 0, 1}}};
  EXPECT_EQ(Rewritten(unknown).reason(), "no function is known here (perhaps data)");
  Rewritten inside_of_a_constant({{0xb8, 0x0f, 0x05, 0, 0, 0xc3}, {}, {}});
  EXPECT_TRUE(inside_of_a_constant.result.report.left.empty());
  EXPECT_TRUE(inside_of_a_constant.result.report.rewritten.empty());
}

TEST(Rewrite, signal_return_without_unwind_entry_is_left) {
  Rewritten r({{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}, {}, {}});
  EXPECT_EQ(r.reason(), "signal return that unwinders recognise by its bytes");
}

TEST(Rewrite, adjacent_sites_do_not_share_bytes) {
  Code code = kMovSyscallRet;
  code.pop_back();
  code.insert(code.end(), {0x48, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05, 0xf4});
  Rewritten r({code, {}, {}});
  EXPECT_EQ(r.result.report.rewritten.size(), 2u);
}

TEST(Rewrite, added_segment_is_the_last_load_and_everything_else_stays) {
  Rewritten r({kMovSyscallRet, {}, {}});
  ElfView before = ElfView::parse(r.original, "before");
  const auto& segments = r.view->segments();
  ASSERT_EQ(segments.size(), before.segments().size());
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(memcmp(&segments[i], &before.segments()[i], sizeof(Elf64_Phdr)), 0);
  EXPECT_EQ(segments[3].p_type, u32{PT_LOAD});
  EXPECT_EQ(segments[3].p_flags, u32{PF_R | PF_X});
  EXPECT_GE(segments[3].p_vaddr, before.memory_end());
  EXPECT_TRUE(is_aligned(segments[3].p_vaddr, kPageSize) && is_aligned(segments[3].p_offset, kPageSize));
  Bytes old_rest = Bytes(r.original).subspan(0x1008), new_rest = Bytes(r.result.bytes).subspan(0x1008, old_rest.size());
  EXPECT_TRUE(std::equal(old_rest.begin(), old_rest.end(), new_rest.begin()));
}

TEST(Rewrite, header_table_moves_when_no_slot_is_free) {
  TestElf elf{kMovSyscallRet, {}, {}};
  elf.note = false;
  Rewritten r(elf);
  ASSERT_EQ(r.result.report.rewritten.size(), 1u);
  const auto& segments = r.view->segments();
  ASSERT_EQ(segments.size(), 4u);
  // Loaders compute the table's address from the first segment.
  EXPECT_EQ(segments[3].p_vaddr - segments[0].p_vaddr, r.view->header().e_phoff);
  EXPECT_EQ(r.jump_target(0), segments[3].p_vaddr + align_up(4 * sizeof(Elf64_Phdr), 16));
}

}  // namespace
}  // namespace husk::image
