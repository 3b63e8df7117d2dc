// virtio entropy device (virtio 1.2 §5.4): one queue; the device fills device-writable buffers with random bytes.
// No feature bits, no configuration. The used length says how much was written; it may be less than was offered.
#pragma once

#include "base/types.h"

namespace husk::abi::virtio {

constexpr u32 kRngQueue = 0;
constexpr u32 kRngQueueCount = 1;

}  // namespace husk::abi::virtio
