// Choice of windows and generation of trampolines; the forms are described in README.md.
#include "image/rewrite/trampoline.h"

#include <algorithm>

#include "abi/nub_abi.h"

namespace husk::image {
namespace {

constexpr u64 kJumpSize = 5;
constexpr size_t kDisplacedMax = 4;  // instructions on each side

bool writes_stack_pointer(Bytes code) {
  const auto decoded = decode_operands(code);
  if (!decoded) return true;
  return std::any_of(decoded->operands, decoded->operands + decoded->instruction.operand_count, [](const ZydisDecodedOperand& operand) {
    return operand.type == ZYDIS_OPERAND_TYPE_REGISTER && (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && is_part_of_rsp(operand.reg.value);
  });
}

// Unwinders know how far the stack pointer has moved by the original addresses only, so it must not move elsewhere.
bool may_move(const ElfView& elf, const Instruction& instruction) {
  return instruction.mnemonic_class == kPlain && !writes_stack_pointer(*elf.at_address(instruction.address, instruction.length));
}

class Emitter {
 public:
  explicit Emitter(u64 address) : address_(address) {}
  u64 here() const { return address_ + code_.size(); }
  bool ok() const { return ok_; }
  const std::vector<u8>& code() const { return code_; }
  void bytes(std::initializer_list<u8> values) { code_.insert(code_.end(), values); }
  void raw(Bytes values) { code_.insert(code_.end(), values.begin(), values.end()); }
  // A 32-bit distance to `target` from the end of this field plus `behind` bytes.
  void distance(u64 target, u64 behind = 0) {
    i64 value = static_cast<i64>(target - (here() + 4 + behind));
    if (value != static_cast<int32_t>(value)) ok_ = false;
    u32 word = static_cast<u32>(value);
    for (int shift = 0; shift < 32; shift += 8) code_.push_back(static_cast<u8>(word >> shift));
  }
  void jump(u64 target) {
    bytes({0xe9});
    distance(target);
  }
  void patch_distance(size_t at, u64 target) {
    u32 word = static_cast<u32>(target - (address_ + at + 4));
    memcpy(code_.data() + at, &word, sizeof(word));
  }
  size_t size() const { return code_.size(); }

 private:
  u64 address_;
  std::vector<u8> code_;
  bool ok_ = true;
};

// Copies one instruction to where the emitter is; addresses relative to RIP are made to fit.
void displace(const ElfView& elf, const Instruction& instruction, Emitter& out) {
  Bytes code = *elf.at_address(instruction.address, instruction.length);
  const auto found = decode_instruction(code);
  if (!found) throw Error("internal: an instruction cannot be decoded twice");
  const ZydisDecodedInstruction& decoded = *found;
  if (instruction.mnemonic_class == kBranch) {
    u64 target = instruction.end() + decoded.raw.imm[0].value.u;
    if (decoded.meta.category == ZYDIS_CATEGORY_COND_BR) {
      out.bytes({0x0f, static_cast<u8>(0x80 | (decoded.opcode & 0x0f))});
      out.distance(target);
    } else {
      out.jump(target);
    }
    return;
  }
  bool relative = (decoded.attributes & ZYDIS_ATTRIB_IS_RELATIVE) != 0;
  if (!relative) return out.raw(code);
  u64 at = decoded.raw.disp.offset;
  u64 target = instruction.end() + static_cast<u64>(decoded.raw.disp.value);
  out.raw(code.first(at));
  out.distance(target, code.size() - at - 4);
  out.raw(code.subspan(at + 4));
}

// The offset in the kernel's page of the answer to the call, if the trampoline itself loads a number that has one: else 0.
u32 answer_of(const ElfView& elf, const DecodedFunction& function, const Window& window) {
  if (function.instructions[window.site].mnemonic_class != kSyscall || window.first == window.site) return 0;
  const Instruction& before = function.instructions[window.site - 1];
  Bytes code = *elf.at_address(before.address, before.length);
  if (code.size() != 5 || code[0] != 0xb8) return 0;  // mov $number, %eax
  const auto* found = std::find(std::begin(abi::kAnsweredCalls), std::end(abi::kAnsweredCalls), *read_at<u32>(code, 1));
  if (found == std::end(abi::kAnsweredCalls)) return 0;
  return HUSK_VCPU_ANSWERS + static_cast<u32>(found - std::begin(abi::kAnsweredCalls)) * 8;
}

}  // namespace

std::vector<Window> possible_windows(const ElfView& elf, const DecodedFunction& function, size_t site) {
  const auto& code = function.instructions;
  // How far instructions before and behind the site can be moved.
  size_t first = site, last = site + 1;
  while (first > 0 && site - first < kDisplacedMax && may_move(elf, code[first - 1])) --first;
  while (last < code.size() && last - site <= kDisplacedMax && may_move(elf, code[last])) ++last;
  if (last < code.size() && (code[last].mnemonic_class == kBranch || code[last].mnemonic_class == kReturn)) ++last;

  std::vector<Window> windows;
  auto add = [&](size_t from, size_t to) { windows.push_back({from, site, to, code[from].address, code[to - 1].end()}); };
  // The shortest window of each form: syscall stays; only what is before; only what is behind; both.
  for (size_t i = site; i > first; --i) {
    if (code[site].address - code[i - 1].address >= kJumpSize) {
      add(i - 1, site + 1);
      break;
    }
  }
  for (size_t i = site; i > first; --i) {
    if (code[site].end() - code[i - 1].address >= kJumpSize) {
      add(i - 1, site + 1);
      break;
    }
  }
  for (size_t i = site + 2; i <= last; ++i) {
    if (code[i - 1].end() - code[site].address >= kJumpSize) {
      add(site, i);
      break;
    }
  }
  if (first < site && last > site + 1 && code[last - 1].end() - code[first].address >= kJumpSize) {
    for (size_t i = site + 2; i <= last; ++i) {
      if (code[i - 1].end() - code[site - 1].address >= kJumpSize) {
        add(site - 1, i);
        break;
      }
    }
  }
  return windows;
}

std::vector<u8> make_trampoline(const ElfView& elf, const DecodedFunction& function, const Window& window, u64 at) {
  const auto& code = function.instructions;
  const Instruction& site = code[window.site];
  Emitter out(at);
  for (size_t i = window.first; i < window.site; ++i) displace(elf, code[i], out);
  const bool is_cpuid = site.mnemonic_class == kCpuid;
  std::vector<size_t> return_fields;
  auto load_return = [&] {  // lea return(%rip), %rdx or %rcx
    out.bytes({0x48, 0x8d, static_cast<u8>(is_cpuid ? 0x15 : 0x0d)});
    return_fields.push_back(out.size());
    out.distance(site.end());
  };
  auto gs_operand = [&](std::initializer_list<u8> instruction, u32 offset) {
    out.bytes({0x65});
    out.bytes(instruction);
    out.bytes({static_cast<u8>(offset), static_cast<u8>(offset >> 8), 0, 0});
  };
  if (u32 answer = answer_of(elf, function, window)) {
    gs_operand({0x48, 0x8b, 0x0c, 0x25}, answer);            // mov %gs:answer, %rcx
    out.bytes({0xe3, 4 + 9 + 4 + 9 + 7 + 5});                // jrcxz, over what follows, to where the kernel is asked
    out.bytes({0x48, 0x8d, 0x41, 0xff});                     // lea -1(%rcx), %rax
    gs_operand({0x48, 0x8b, 0x0c, 0x25}, HUSK_VCPU_CALLED);  // mov %gs:called, %rcx
    out.bytes({0x48, 0x8d, 0x49, 0x01});                     // lea 1(%rcx), %rcx
    gs_operand({0x48, 0x89, 0x0c, 0x25}, HUSK_VCPU_CALLED);  // mov %rcx, %gs:called
    load_return();
    out.jump(site.end());
    return_fields.push_back(out.size() - 4);
  }
  load_return();
  gs_operand({0xff, 0x24, 0x25}, is_cpuid ? HUSK_VCPU_CPUID_ENTRY : HUSK_VCPU_SYSCALL_ENTRY);  // jmp *%gs:entry
  if (window.site_stays(site.address)) return out.ok() ? out.code() : std::vector<u8>{};

  if (!is_cpuid) out.bytes({0x0f, 0x05});  // for restarts at return - 2
  for (size_t field : return_fields) out.patch_distance(field, out.here());
  for (size_t i = window.site + 1; i < window.last; ++i) displace(elf, code[i], out);
  out.jump(window.end);
  return out.ok() ? out.code() : std::vector<u8>{};
}

}  // namespace husk::image
