#include "kernel/sched/context.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" void husk_switch_stacks(husk::u64* save_rsp, husk::u64 load_rsp);

// SAFETY: an ordinary function call as far as the compiler knows: it saves what a callee must keep (System V ABI, AMD64).
asm(R"(
        .text
        .globl husk_switch_stacks
        .type husk_switch_stacks, @function
husk_switch_stacks:
        push %rbp
        push %rbx
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, (%rdi)
        mov %rsi, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbx
        pop %rbp
        ret
        .size husk_switch_stacks, . - husk_switch_stacks
)");

namespace husk::sched {
namespace {
constexpr u64 kSavedRegisters = 6;
}

#if defined(__SANITIZE_ADDRESS__)

namespace {
// The stack of the test's own thread, learnt when it is first left.
const void* boot_stack;
size_t boot_stack_size;
}  // namespace

void stack_entered() {
  const void* left;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &left, &size);
  if (boot_stack == nullptr) boot_stack = left, boot_stack_size = size;
}

void switch_stacks(u64* save_rsp, u64 load_rsp, const u8* stack, u64 size, bool leaving_for_ever) {
  void* fake_stack = nullptr;
  const void* bottom = stack == nullptr ? boot_stack : stack;
  __sanitizer_start_switch_fiber(leaving_for_ever ? nullptr : &fake_stack, bottom, stack == nullptr ? boot_stack_size : size);
  husk_switch_stacks(save_rsp, load_rsp);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void forget_stack_contents(u8* stack, u64 size) { __asan_unpoison_memory_region(stack, size); }

#else

void stack_entered() {}
void switch_stacks(u64* save_rsp, u64 load_rsp, const u8*, u64, bool) { husk_switch_stacks(save_rsp, load_rsp); }
void forget_stack_contents(u8*, u64) {}

#endif

u64 prepare_stack(u8* top, void (*begin)()) {
  u64* word = reinterpret_cast<u64*>(top);
  *--word = 0;  // where begin() would return to; the end of backtraces
  *--word = reinterpret_cast<u64>(begin);
  word -= kSavedRegisters;
  memset(word, 0, kSavedRegisters * sizeof(u64));
  return reinterpret_cast<u64>(word);
}

}  // namespace husk::sched
