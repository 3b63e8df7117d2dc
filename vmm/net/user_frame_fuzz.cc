// What is said about a guest's frames: any bytes, in both directions.
#include "vmm/net/user_frame.h"

extern "C" int LLVMFuzzerTestOneInput(const husk::u8* data, size_t size) {
  husk::vmm::net::LoopbackGuard guard;
  std::span<const husk::u8> frame(data, size);
  (void)husk::vmm::net::judge_frame(frame);
  (void)guard.allows_from_guest(frame);
  guard.note_to_guest(frame);
  (void)guard.allows_from_guest(frame);
  return 0;
}
