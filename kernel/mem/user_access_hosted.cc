// Hosted tests: program addresses are pointers of the test.
#include <string.h>

#include "kernel/mem/user_access.h"
#include "kernel/mem/user_copy.h"

namespace husk::mem {

size_t husk_user_copy(void* to, const void* from, size_t size) {
  memcpy(to, from, size);
  return 0;
}
size_t husk_user_clear(void* to, size_t size) {
  memset(to, 0, size);
  return 0;
}
AccessResult husk_user_load_u32(u64 address) { return {__atomic_load_n(reinterpret_cast<u32*>(address), __ATOMIC_SEQ_CST), 0}; }
AccessResult husk_user_compare_exchange_u32(u64 address, u32 expected, u32 desired) {
  __atomic_compare_exchange_n(reinterpret_cast<u32*>(address), &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return {expected, 0};
}
u64 user_copy_fixup(u64) { return 0; }

}  // namespace husk::mem
