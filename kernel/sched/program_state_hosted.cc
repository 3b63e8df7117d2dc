// Hosted tests run no program: the areas are memory, the registers belong to the test.
#include "kernel/sched/program_state.h"

#include <string.h>

#include "kernel/sched/sched.h"

namespace husk::sched {
namespace {
constexpr u32 kSize = 576;  // legacy area and header
u64 fs_base_register;
}  // namespace

void detect_vector_state() {}
u32 xsave_size() { return kSize; }
u64 xsave_mask() { return 3; }
void write_initial_vector_state(u8* area) { memset(area, 0, kSize); }
void xsave(u8*) {}
void xrstor(const u8*) {}
void save_vector_state(u8* area) { memcpy(area, current()->vector_state(), kSize); }
void restore_vector_state(const u8* area) { memcpy(current()->vector_state(), area, kSize); }
void init_vector_state() { write_initial_vector_state(current()->vector_state()); }
u64 read_fs_base() { return fs_base_register; }
void write_fs_base(u64 base) { fs_base_register = base; }

}  // namespace husk::sched
