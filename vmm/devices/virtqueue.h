// The device's side of one split virtqueue (virtio 1.2 §2.7), which trusts nothing that the guest writes.
//
// Every field in guest memory is read once into a local and judged there. A chain is at most `size` descriptors, readable before
// writable ones, every buffer inside one region of guest memory that allows the access; indirect tables are refused (the feature is not offered).
// At the first violation the queue is broken: it gives and takes nothing more, and error() says why in words for the log.
//
// One thread at a time; the device that owns the queue holds its lock.
#pragma once

#include <sys/uio.h>

#include <vector>

#include "abi/virtio/queue.h"
#include "vmm/guest_memory.h"

namespace husk::vmm {

// One request: buffers in guest memory, as the host's addresses.
struct Chain {
  u16 head = 0;
  std::vector<iovec> readable;  // the driver's bytes for the device
  std::vector<iovec> writable;  // room for the device's bytes
  u64 readable_size = 0, writable_size = 0;
};

struct QueueLayout {
  u64 descriptors = 0, available = 0, used = 0;
  u32 size = 0;
};

class Virtqueue {
 public:
  static constexpr u32 kSizeMax = 1024;
  static constexpr u64 kChainBytesMax = u64{1} << 31;  // used lengths are 32 bits

  // False if the layout is nonsense; error() says why. The memory must outlive the queue.
  bool enable(const GuestMemory& memory, const QueueLayout& layout, bool event_index);
  void disable() { *this = Virtqueue(); }
  bool enabled() const { return enabled_; }
  // "" while the queue is sound.
  const char* error() const { return error_; }

  u32 size() const { return layout_.size; }
  // The next request into *chain (its vectors are reused); false if there is none or the queue is broken.
  bool pop(Chain* chain);
  // Requests that pop() has not given yet; the guest's word, so perhaps more than it will give.
  u32 available() const;
  bool has_available() const { return available() != 0; }
  // Hands a chain back. The guest sees it at once.
  void push(u16 head, u32 bytes_written) {
    stage(head, bytes_written);
    publish();
  }
  // The same in two steps, for chains that the guest must see together.
  void stage(u16 head, u32 bytes_written);
  void publish();
  // After a batch of push(): does the guest want to be told? Forgets what was pushed.
  bool take_notification();
  // The guest was to be told, and has not looked since: with EVENT_IDX it moves its wish when it does. Else 0; distinct for successive wishes.
  u32 unheeded() const;
  // Ask for no doorbell while busy; ask for one again (then look again: true if a request came in between).
  void suppress_doorbells();
  bool await_doorbell();

 private:
  bool fail(const char* error);
  bool append(const abi::virtio::Descriptor& descriptor, Chain* chain);

  const GuestMemory* memory_ = nullptr;
  QueueLayout layout_;
  u8 *available_ = nullptr, *used_ = nullptr;
  const u8* descriptors_ = nullptr;
  bool enabled_ = false;
  bool event_index_ = false;
  u16 next_available_ = 0;  // our count of requests taken
  u16 next_used_ = 0;       // our count of requests handed back
  u16 notified_used_ = 0;   // next_used_ at the last take_notification()
  u16 outstanding_ = 0;     // taken and not handed back
  bool awaits_ = true;      // a doorbell: as the driver finds the ring
  bool told_ = false;       // the last take_notification() that said so was for
  u16 told_event_ = 0;      // this wish
  const char* error_ = "";
};

}  // namespace husk::vmm
