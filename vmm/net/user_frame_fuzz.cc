// What is said about a guest's frames: any bytes, in both directions.
#include "vmm/net/user_frame.h"

#include "vmm/net/user_endings.h"

extern "C" int LLVMFuzzerTestOneInput(const husk::u8* data, size_t size) {
  husk::vmm::net::LoopbackGuard guard;
  std::span<const husk::u8> frame(data, size);
  (void)husk::vmm::net::judge_frame(frame);
  (void)guard.allows_from_guest(frame);
  guard.note_to_guest(frame);
  (void)guard.allows_from_guest(frame);
  // The same bytes as a conversation: pieces, each with a length before it, in turns.
  husk::vmm::net::Endings endings;
  for (bool to_guest = false; frame.size() > 1; to_guest = !to_guest) {
    auto piece = frame.subspan(1, std::min<size_t>(frame[0], frame.size() - 1));
    if (to_guest) endings.note_to_guest(piece);
    else endings.note_from_guest(piece);
    while (auto reset = endings.take()) endings.note_from_guest(*reset);
    frame = frame.subspan(1 + piece.size());
  }
  return 0;
}
