// See vmm/devices/rng.h.
#include "vmm/devices/rng.h"

#include <sys/random.h>

#include <algorithm>

#include "abi/virtio/rng.h"

namespace husk::vmm {
namespace {

constexpr size_t kRequestMax = 4096;  // more is cut: the used length says so
constexpr int kRequestsMax = 64;      // then the other devices get their turn

}  // namespace

RngDevice::RngDevice() : Device("rng", abi::virtio::DeviceId::rng, abi::virtio::kRngQueueCount) {}

bool RngDevice::process() {
  if (!driver_ok || !error().empty()) return false;
  Virtqueue& queue = queues[abi::virtio::kRngQueue];
  Chain chain;
  int served = 0;
  bool more = true;
  while (more && served < kRequestsMax) {
    for (; served < kRequestsMax && queue.pop(&chain); ++served) {
      ssize_t count = 0;
      if (!chain.writable.empty()) {
        const iovec& buffer = chain.writable.front();
        count = getrandom(buffer.iov_base, std::min(buffer.iov_len, kRequestMax), 0);
      }
      ++metrics_.requests;
      metrics_.bytes_in += static_cast<u64>(std::max<ssize_t>(count, 0));
      queue.push(chain.head, static_cast<u32>(std::max<ssize_t>(count, 0)));
    }
    more = queue.await_doorbell();
  }
  notify_if_wanted(queue);
  return more;
}

}  // namespace husk::vmm
