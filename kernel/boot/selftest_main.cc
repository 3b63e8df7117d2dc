#include "kernel/boot/panic.h"
#include "kernel/mem/frames.h"
#include "kernel/sched/sched.h"
#include "kernel/sched/traps.h"
#include "platform/platform.h"

namespace husk {

extern "C" [[noreturn]] void husk_main(const abi::BootInfo& info) {
  init_panic(info);
  platform::init(info);
  sched::init(reinterpret_cast<abi::VcpuShared*>(info.vcpu_shared));
  mem::init_frames(info);
  time::init(1'000'000'000, info.start_tsc, 0, info.start_tsc);
  platform::power_off(0);
}

}  // namespace husk
