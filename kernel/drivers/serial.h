// A 16550 at 0x3f8, polled: output and input of last resort on a PC without virtio consoles.
#pragma once

#include <span>

#include "base/types.h"

namespace husk::drivers {

void serial_write(std::span<const u8> bytes);  // waits for the line
bool serial_has_input();
u8 serial_read();

}  // namespace husk::drivers
