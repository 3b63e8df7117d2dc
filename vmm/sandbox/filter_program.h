// Writes a seccomp(2) program: system calls in the order of their likelihood, then what happens to all others.
//
// Used by the monitor's allow-list (filter.cc) and by that of the network process (vmm/net/user_jail.cc). The accumulator holds the call's
// number between rules.
#pragma once

#include <asm/unistd.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include <span>
#include <utility>
#include <vector>

#include "base/types.h"

namespace husk::vmm::sandbox {

class Program {
 public:
  Program() {
    add(load(kArchitecture));
    add(jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0));
    add(result(SECCOMP_RET_KILL_PROCESS));
    add(load(kNumber));
  }
  void allow(u32 number) {
    add(jump(BPF_JEQ, number, 0, 1));
    add(result(SECCOMP_RET_ALLOW));
  }
  void fail(u32 number, int error) {
    add(jump(BPF_JEQ, number, 0, 1));
    add(result(SECCOMP_RET_ERRNO | static_cast<u32>(error)));
  }
  // If the number matches: allowed when the test of an argument's low half (3 instructions at most) says so, else forbidden.
  void allow_if_clear(u32 number, u32 index, u32 bits) {
    add(jump(BPF_JEQ, number, 0, 4));
    add(load(argument(index)));
    add(jump(BPF_JSET, bits, 0, 1));
    add(result(SECCOMP_RET_TRAP));
    add(result(SECCOMP_RET_ALLOW));
  }
  void allow_if_set(u32 number, u32 index, u32 bit) {
    add(jump(BPF_JEQ, number, 0, 4));
    add(load(argument(index)));
    add(jump(BPF_JSET, bit, 0, 1));
    add(result(SECCOMP_RET_ALLOW));
    add(result(SECCOMP_RET_TRAP));
  }
  void allow_if_equal(u32 number, u32 index, u32 value) {
    add(jump(BPF_JEQ, number, 0, 4));
    add(load(argument(index)));
    add(jump(BPF_JEQ, value, 0, 1));
    add(result(SECCOMP_RET_ALLOW));
    add(result(SECCOMP_RET_TRAP));
  }
  // The call is allowed with these values of an argument's low half; anything else gets `otherwise`.
  void allow_values(u32 number, u32 index, std::span<const u32> values, u32 otherwise = SECCOMP_RET_TRAP) {
    add(jump(BPF_JEQ, number, 0, static_cast<u8>(2 * values.size() + 2)));
    add(load(argument(index)));
    for (u32 value : values) allow(value);
    add(result(otherwise));
  }
  // All other calls end the process with SIGSYS.
  std::vector<sock_filter> take() {
    add(result(SECCOMP_RET_TRAP));
    return std::move(code_);
  }

 private:
  static constexpr u32 kNumber = offsetof(seccomp_data, nr);
  static constexpr u32 kArchitecture = offsetof(seccomp_data, arch);
  static constexpr u32 argument(u32 index) { return static_cast<u32>(offsetof(seccomp_data, args)) + 8 * index; }
  static sock_filter load(u32 offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset); }
  static sock_filter result(u32 action) { return BPF_STMT(BPF_RET | BPF_K, action); }
  static sock_filter jump(u16 condition, u32 value, u8 if_true, u8 if_false) {
    return BPF_JUMP(static_cast<u16>(BPF_JMP | condition | BPF_K), value, if_true, if_false);
  }
  void add(sock_filter instruction) { code_.push_back(instruction); }
  std::vector<sock_filter> code_;
};

}  // namespace husk::vmm::sandbox
