// When the guest hears that frames have arrived: at once if it sleeps, late if it runs.
//
// To break into a running guest costs it 50 to 140 µs on some hosts, and a guest that is busy looks at its rings by itself. So it is given kPatience; what it has
// not heeded then is an interrupt. Requests come on the thread that works the device (with the device's mutex held), the timer on the I/O thread.
#pragma once

#include "host/file_descriptor.h"
#include "vmm/kvm/vcpu.h"

namespace husk::vmm {

class LazyWake {
 public:
  static constexpr u64 kPatienceNs = 200 * 1000;
  explicit LazyWake(Vcpu& vcpu);

  // `unheeded` names what the guest has to look at, as NetDevice::unheeded(): equal numbers, and it has not looked in between.
  void request(u64 unheeded);
  int fd() const { return timer_.get(); }  // readable: on_timer()
  void on_timer(u64 unheeded);

 private:
  void arm(u64 unheeded);
  Vcpu& vcpu_;
  host::FileDescriptor timer_;
  u64 armed_for_ = 0;  // 0: the timer is off
};

}  // namespace husk::vmm
