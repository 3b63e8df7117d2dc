// The table of instructions that may fault on program memory, for the page-fault upcall.
#include "kernel/mem/user_copy.h"

extern "C" {
#define HUSK_LABEL __attribute__((visibility("hidden")))
extern const char husk_user_copy_access[] HUSK_LABEL, husk_user_copy_fixup[] HUSK_LABEL;
extern const char husk_user_clear_access[] HUSK_LABEL, husk_user_clear_fixup[] HUSK_LABEL;
extern const char husk_user_load_access[] HUSK_LABEL, husk_user_load_fixup[] HUSK_LABEL;
extern const char husk_user_exchange_access[] HUSK_LABEL, husk_user_exchange_fixup[] HUSK_LABEL;
}

namespace husk::mem {

u64 user_copy_fixup(u64 rip) {
  auto address = [](const char* label) { return reinterpret_cast<u64>(label); };
  if (rip == address(husk_user_copy_access)) return address(husk_user_copy_fixup);
  if (rip == address(husk_user_clear_access)) return address(husk_user_clear_fixup);
  if (rip == address(husk_user_load_access)) return address(husk_user_load_fixup);
  if (rip == address(husk_user_exchange_access)) return address(husk_user_exchange_fixup);
  return 0;
}

}  // namespace husk::mem
