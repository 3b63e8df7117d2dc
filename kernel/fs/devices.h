// Character devices by number: what opening a device node gives, on whatever file system the node is.
#pragma once

#include "kernel/vfs/file.h"

namespace husk::fs {

// ENXIO if there is no such device. make_devfs() says which terminal /dev/tty and /dev/console are.
Result<Ref<vfs::File>> open_character_device(u64 device, u32 flags);

}  // namespace husk::fs
