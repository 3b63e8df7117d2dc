// What a program thread has besides general registers: vector state and FS base. Guest: XSAVE; hosted: nothing to save.
#pragma once

#include "base/types.h"

namespace husk::sched {

void detect_vector_state();
void write_initial_vector_state(u8* area);
void xsave(u8* area);  // an area that held a valid state or the initial one
void xrstor(const u8* area);
u64 read_fs_base();
void write_fs_base(u64 base);

}  // namespace husk::sched
