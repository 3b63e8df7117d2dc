// One virtual CPU: registers, the run loop, interrupts and parking.
//
// run() is called on one thread, the vCPU's. request_interrupt(), request_stop() and timer_changed() may be called from any thread.
// Interrupts need a signal that breaks KVM_RUN: Vcpu uses kKickSignal with an empty handler that it installs itself.
//
// System calls used while the guest runs (for the sandbox): ioctl on the vCPU's descriptor, futex, tgkill, rt_sigreturn, clock_gettime.
#pragma once

#include <signal.h>

#include <atomic>
#include <functional>
#include <string>

#include "abi/machine_state.h"
#include "vmm/kvm/vm.h"

struct kvm_run;

namespace husk::vmm {

// What the guest's stores and loads outside its memory slots do. Called on the vCPU's thread.
class MmioHandler {
 public:
  virtual ~MmioHandler() = default;
  enum class Next { resume, stop };  // stop: run() returns RunEnd::stopped
  virtual Next mmio_store(PhysAddr address, u32 size, u64 value) = 0;
  virtual u64 mmio_load(PhysAddr address, u32 size) = 0;
};

enum class RunEnd {
  stopped,  // the handler said stop, or request_stop()
  crashed,  // triple fault, internal error, unexpected exit: see crash_report()
};

class Vcpu {
 public:
  static int kick_signal() { return SIGRTMIN + 1; }

  Vcpu(Vm& vm, u32 index);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  // Features that the guest sees, before load(): what machine_state.h needs to know.
  abi::CpuFeatures features() const { return features_; }
  u64 tsc_frequency() const { return tsc_frequency_; }  // Hz
  void load(const abi::CpuState& state);

  RunEnd run(MmioHandler& handler);

  // Any thread. The guest gets HUSK_VECTOR_EVENT as soon as it can take it; further requests until then are the same one.
  void request_interrupt();
  // Any thread. Ends a park, as a requested interrupt does, but leaves a guest that runs alone: false, and the next park() asks whether the
  // reason is still there. Breaking into a running guest costs it what a thousand packets' headers do.
  bool wake_if_parked();
  // Any thread. run() returns soon.
  void request_stop();

  // vCPU thread, from mmio_store of kMonitorPark: sleeps until an interrupt is requested, request_stop(), timer_changed() or the deadline
  // (TSC ticks, 0 = none). A request that ends the sleep is consumed, not injected: the kernel looks at its devices after parking.
  // Returns at once if an interrupt was injected since the last park, so that an event between the kernel's last look and
  // its store is not lost; so does a wake_if_parked() that came too early, if `wake_is_due` says that the guest has not seen the reason by itself.
  void park(
      u64 deadline_tsc, const std::function<bool()>& wake_is_due = [] { return true; });
  // park() would return at once.
  bool is_wanted() const { return (requests_.load() & ~u32{kWake}) != 0; }
  // Any thread: ends a park early (spuriously).
  void unpark();

  // After RunEnd::crashed: the reason and the registers, several lines.
  const std::string& crash_report() const { return crash_report_; }
  u64 interrupts_injected() const { return interrupts_injected_; }

 private:
  enum Request : u32 { kInterrupt = 1, kStop = 2, kUnpark = 4, kWake = 8 };
  void request(u32 bit);
  bool inject_if_ready();
  void report_crash(const std::string& reason);
  void set_cpuid(Vm& vm);
  void share_tsc();

  FileDescriptor vcpu_;
  kvm_run* run_ = nullptr;
  size_t run_size_ = 0;
  abi::CpuFeatures features_{};
  u64 tsc_frequency_ = 0;
  std::atomic<u32> requests_{0};  // futex word while parked
  std::atomic<bool> parked_{false};
  std::atomic<int> thread_{0};  // tid while in run()
  bool injected_since_park_ = false;
  u64 interrupts_injected_ = 0;
  std::string crash_report_;
};

}  // namespace husk::vmm
