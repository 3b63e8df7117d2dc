// Set-up of guarded areas and of the heap's lists; init_frames() calls these.
#pragma once

#include "base/types.h"

namespace husk::mem {

void init_guarded(u64 kernel_area_start, u64 kernel_area_end);
void reset_heap();

}  // namespace husk::mem
