// See vmm/monitor_wake.h.
#include "vmm/monitor_wake.h"

#include <sys/timerfd.h>
#include <unistd.h>

namespace husk::vmm {

LazyWake::LazyWake(Vcpu& vcpu) : vcpu_(vcpu), timer_(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {}

void LazyWake::arm(u64 unheeded) {
  armed_for_ = unheeded;
  itimerspec time{};
  time.it_value.tv_nsec = kPatienceNs;
  timerfd_settime(timer_.get(), 0, &time, nullptr);
}

void LazyWake::request(u64 unheeded) {
  if (vcpu_.wake_if_parked() || armed_for_ != 0 || unheeded == 0) return;
  arm(unheeded);
}

void LazyWake::on_timer(u64 unheeded) {
  u64 count;
  (void)!read(timer_.get(), &count, sizeof(count));
  u64 armed_for = armed_for_;
  armed_for_ = 0;
  if (unheeded == 0) return;
  if (unheeded == armed_for) vcpu_.request_interrupt();
  else arm(unheeded);
}

}  // namespace husk::vmm
