// Switching kernel stacks. A stack that was switched away from holds the callee-saved registers and where to go on.
#pragma once

#include "base/types.h"

namespace husk::sched {

// Saves the rsp of the running code and continues where `load_rsp` was saved. `leaving_for_ever`, `stack` and `size` (of the
// stack that is entered) are for the address sanitizer.
void switch_stacks(u64* save_rsp, u64 load_rsp, const u8* stack, u64 size, bool leaving_for_ever);
// First thing on a stack that is entered for the first time.
void stack_entered();
// A stack whose first switch calls `begin` with nothing to return to. `top` is 16-byte aligned.
u64 prepare_stack(u8* top, void (*begin)());
void forget_stack_contents(u8* stack, u64 size);  // before it is used for another thread

}  // namespace husk::sched
