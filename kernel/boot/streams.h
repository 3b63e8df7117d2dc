// Descriptors 0 to 2: the machine's consoles as files, and what the control console says about them.
#pragma once

#include "base/ref.h"
#include "base/result.h"
#include "kernel/linux/linux.h"
#include "kernel/vfs/file.h"

namespace husk {

struct StandardFiles {
  Ref<vfs::File> input, output, error;
};

// Where the configuration names a terminal, one terminal object is shared; elsewhere they look like pipes.
Result<StandardFiles> make_standard_files(const linux::Configuration& configuration);

}  // namespace husk
